package heartbeat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

func TestRunLifecycle(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	require.NoError(t, f.clock.BlockUntil(ctx, 1))
	require.ErrorIs(t, f.Run(ctx), heartbeat.ErrRunning)
	cancel()
	require.NoError(t, <-done)
	f.log.take()

	require.NoError(t, f.Run(ctx), "ctx is done already")
	require.Empty(t, f.log.take(), "so there is no check")

	ctx, cancel = context.WithCancel(t.Context())
	f.clock.Advance(time.Minute)
	go func() { done <- f.Run(ctx) }()
	require.NoError(t, f.pinger.BlockUntil(ctx, 2), "Run runs again")
	cancel()
	require.NoError(t, <-done)
}

func TestNew_Errors(t *testing.T) {
	ok := heartbeat.PingerFunc(func(context.Context) error { return nil })
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	for _, test := range []struct {
		pinger    heartbeat.Pinger
		reporters []heartbeat.SyncReporter
		opts      *heartbeat.Options
		want      string
	}{
		{nil, nil, nil, "heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc"},
		{heartbeat.MultiPinger(), nil, nil, "heartbeat: MultiPinger has no pingers; give it at least one"},
		{heartbeat.MultiPinger(ok, nil), nil, nil, "heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc"},
		{ok, []heartbeat.SyncReporter{tracker, nil}, nil, "heartbeat: sync reporter is nil"},
		{ok, []heartbeat.SyncReporter{tracker, heartbeat.NewSyncTracker("/data/app.db")}, nil, "heartbeat: duplicate database path: /data/app.db"},
		{ok, nil, &heartbeat.Options{MaxSyncAge: -1}, "heartbeat: MaxSyncAge is negative (-1ns); use a positive one, or zero for the interval"},
		{ok, nil, &heartbeat.Options{FailPinger: heartbeat.MultiPinger()}, "heartbeat: MultiPinger has no pingers; give it at least one"},
	} {
		m, err := heartbeat.New(test.pinger, test.reporters, test.opts)
		require.EqualError(t, err, test.want)
		require.Nil(t, m)
	}
	m, err := heartbeat.New(ok, []heartbeat.SyncReporter{tracker}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, m.Add(tracker), heartbeat.ErrDuplicatePath)
	require.Error(t, m.Add(nil))
}

func TestNew_IntervalFloor(t *testing.T) {
	for _, interval := range []time.Duration{-time.Hour, 1, time.Minute - 1} {
		log := &logBuffer{}
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
				at = append(at, time.Since(start))
				return nil
			}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Interval: interval, Logger: log.logger(slog.LevelWarn)})
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("level=WARN msg=\"heartbeat interval raised to the minimum\" interval=%v minimum=1m0s\n", interval), log.take())
			ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.Equal(t, minutes(0, 1, 2), at)
		})
	}
}

// The default logger is what slog.Default was at New.
func TestNew_DefaultLogger(t *testing.T) {
	log := &logBuffer{}
	std := slog.Default()
	defer slog.SetDefault(std)
	slog.SetDefault(log.logger(slog.LevelInfo))
	m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return nil }), []heartbeat.SyncReporter{alwaysFresh{}}, nil)
	require.NoError(t, err)
	slog.SetDefault(quiet)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Equal(t, "level=INFO msg=\"heartbeat sent\"\n", log.take())
}

func TestOnResult(t *testing.T) {
	var results []heartbeat.Result
	f := newFixture(t, heartbeat.Options{OnResult: func(r heartbeat.Result) {
		results = append(results, r)
		if len(results) == 2 {
			panic("disk full")
		}
	}})
	first := f.Beat(t.Context())
	f.log.take()
	second := f.Beat(t.Context())
	require.Contains(t, f.log.take(), "level=ERROR msg=\"heartbeat callback panicked\" panic=\"disk full\"\n")
	require.Equal(t, []heartbeat.Result{first, second}, results)
}

