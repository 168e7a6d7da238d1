package heartbeat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// withMonotonic returns wall with that monotonic reading, which package time
// offers no way to choose. The fields are those of time.Time.
func withMonotonic(wall time.Time, reading time.Duration) time.Time {
	const secondsTo1885 = 59453308800 - 62135596800 // from 1970
	bits := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&wall))
	bits.wall, bits.ext = 1<<63|uint64(wall.Unix()-secondsTo1885)<<30|uint64(wall.Nanosecond()), int64(reading)
	return wall
}

// A skewedClock is a Clock for a bubble, whose wall clock can be set apart from
// the monotonic one. That is what it looks like when someone sets the clock, and
// also when the machine was suspended.
type skewedClock struct {
	start time.Time     // of the bubble
	late  time.Duration // by which timers fire late
	bare  bool          // no monotonic reading
	skew  atomic.Int64
}

func (c *skewedClock) Now() time.Time {
	elapsed := time.Since(c.start)
	wall := epoch.Add(elapsed + time.Duration(c.skew.Load()))
	if c.bare {
		return wall
	}
	return withMonotonic(wall, time.Second+elapsed)
}

func (c *skewedClock) After(d time.Duration) <-chan time.Time { return time.After(d + c.late) }

func (c *skewedClock) step(d time.Duration) { c.skew.Add(int64(d)) }

func TestFault_WithMonotonic(t *testing.T) {
	at := withMonotonic(epoch.Add(time.Hour), 3*time.Second)
	require.True(t, at.Round(0).Equal(epoch.Add(time.Hour)))
	require.Equal(t, 2*time.Second, at.Sub(withMonotonic(epoch, time.Second)))
}

// skewed runs a Monitor in a bubble on clock for d. A database syncs each
// minute, at half past. It returns when pings began, by the bubble's time; steps
// are done at their time.
func skewed(t *testing.T, d, interval time.Duration, clock *skewedClock, steps map[time.Duration]func()) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock.start = time.Now()
		tracker := heartbeat.NewSyncTracker("/data/app.db")
		tracker.Record(clock.Now())
		monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(clock.start))
			return nil
		}), []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Interval: interval, Clock: clock, Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan error)
		go func() { done <- monitor.Run(ctx) }()
		for time.Sleep(30 * time.Second); ctx.Err() == nil; time.Sleep(30 * time.Second) {
			if step := steps[time.Since(clock.start)]; step != nil {
				step()
			}
			if time.Since(clock.start)%time.Minute != 0 {
				tracker.Record(clock.Now())
			}
		}
		require.NoError(t, <-done)
	})
	return at
}

