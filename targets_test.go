package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

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
			namedPing{"first", func(context.Context) error {
				if called("first") == 1 {
					close(first)
				}
				return nil
			}},
			namedPing{"second", func(ctx context.Context) error {
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
			}},
			heartbeat.MultiPinger(namedPing{"third", func(context.Context) error {
				if called("third") == 1 {
					close(third)
				}
				return nil
			}}),
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

// L1: a Beat that its caller cuts short takes no ERROR line from the beat.
func TestL1_CutByItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := heartbeat.PingerFunc(func(ctx context.Context) error {
			if n++; n == 2 {
				<-ctx.Done()
				return ctx.Err()
			}
			if n == 1 {
				return nil
			}
			return errLost
		})
		log := &lineLog{}
		m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: day, Logger: slog.New(log)})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(4*time.Minute + 59*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // past the next grid point
		defer cancel()
		require.ErrorIs(t, m.Beat(ctx).Err, context.DeadlineExceeded)
		time.Sleep(3 * time.Minute)
		stop()
		require.Equal(t, []string{
			"INFO heartbeat sent",
			"ERROR heartbeat failed error=no answer retry=1m0s",
			"DEBUG heartbeat failed error=no answer retry=1m0s",
		}, log.lines()[:3])
	})
}

// L1: a try that ends after the next grid point is no second ERROR for its beat.
func TestL1_EndsLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := heartbeat.PingerFunc(func(context.Context) error {
			time.Sleep(50 * time.Second)
			return errLost
		})
		errorLines := 0
		for _, line := range runFor(t, 10*90*time.Second-1, p, &heartbeat.Options{Interval: 90 * time.Second, MaxSyncAge: day}) {
			if strings.HasPrefix(line, "ERROR") {
				errorLines++
			}
		}
		require.LessOrEqual(t, errorLines, 10)
		require.GreaterOrEqual(t, errorLines, 8)
	})
}

// L1: a reporter that goes on panicking is one ERROR a beat.
func TestL1_PanickingReporter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &lineLog{}
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{&panicReporter{"/data/app.db", "a"}, &panicReporter{"/data/users.db", "b"}},
			&heartbeat.Options{Interval: time.Minute, Logger: slog.New(log)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute-1)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		count := map[string]int{}
		for _, line := range log.lines() {
			count[strings.SplitN(line, " ", 2)[0]]++
		}
		require.Equal(t, 5*2, count["ERROR"])
		require.Equal(t, 5, count["WARN"])
	})
}

// L1: that there are no databases is said once, when it becomes so, and not at an
// ordinary start. So a daemon that follows, and has none, stays quiet.
func TestL1_NoDatabases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &lineLog{}
		var dbs atomic.Pointer[[]heartbeat.SyncReporter]
		dbs.Store(&[]heartbeat.SyncReporter{})
		m, err := heartbeat.New(sent, nil, &heartbeat.Options{
			Interval: time.Minute, Logger: slog.New(log), Source: func() []heartbeat.SyncReporter { return *dbs.Load() },
		})
		require.NoError(t, err)
		stop := run(t, m)
		warned := func() (n int) {
			synctest.Wait()
			for _, line := range log.lines() {
				if strings.HasPrefix(line, "WARN") {
					require.Equal(t, "WARN heartbeat skipped reason=no databases", line)
					n++
				}
			}
			return n
		}
		time.Sleep(time.Second)
		require.Zero(t, warned())
		time.Sleep(time.Hour)
		require.Equal(t, 1, warned())
		dbs.Store(&[]heartbeat.SyncReporter{alwaysFresh{}}) // it leads
		time.Sleep(time.Hour)
		require.Equal(t, 1, warned())
		dbs.Store(&[]heartbeat.SyncReporter{}) // it follows
		time.Sleep(time.Hour)
		require.Equal(t, 2, warned())
		stop()
	})
}

// L1: a look that takes over ten seconds is one WARN that names the database that it
// waits for. A Beat that waits for that look gives up with its ctx.
func TestL1_SlowLook(t *testing.T) {
	t.Parallel()
	for _, sourced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &lineLog{}
			release := make(chan struct{})
			hangs := reporterFunc{"/data/hangs.db", func() time.Time { <-release; return time.Now() }}
			opts := &heartbeat.Options{Interval: time.Minute, MaxSyncAge: day, Logger: slog.New(log)}
			want := "/data/hangs.db"
			if sourced {
				want = "Options.Source"
				opts.Source = func() []heartbeat.SyncReporter { <-release; return nil }
			}
			m, err := heartbeat.New(sent, []heartbeat.SyncReporter{alwaysFresh{}}, opts)
			require.NoError(t, err)
			if !sourced {
				require.NoError(t, m.Add(hangs))
			}
			require.NoError(t, m.Add(reporterFunc{"/data/last.db", time.Now}))
			stop := run(t, m)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			result := m.Beat(ctx)
			require.Equal(t, heartbeat.Failed, result.Outcome)
			require.ErrorIs(t, result.Err, context.DeadlineExceeded)
			time.Sleep(10 * time.Minute)
			require.Equal(t, []string{"WARN sync reporter has not answered db=" + want + " waited=10s"}, log.lines())
			close(release)
			synctest.Wait()
			require.Contains(t, log.lines(), "INFO heartbeat sent")
			stop()
		})
	}
}

// L1: a pinger that has not come back after its timeout is one WARN that names it.
func TestL1_PingerDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &lineLog{}
		release := make(chan struct{})
		m, err := heartbeat.New(namedPing{"chat", func(context.Context) error { <-release; return nil }}, fresh(),
			&heartbeat.Options{Interval: time.Minute, MaxSyncAge: day, Logger: slog.New(log)})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(time.Hour)
		close(release)
		stop()
		lines := slices.DeleteFunc(log.lines(), func(line string) bool { return strings.HasPrefix(line, "DEBUG") })
		require.Equal(t, []string{"WARN pinger has not returned target=chat waited=1m10s url=chat", "INFO heartbeat sent url=chat"}, lines[:2])
	})
}

// L4: a check whose log handler or callback hangs holds up no other. A hundred of them
// hold up Run.
func TestL4_Hangs(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"handler", "callback"} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			pings := 0
			opts := &heartbeat.Options{Interval: time.Minute, MaxSyncAge: day, Logger: quiet}
			if where == "handler" {
				opts.Logger = slog.New(handlerFunc(func(slog.Record) { <-release }))
			} else {
				opts.OnResult = func(heartbeat.Result) { <-release }
			}
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { pings++; return nil }), fresh(), opts)
			require.NoError(t, err)
			stop := run(t, m)
			time.Sleep(10 * time.Hour)
			require.Equal(t, 100, pings, where)
			close(release)
			time.Sleep(10 * time.Minute)
			require.GreaterOrEqual(t, pings, 109)
			stop()
		})
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

// A reporter that ends its goroutine leaves the Monitor usable.
func TestH5_GoexitInALook(t *testing.T) {
	t.Parallel()
	n := 0
	m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{"/data/app.db", func() time.Time {
		if n++; n == 1 {
			runtime.Goexit()
		}
		return time.Now()
	}}}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Beat(t.Context())
	}()
	<-done
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
}