func TestFault_Pingers(t *testing.T) {
	hour := heartbeat.Options{Interval: time.Hour}
	t.Run("a panic is tried again", func(t *testing.T) {
		require.Equal(t, minutes(0, 1, 60), offsets(t, 90*time.Minute, hour, func(n int) error {
			if n == 1 {
				panic("pinger")
			}
			return nil
		}))
	})
	t.Run("returns nil after the deadline", func(t *testing.T) {
		require.Equal(t, minutes(0, 60), offsets(t, 90*time.Minute, hour, func(int) error {
			time.Sleep(2 * time.Minute)
			return nil
		}))
	})
	t.Run("returns an error after the deadline", func(t *testing.T) {
		require.Equal(t, minutes(0, 2, 60, 62), offsets(t, 90*time.Minute, hour, func(n int) error {
			time.Sleep(2 * time.Minute)
			if n%2 == 1 {
				return errLost
			}
			return nil
		}))
	})
	t.Run("blocks past ctx", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var pings atomic.Int32
			monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
				pings.Add(1)
				time.Sleep(time.Hour)
				return nil
			}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			stop := run(t, monitor)
			time.Sleep(10 * time.Minute)
			require.Equal(t, heartbeat.ReasonRateLimited, monitor.Beat(t.Context()).Reason, "never twice at once")
			require.True(t, monitor.Status().Healthy)
			require.True(t, monitor.Remove(alwaysFresh{}.Path()))
			require.NoError(t, monitor.Add(alwaysFresh{}))
			require.Equal(t, 10*time.Minute, time.Since(start), "nothing waited")
			require.EqualValues(t, 1, pings.Load())
			stop()
			require.Equal(t, time.Hour, time.Since(start), "it holds up Run, as is documented")
		})
	})
}

// TestFault_ContextEnds ends the caller's ctx at each moment of two checks: the
// first ping takes 30 s and fails, the second takes 30 s and succeeds.
func TestFault_ContextEnds(t *testing.T) {
	for moment := time.Duration(0); moment < 100*time.Second; moment += 5 * time.Second {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log logBuffer
			pings := 0
			monitor, err := heartbeat.New(heartbeat.PingerFunc(func(ctx context.Context) error {
				pings++
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(30*time.Second - 1): // so that it does not end with ctx
				}
				if pings == 1 {
					return errLost
				}
				return nil
			}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: log.logger(slog.LevelDebug)})
			require.NoError(t, err)
			time.AfterFunc(moment, cancel)
			require.NoError(t, monitor.Run(ctx))
			require.Equal(t, moment, time.Since(start), "Run returns at once")
			want := ""
			if moment >= 30*time.Second {
				want += "level=ERROR msg=\"heartbeat failed\" error=\"no answer\" retry=30s\n"
			}
			if moment >= 90*time.Second {
				want += "level=INFO msg=\"heartbeat sent\"\n"
			}
			require.Equal(t, want, log.take(), "at %v", moment)
		})
	}
	for _, where := range []string{"reporter", "pinger", "callback"} {
		t.Run("in the "+where, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end := func(here string) error {
				if here == where {
					cancel()
				}
				return ctx.Err()
			}
			var log logBuffer
			monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return end("pinger") }),
				[]heartbeat.SyncReporter{reporterFunc{"/data/app.db", func() time.Time { _ = end("reporter"); return time.Now() }}},
				&heartbeat.Options{Logger: log.logger(slog.LevelDebug), OnResult: func(heartbeat.Result) { _ = end("callback") }})
			require.NoError(t, err)
			require.NoError(t, monitor.Run(ctx))
			require.NotContains(t, log.take(), "failed")
		})
	}
}