func TestFault_Clocks(t *testing.T) {
	const interval = 5 * time.Minute
	onTime := minutes(0, 5, 10, 15, 20, 25)
	for _, hour := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(fmt.Sprint("the wall clock is set by ", hour), func(t *testing.T) {
			clock := &skewedClock{}
			require.Equal(t, onTime, skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				12 * time.Minute: func() { clock.step(hour) },
			}))
		})
		t.Run(fmt.Sprintf("the wall clock is set by %v just before a beat", hour), func(t *testing.T) {
			// The last sync is an hour away by the wall clock, so there is no beat
			// until the next, half a minute after the grid point, and a look after it.
			clock := &skewedClock{}
			at := skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				10*time.Minute - 30*time.Second: func() { time.AfterFunc(29*time.Second, func() { clock.step(hour) }) },
			})
			require.GreaterOrEqual(t, at[2], 630*time.Second)
			require.LessOrEqual(t, at[2], 640*time.Second)
			at[2] = 10 * time.Minute
			require.Equal(t, onTime, at)
		})
		t.Run(fmt.Sprintf("a clock without a monotonic reading is set by %v", hour), func(t *testing.T) {
			// There is nothing to keep the grid by, but a beat comes within a minute
			// of the wake-up that was due.
			clock := &skewedClock{bare: true}
			at := skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				12 * time.Minute: func() { clock.step(hour) },
			})
			for i := 1; i < len(at); i++ {
				require.LessOrEqual(t, at[i]-at[i-1], interval+time.Minute, "%v", at)
				require.GreaterOrEqual(t, at[i]-at[i-1], time.Minute, "%v", at)
			}
			require.GreaterOrEqual(t, at[len(at)-1], 24*time.Minute, "%v", at)
		})
	}
	t.Run("back an hour, every minute", func(t *testing.T) {
		clock := &skewedClock{bare: true}
		at := skewed(t, 20*time.Minute, time.Minute, clock, map[time.Duration]func(){
			10 * time.Minute: func() { clock.step(-time.Hour) },
		})
		for i := 1; i < len(at); i++ {
			require.LessOrEqual(t, at[i]-at[i-1], 2*time.Minute, "%v", at)
		}
	})
	t.Run("timers are late", func(t *testing.T) {
		const late = 17 * time.Second
		require.Equal(t, []time.Duration{0, 5*time.Minute + late, 10*time.Minute + late, 15*time.Minute + late},
			skewed(t, 19*time.Minute, interval, &skewedClock{late: late}, nil), "the grid does not move")
	})
	t.Run("timers are later than the interval", func(t *testing.T) {
		require.Equal(t, minutes(0, 12, 22), // due at 5 and at 15
			skewed(t, 29*time.Minute, interval, &skewedClock{late: 7 * time.Minute}, nil), "beats are dropped, not replayed")
	})
	t.Run("suspend", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			clock := &skewedClock{start: time.Now()}
			tracker := heartbeat.NewSyncTracker("/data/app.db")
			tracker.Record(clock.Now())
			pinger := heartbeattest.NewPinger(clock)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Clock: clock, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = monitor.Run(ctx) }()
			time.Sleep(time.Minute)
			clock.step(8 * time.Hour)
			status := monitor.Status()
			require.False(t, status.Healthy, "one minute by the monotonic clock is 8 hours in truth")
			require.Equal(t, heartbeat.ReasonStale, status.Databases[0].Reason)
			time.Sleep(4*time.Minute + time.Second)
			require.Len(t, pinger.Times(), 1)
			tracker.Record(clock.Now())
			time.Sleep(time.Minute)
			require.Len(t, pinger.Times(), 2, "tried again a minute later")
		})
	})
	t.Run("a clock that stands still", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			clock := heartbeattest.NewClock(epoch)
			reporter := heartbeattest.NewReporter("/data/app.db")
			reporter.Set(epoch)
			pinger := heartbeattest.NewPinger(clock)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: stuckClock{clock}, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), day)
			defer cancel()
			require.NoError(t, monitor.Run(ctx))
			require.Len(t, pinger.Times(), 1)
		})
	})
	t.Run("a jump over several grid points", func(t *testing.T) {
		f := newFixture(t, heartbeat.Options{Logger: quiet})
		stop := run(t, f.Monitor)
		defer stop()
		for _, jump := range minutes(17, 3, 5) {
			require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
			f.reporter.Set(f.clock.Now().Add(jump))
			f.clock.Advance(jump)
		}
		require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
		var at []time.Duration
		for _, ping := range f.pinger.Times() {
			at = append(at, ping.Sub(epoch))
		}
		require.Equal(t, minutes(0, 17, 20, 25), at)
	})
}

// A stuckClock has timers that fire, and a time that never passes.
type stuckClock struct{ *heartbeattest.Clock }