func TestFault_Lifecycle(t *testing.T) {
	t.Run("Beat before, during and after Run; Run twice, and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			monitor, err := heartbeat.New(sent, []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			for range 3 {
				require.Equal(t, heartbeat.Sent, monitor.Beat(t.Context()).Outcome)
				stop := run(t, monitor)
				time.Sleep(2*time.Minute + 1) // Run's first is a minute after Beat's
				require.ErrorIs(t, monitor.Run(t.Context()), heartbeat.ErrRunning)
				require.Equal(t, heartbeat.Sent, monitor.Beat(t.Context()).Outcome)
				stop()
				time.Sleep(time.Minute)
			}
		})
	})
	t.Run("OnResult calls everything", func(t *testing.T) {
		calls := 0
		var f *fixture
		f = newFixture(t, heartbeat.Options{Logger: quiet, OnResult: func(heartbeat.Result) {
			calls++
			require.NotEmpty(t, f.Status().Databases)
			path := fmt.Sprint("/data/", calls)
			require.NoError(t, f.Add(reporterFunc{path, f.clock.Now}))
			require.True(t, f.Remove(path))
			f.Beat(t.Context())
		}})
		require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
		require.Equal(t, 100, calls)
		require.Len(t, f.pinger.Times(), 1)
		f.Beat(t.Context())
		require.Equal(t, 200, calls, "those of before are no longer under way")
	})
	t.Run("a panicking OnResult", func(t *testing.T) {
		f := newFixture(t, heartbeat.Options{OnResult: func(heartbeat.Result) { panic("callback") }})
		stop := run(t, f.Monitor)
		require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
		for range 3 {
			f.reporter.Set(f.clock.Now().Add(5 * time.Minute))
			require.NoError(t, f.clock.Step(t.Context(), 5*time.Minute))
		}
		stop()
		require.Len(t, f.pinger.Times(), 4)
		require.Equal(t, 4, strings.Count(f.log.take(), `level=ERROR msg="heartbeat callback panicked"`))
	})
	t.Run("ctx is done already", func(t *testing.T) {
		f := newFixture(t, heartbeat.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, f.Run(ctx))
		require.Equal(t, heartbeat.Failed, f.Beat(ctx).Outcome)
		require.Empty(t, f.pinger.Times())
		require.Empty(t, f.log.take())
	})
	t.Run("10,000 monitors", func(t *testing.T) {
		// The bubble fails if one of them leaves a goroutine behind.
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
			defer cancel()
			var pings atomic.Int32
			var runs sync.WaitGroup
			for range 10_000 {
				monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { pings.Add(1); return nil }),
					[]heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
				require.NoError(t, err)
				runs.Go(func() { _ = monitor.Run(ctx) })
			}
			runs.Wait()
			require.EqualValues(t, 30_000, pings.Load())
		})
	})
}

// TestFault_NothingLeft runs a Monitor over HTTP. Its goroutines, and those that
// they start, carry a label that the profile shows.
func TestFault_NothingLeft(t *testing.T) {
	states := make(chan http.ConnState, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) { states <- state }
	server.Start()
	defer server.Close()
	pinger, err := heartbeat.NewHTTPPinger(server.URL, nil)
	require.NoError(t, err)
	ended := make(chan heartbeat.Result, 1)
	monitor, err := heartbeat.New(heartbeat.MultiPinger(pinger, sent), []heartbeat.SyncReporter{alwaysFresh{}},
		&heartbeat.Options{Logger: quiet, OnResult: func(r heartbeat.Result) { ended <- r }})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	pprof.Do(ctx, pprof.Labels("heartbeat", "run"), func(ctx context.Context) {
		go func() { done <- monitor.Run(ctx) }()
	})
	goroutines := func() string {
		var profile bytes.Buffer
		require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
		for stack := range strings.SplitSeq(profile.String(), "\n\n") {
			if strings.Contains(stack, `labels: {"heartbeat":"run"}`) {
				return stack
			}
		}
		return ""
	}
	require.Equal(t, heartbeat.Sent, (<-ended).Outcome)
	require.NotEmpty(t, goroutines(), "Run is under way, and its connection is kept")
	cancel()
	require.NoError(t, <-done)
	for state := http.StateNew; state != http.StateClosed; { // as the server sees the connection
		state = <-states
	}
	for deadline := time.Now().Add(10 * time.Second); goroutines() != ""; runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "left: %s", goroutines())
	}
}

// A funcClock is a Clock of two functions.
type funcClock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

func (c funcClock) Now() time.Time { return c.now() }

func (c funcClock) After(d time.Duration) <-chan time.Time { return c.after(d) }

// A hookedClock calls a function when it is asked for the time.
type hookedClock struct {
	*heartbeattest.Clock
	hook func()
}

func (c *hookedClock) Now() time.Time {
	now := c.Clock.Now()
	if c.hook != nil {
		c.hook()
	}
	return now
}

// New refuses what would answer an outage with a heartbeat.
func TestNew_SamePinger(t *testing.T) {
	http1, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a", nil)
	require.NoError(t, err)
	same, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a", &heartbeat.HTTPOptions{Method: "POST"})
	require.NoError(t, err)
	other, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a/fail", nil)
	require.NoError(t, err)
	recorder := &heartbeattest.Pinger{}
	for _, row := range []struct {
		pinger, fail heartbeat.Pinger
		refused      bool
	}{
		{http1, http1, true},
		{http1, same, true},
		{heartbeat.MultiPinger(sent, http1), heartbeat.MultiPinger(other, same), true},
		{recorder, recorder, true},
		{namedPinger{recorder, "x"}, namedPinger{recorder, "x"}, true},
		{http1, other, false},
		{sent, sent, false}, // functions cannot be compared
		{namedPinger{sent, "x"}, namedPinger{sent, "x"}, false},
	} {
		_, err := heartbeat.New(row.pinger, nil, &heartbeat.Options{FailPinger: row.fail})
		if row.refused {
			require.EqualError(t, err, "heartbeat: FailPinger pings what the pinger pings; give it the service's failure URL")
		} else {
			require.NoError(t, err)
		}
	}
	for _, none := range []heartbeat.Pinger{nil, (*heartbeat.HTTPPinger)(nil), heartbeat.PingerFunc(nil), (*heartbeattest.Pinger)(nil), &heartbeat.HTTPPinger{}} {
		_, err := heartbeat.New(none, nil, nil)
		require.EqualError(t, err, "heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc", "%T", none)
	}
}

// An OnResult that makes two Beats makes a tree of calls. It ends.
func TestOnResult_Tree(t *testing.T) {
	t.Parallel()
	calls := 0
	var m *heartbeat.Monitor
	m, err := heartbeat.New(sent, fresh(), &heartbeat.Options{Logger: quiet, OnResult: func(heartbeat.Result) {
		calls++
		m.Beat(t.Context())
		m.Beat(t.Context())
	}})
	require.NoError(t, err)
	for n := range 3 {
		m.Beat(t.Context())
		require.Equal(t, 100*(n+1), calls)
	}
}

// S2, P6: a ping that hangs is cut short where the other target's next beat is due;
// a lone target has no one to wait for.
func TestS2_P6_RetryHangs(t *testing.T) {
	for interval := 61 * time.Second; interval < 2*time.Minute; interval += 7 * time.Second {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var good []time.Duration
			m, err := heartbeat.New(heartbeat.MultiPinger(
				heartbeat.PingerFunc(func(context.Context) error {
					good = append(good, time.Since(start))
					return nil
				}),
				heartbeat.PingerFunc(func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}),
			), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Interval: interval, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*interval-1)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.Len(t, good, 10)
			for k, at := range good {
				require.Equal(t, time.Duration(k)*interval, at)
			}
		})
	}
	require.Equal(t, minutes(0, 1, 2, 3, 4), offsets(t, 5*time.Minute-1, heartbeat.Options{Interval: 66 * time.Second}, func(int) error {
		return errors.New("lost")
	}))
}

// P6: a pinger that ends its goroutine is a failed ping, with one target too, and
// Run goes on.
func TestS8_Goexit(t *testing.T) {
	at := offsets(t, 6*time.Minute, heartbeat.Options{}, func(n int) error {
		if n == 1 {
			runtime.Goexit()
		}
		return nil
	})
	require.Equal(t, minutes(0, 1, 5), at)
}