func (stuckClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func TestFault_Reporters(t *testing.T) {
	now := withMonotonic(epoch, time.Hour)
	const age = heartbeat.DefaultInterval
	swings := 0
	for name, test := range map[string]struct {
		at   func() time.Time
		want heartbeat.Reason
	}{
		"zero":                        {func() time.Time { return time.Time{} }, heartbeat.ReasonNotSynced},
		"zero, elsewhere":             {func() time.Time { return time.Time{}.In(time.FixedZone("", 3600)) }, heartbeat.ReasonNotSynced},
		"zero of Unix":                {func() time.Time { return time.Unix(0, 0) }, heartbeat.ReasonStale},
		"a nanosecond after zero":     {func() time.Time { return time.Time{}.Add(1) }, heartbeat.ReasonStale},
		"before zero":                 {func() time.Time { return time.Time{}.Add(-time.Hour) }, heartbeat.ReasonStale},
		"least":                       {func() time.Time { return time.Unix(math.MinInt64, 0) }, ""}, // see below
		"greatest":                    {func() time.Time { return time.Unix(math.MaxInt64, 999999999) }, ""},
		"ancient":                     {func() time.Time { return time.Unix(-1<<60, 0) }, heartbeat.ReasonStale},
		"far future":                  {func() time.Time { return time.Unix(1<<60, 0) }, heartbeat.ReasonFuture},
		"now":                         {func() time.Time { return now }, ""},
		"without a monotonic reading": {func() time.Time { return now.Round(0) }, ""},
		"elsewhere":                   {func() time.Time { return now.In(time.FixedZone("", -11*3600)) }, ""},
		"oldest":                      {func() time.Time { return now.Add(-age) }, ""},
		"too old":                     {func() time.Time { return now.Add(-age - 1) }, heartbeat.ReasonStale},
		"newest":                      {func() time.Time { return now.Add(age) }, ""},
		"too new":                     {func() time.Time { return now.Add(age + 1) }, heartbeat.ReasonFuture},
		"old by the wall clock":       {func() time.Time { return withMonotonic(epoch.Add(-age-1), time.Hour) }, heartbeat.ReasonStale},
		"old by the monotonic clock":  {func() time.Time { return withMonotonic(epoch, time.Hour-age-1) }, heartbeat.ReasonStale},
		"new by the wall clock":       {func() time.Time { return withMonotonic(epoch.Add(age+1), time.Hour) }, heartbeat.ReasonFuture},
		"new by the monotonic clock":  {func() time.Time { return withMonotonic(epoch, time.Hour+age+1) }, heartbeat.ReasonFuture},
		"back and forth": {func() time.Time {
			swings++
			return now.Add(time.Duration(swings%2*2-1) * time.Hour)
		}, heartbeat.ReasonFuture},
		"panic":     {func() time.Time { panic(errors.New("closed")) }, heartbeat.ReasonPanicked},
		"nil panic": {func() time.Time { panic(nil) }, heartbeat.ReasonPanicked},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "least" || name == "greatest" { // time.Unix wraps around: whatever these are, they are not now
				test.want = heartbeat.ReasonFuture
				if test.at().Before(now) {
					test.want = heartbeat.ReasonStale
				}
			}
			clock := &stillClock{now}
			pinger := heartbeattest.NewPinger(clock)
			good := heartbeat.NewSyncTracker("/data/good.db")
			good.Record(now)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{good, reporterFunc{"/data/app.db", test.at}, (*panicReporter)(nil)},
				&heartbeat.Options{Clock: clock, Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, heartbeat.ReasonPanicked, monitor.Beat(t.Context()).Unhealthy[min(1, len(test.want))].Reason, "a typed nil")
			require.True(t, monitor.Remove("*heartbeat_test.panicReporter"))
			swings = 0
			result := monitor.Beat(t.Context())
			require.Equal(t, test.want, result.Reason)
			swings = 0
			require.Equal(t, test.want, monitor.Status().Databases[1].Reason)
			if test.want != "" {
				require.Empty(t, pinger.Times())
			} else {
				require.Equal(t, heartbeat.Sent, result.Outcome)
			}
		})
	}
}

func TestFault_BlockingReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{reporterFunc{"/data/slow.db", func() time.Time {
			time.Sleep(15 * time.Second) // and asked again, since its answer may be too old
			return time.Now()
		}}}, &heartbeat.Options{Interval: time.Minute, Logger: quiet})
		require.NoError(t, err)
		stop := run(t, monitor)
		time.Sleep(10 * time.Second) // into the first check
		require.NoError(t, monitor.Add(alwaysFresh{}))
		require.True(t, monitor.Remove(alwaysFresh{}.Path()))
		require.Equal(t, 10*time.Second, time.Since(start), "neither waits for the reporter")
		time.Sleep(4 * time.Minute)
		stop()
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], time.Minute, "%v", at)
			require.LessOrEqual(t, at[i]-at[i-1], 2*time.Minute, "%v", at)
		}
		require.GreaterOrEqual(t, len(at), 3, "%v", at)
	})
}

func TestFault_SetChangesDuringCheck(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	calls := 0
	changing := reporterFunc{"/data/changing.db", func() time.Time {
		calls++
		for i := range 10 { // changes what is being read
			path := fmt.Sprint("/data/new", calls, i)
			require.NoError(t, f.Add(reporterFunc{path, func() time.Time { panic("not of this check") }}))
			require.True(t, f.Remove(path))
		}
		require.True(t, f.Remove(f.reporter.Path())) // has been judged already
		require.NoError(t, f.Add(f.reporter))
		return epoch
	}}
	require.NoError(t, f.Add(changing))
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Sent, result.Outcome)
	require.Equal(t, 2, result.Databases, "of when the check began")
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
		for range 3 {
			require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
			f.reporter.Set(f.clock.Now().Add(5 * time.Minute))
			f.clock.Advance(5 * time.Minute)
		}
		require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
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