// A curiousContext asks a Monitor for its status whenever it is asked for a value.
type curiousContext struct {
	context.Context
	ask func()
}

func (c curiousContext) Value(key any) any { c.ask(); return c.Context.Value(key) }

// A ctx may call the Monitor back, as all that is foreign may.
func TestFault_ContextCallsBack(t *testing.T) {
	m, err := heartbeat.New(sent, fresh(), &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	asked := 0
	result := m.Beat(curiousContext{t.Context(), func() { asked++; m.Status() }})
	require.Equal(t, heartbeat.Sent, result.Outcome)
	require.Positive(t, asked)
}

// A ctx that panics or ends its goroutine ends its own Beat, and no later one.
func TestFault_ContextPanics(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("ctx") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, heartbeat.Options{})
			ended := make(chan bool)
			go func() {
				defer close(ended)
				defer func() { _ = recover() }() // as net/http does
				f.Beat(curiousContext{t.Context(), end})
			}()
			<-ended
			require.Empty(t, f.pinger.Times())
			f.clock.Advance(10 * time.Second)
			require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
		})
	}
}

type endingError struct{}

func (endingError) Error() string { return "ends its goroutine" }

func (endingError) Is(error) bool { runtime.Goexit(); return false }

// S8: so has one whose error does that when it is looked at.
func TestS8_GoexitOfAnError(t *testing.T) {
	at := offsets(t, 6*time.Minute, heartbeat.Options{}, func(n int) error {
		if n == 1 {
			return endingError{}
		}
		return nil
	})
	require.Equal(t, minutes(0, 1, 5), at)
}

// S8: what a grid point owes is not settled by a Beat's ping that began before it and
// ended after it. An attempt in flight is waited for until it may be repeated.
func TestS8_Straddling(t *testing.T) {
	for _, row := range []struct {
		err  error
		want []time.Duration
	}{
		{nil, seconds(0, 290, 350, 600)},
		{errLost, seconds(0, 290, 350, 600)},
		{errRefused, seconds(0, 290, 315, 600)}, // it never left, and was known not to have at 315 s
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var mu sync.Mutex
			var at []time.Duration
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
				mu.Lock()
				at = append(at, time.Since(start))
				mine := len(at)
				mu.Unlock()
				if mine == 2 {
					time.Sleep(25 * time.Second)
					return row.err
				}
				return nil
			}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 11*time.Minute)
			defer cancel()
			time.AfterFunc(290*time.Second, func() { m.Beat(ctx) })
			require.NoError(t, m.Run(ctx))
			require.Equal(t, row.want, at)
		})
	}
}

// S8: a clock that panics while a ping is settled leaves no target behind.
func TestS8_PanickingClock(t *testing.T) {
	clock := &hookedClock{Clock: heartbeattest.NewClock(epoch)}
	pings := 0
	m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
		if pings++; pings == 1 {
			clock.hook = func() { panic("clock") }
		}
		return nil
	}), []heartbeat.SyncReporter{reporterFunc{"/data/app.db", clock.Clock.Now}}, &heartbeat.Options{Clock: clock, Logger: quiet})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Panics(t, func() { m.Beat(t.Context()) }, "before a ping it is its caller's affair")
	clock.hook = nil
	clock.Advance(time.Minute)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
}

// S6: a Retry-After pushes back the next attempt on its own target, by an hour at
// most, and no other.
func TestRetryAfterDelaysItsTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		code  int
		after string
		want  []time.Duration
	}{
		{429, "30", []time.Duration{0, time.Minute}},
		{429, "150", []time.Duration{0, 150 * time.Second}},
		{503, "150", []time.Duration{0, 150 * time.Second}},
		{500, "150", []time.Duration{0, time.Minute}},
		{429, "600", []time.Duration{0, 10 * time.Minute}},
		{429, "7200", []time.Duration{0, time.Hour}},
	} {
		t.Run(fmt.Sprint(row.code, " ", row.after), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var busy, other []time.Duration
				busyPinger := newPinger(t, "http://busy.example", viaFunc(func(req *http.Request) (*http.Response, error) {
					if busy = append(busy, time.Since(start)); len(busy) == 1 {
						return answerWith(req, row.code, http.Header{"Retry-After": {row.after}}, ""), nil
					}
					return answerWith(req, 200, nil, "OK"), nil
				}))
				otherPinger := heartbeat.PingerFunc(func(context.Context) error {
					other = append(other, time.Since(start))
					return nil
				})
				runFor(t, 61*time.Minute, heartbeat.MultiPinger(busyPinger, otherPinger), &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: 24 * time.Hour})
				require.Equal(t, row.want, busy[:2])
				require.Len(t, other, 13)
				for k, at := range other {
					require.Equal(t, time.Duration(k)*5*time.Minute, at)
				}
			})
		})
	}
}

// S6: a Beat does not get past a Retry-After either.
func TestRetryAfterHoldsBeat(t *testing.T) {
	t.Parallel()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	code, pings := 429, 0
	p := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
		pings++
		return answerWith(req, code, http.Header{"Retry-After": {"5400"}}, ""), nil
	}))
	m, err := heartbeat.New(p, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: clock, MaxSyncAge: 24 * time.Hour, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
	code = 200
	clock.Advance(time.Hour - 1)
	result := m.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonRateLimited, result.Reason)
	require.Equal(t, 1, pings)
	clock.Advance(1)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Equal(t, 2, pings)
}

// P6, S2, S3: of three targets the second hangs until its timeout. The others are
// pinged while it does, and only it is pinged again a minute later.
func TestOneOfThreeHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		called := func(name string) (n int) {
			mu.Lock()
			defer mu.Unlock()
			at[name] = append(at[name], time.Since(start))
			return len(at[name])
		}
		first, third := make(chan struct{}), make(chan struct{})
		errNotReached := errors.New("the others were not pinged")
		p := heartbeat.MultiPinger(
			namedPing("first", func(context.Context) error {
				if called("first") == 1 {
					close(first)
				}
				return nil
			}),
			namedPing("second", func(ctx context.Context) error {
				if called("second") != 1 {
					return nil
				}
				for _, c := range []chan struct{}{first, third} {
					select {
					case <-c:
					case <-ctx.Done():
						return errNotReached
					}
				}
				<-ctx.Done() // the others have arrived, and this one hangs
				return ctx.Err()
			}),
			heartbeat.MultiPinger(namedPing("third", func(context.Context) error {
				if called("third") == 1 {
					close(third)
				}
				return nil
			})),
		)
		var results []heartbeat.Result
		lines := runFor(t, 11*time.Minute, p, &heartbeat.Options{
			Interval: 5 * time.Minute, MaxSyncAge: time.Hour, OnResult: func(r heartbeat.Result) { results = append(results, r) },
		})
		grid := []time.Duration{0, 5 * time.Minute, 10 * time.Minute}
		require.Equal(t, map[string][]time.Duration{
			"first": grid, "second": {0, time.Minute, 5 * time.Minute, 10 * time.Minute}, "third": grid,
		}, at)
		require.Len(t, results, 4)
		require.Equal(t, heartbeat.Failed, results[0].Outcome)
		require.EqualError(t, results[0].Err, "second: context deadline exceeded")
		require.ErrorIs(t, results[0].Err, context.DeadlineExceeded)
		for _, r := range results[1:] {
			require.Equal(t, heartbeat.Sent, r.Outcome)
		}
		slices.Sort(lines[:2])
		require.Equal(t, []string{ // L1: one for each check and target
			"INFO heartbeat sent url=first",
			"INFO heartbeat sent url=third",
			"ERROR heartbeat failed url=second error=context deadline exceeded",
			"INFO heartbeat sent url=second",
		}, lines[:4])
		require.Len(t, lines, 10)
	})
}

// P6, S2, S3: a pinger that blocks past its ctx holds up the checks, and so the
// beats, of the others. Nobody is pinged twice for it, and nothing overlaps.
func TestPingerBlocksPastItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var slow, quick []time.Duration
		p := heartbeat.MultiPinger(
			heartbeat.PingerFunc(func(ctx context.Context) error {
				slow = append(slow, time.Since(start))
				time.Sleep(90 * time.Second) // on the bubble's clock
				return ctx.Err()
			}),
			heartbeat.PingerFunc(func(context.Context) error {
				quick = append(quick, time.Since(start))
				return nil
			}),
		)
		runFor(t, 7*time.Minute, p, &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: time.Hour})
		// The grid point at 5:00 falls into the slow one's fourth attempt.
		require.Equal(t, []time.Duration{0, 5 * time.Minute}, quick)
		require.Equal(t, []time.Duration{0, 90 * time.Second, 180 * time.Second, 270 * time.Second, 360 * time.Second}, slow)
	})
}

// S2, P6: a target that answers slowly and is rate-limited once has its beats all the
// same, though another target's fall due meanwhile.
func TestP6_SlowTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		interval time.Duration
		slow     func(n int) (time.Duration, error) // of the n-th ping
		gap      time.Duration                      // the longest between two beats
	}{
		{time.Minute, func(n int) (time.Duration, error) {
			if n == 5 {
				return 1500 * time.Millisecond, &heartbeat.StatusError{Code: 429, RetryAfter: 118 * time.Second}
			}
			return 1500 * time.Millisecond, nil
		}, 3 * time.Minute},
		{time.Minute, func(n int) (time.Duration, error) {
			if n >= 5 && n < 9 {
				return 14900 * time.Millisecond, heartbeat.ErrNotSent
			}
			return 100 * time.Millisecond, nil
		}, 2 * time.Minute},
		{61 * time.Second, func(n int) (time.Duration, error) {
			if n == 5 {
				return 10 * time.Second, errLost
			}
			return 5 * time.Second, nil
		}, 3 * time.Minute},
		{5 * time.Minute, func(n int) (time.Duration, error) {
			if n == 5 {
				return 10 * time.Second, errLost
			}
			return 5 * time.Second, nil
		}, 6*time.Minute + 10*time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var beats []time.Time
			others, n := 0, 0
			slow := heartbeat.PingerFunc(func(ctx context.Context) error {
				n++
				takes, err := row.slow(n)
				select {
				case <-time.After(takes):
				case <-ctx.Done():
					return ctx.Err()
				}
				if err == nil {
					beats = append(beats, time.Now())
				}
				return err
			})
			other := heartbeat.PingerFunc(func(context.Context) error { others++; return nil })
			runFor(t, 3*time.Hour, heartbeat.MultiPinger(slow, other), &heartbeat.Options{Interval: row.interval, MaxSyncAge: day})
			require.InDelta(t, float64(3*time.Hour/row.interval), float64(others), 1)
			require.GreaterOrEqual(t, len(beats), others-4)
			for i := 1; i < len(beats); i++ {
				require.LessOrEqual(t, beats[i].Sub(beats[i-1]), row.gap, "interval %v", row.interval)
			}
		})
	}
}

// P6, F1: a target that hangs holds up neither another's further try nor the signal.
func TestP6_HangingTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		db := heartbeat.NewSyncTracker("/data/app.db")
		db.Record(start)
		var tries, signals []time.Duration
		m, err := heartbeat.New(heartbeat.MultiPinger(
			heartbeat.PingerFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }),
			heartbeat.PingerFunc(func(context.Context) error {
				if tries = append(tries, time.Since(start)); len(tries) == 1 {
					return heartbeat.ErrNotSent
				}
				return nil
			}),
		), []heartbeat.SyncReporter{db}, &heartbeat.Options{
			Interval: 61 * time.Second, MaxSyncAge: 62 * time.Second, Logger: quiet,
			FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals = append(signals, time.Since(start)); return nil }),
		})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(90 * time.Second)
		stop()
		require.Equal(t, seconds(0, 10), tries[:2])
		require.Equal(t, seconds(62), truncated(signals))
	})
}

// S5: a Beat that is rate-limited, and finds a database that is stale sooner than
// Run expected, wakes Run.
func TestS5_BeatMovesTheWatch(t *testing.T) {
	t.Parallel()
	r := runInBubble(t, 50*time.Minute, heartbeat.Options{Interval: time.Hour}, func(r *bubbleRun) {
		r.syncs(t, "/data/app.db", 0)
		time.AfterFunc(20*time.Second, func() {
			r.syncs(t, "/data/new.db").Record(time.Now().Add(-50 * time.Minute))
			require.Equal(t, heartbeat.ReasonRateLimited, r.Beat(context.Background()).Reason)
		})
	})
	require.Equal(t, seconds(620), truncated(r.signals))
}

// What ExampleMonitor_Run_cron does when the service cannot be had at once: a 503 is
// mended by a second try after a minute, and a service that refuses connections for
// a quarter of a minute by a third try after twenty seconds. With nothing wrong it
// ends at once, and when its time is over it ends without a heartbeat.
func TestS2_RunUntilSent(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, row := range []struct {
		name     string
		answer   func(since time.Duration) (int, error)
		attempts []time.Duration
		took     time.Duration
		sent     bool
	}{
		{"accepted", func(time.Duration) (int, error) { return http.StatusOK, nil }, []time.Duration{0}, 0, true},
		{"503", func(since time.Duration) (int, error) {
			if since < time.Second {
				return http.StatusServiceUnavailable, nil
			}
			return http.StatusOK, nil
		}, []time.Duration{0, time.Minute}, time.Minute, true},
		{"refused", func(since time.Duration) (int, error) {
			if since < 15*time.Second {
				return 0, refused
			}
			return http.StatusOK, nil
		}, []time.Duration{0, 10 * time.Second, 20 * time.Second}, 20 * time.Second, true},
		{"503 for ever", func(time.Duration) (int, error) { return http.StatusServiceUnavailable, nil },
			[]time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute}, 4*time.Minute - 1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var attempts []time.Duration
				client := &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
					attempts = append(attempts, time.Since(start))
					code, err := row.answer(time.Since(start))
					if err != nil {
						return nil, err
					}
					w := httptest.NewRecorder()
					w.WriteHeader(code)
					return w.Result(), nil
				})}
				pinger, err := heartbeat.NewHTTPPinger("https://hc-ping.example/your-uuid-here", &heartbeat.HTTPOptions{Client: client})
				require.NoError(t, err)
				db := heartbeat.NewSyncTracker("/data/app.db")
				db.Record(start)
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute-1)
				defer cancel()
				monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
					OnResult: func(result heartbeat.Result) {
						if result.Outcome == heartbeat.Sent {
							cancel()
						}
					},
					Logger: slog.New(slog.DiscardHandler),
				})
				require.NoError(t, err)
				require.NoError(t, monitor.Run(ctx))
				require.Equal(t, row.took, time.Since(start))
				require.Equal(t, row.attempts, attempts)
				require.Equal(t, row.sent, !monitor.Status().LastSentAt.IsZero())
				if !row.sent {
					require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
				}
			})
		})
	}
}

// S5: what a caller gave to Beat is let go when Beat returns.
func TestS5_CtxIsLetGo(t *testing.T) {
	m, err := heartbeat.New(sent, []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	gone := make(chan bool, 1)
	func() {
		type key struct{}
		held := new([1 << 20]byte)
		runtime.AddCleanup(held, func(int) { gone <- true }, 0)
		require.Equal(t, heartbeat.Sent, m.Beat(context.WithValue(context.Background(), key{}, held)).Outcome)
	}()
	for len(gone) == 0 { // the cleanup has a goroutine of its own
		runtime.GC()
	}
	runtime.KeepAlive(m)
}
