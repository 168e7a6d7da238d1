package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// A handlerFunc is a log handler that does what it likes with a line.
type handlerFunc func(line slog.Record)

func (handlerFunc) Enabled(context.Context, slog.Level) bool        { return true }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h handlerFunc) WithGroup(string) slog.Handler                 { return h }
func (h handlerFunc) Handle(_ context.Context, r slog.Record) error { h(r); return nil }

// L4: a log handler that blocks runs after the ping, and so makes no verdict old and
// brings no two attempts closer.
func TestL4_BlockingHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		ping := heartbeat.PingerFunc(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
			return nil
		})
		m, err := heartbeat.New(heartbeat.MultiPinger(ping), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{
			Interval: time.Minute, Logger: slog.New(handlerFunc(func(slog.Record) { time.Sleep(50 * time.Second) })),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for beat := time.Second; beat < 10*time.Minute; beat += 7 * time.Second {
			time.AfterFunc(beat, func() { m.Beat(ctx) })
		}
		require.NoError(t, m.Run(ctx))
		synctest.Wait()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		require.Zero(t, at[0], "the first is not put off")
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], time.Minute)
		}
	})
}

// L4: a log handler that panics loses its line, and nothing else.
func TestL4_PanickingHandler(t *testing.T) {
	for _, targets := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			var pings atomic.Int32
			var pingers []heartbeat.Pinger
			for range targets {
				pingers = append(pingers, heartbeat.PingerFunc(func(context.Context) error { pings.Add(1); return nil }))
			}
			m, err := heartbeat.New(heartbeat.MultiPinger(pingers...), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{
				Interval: time.Second, Logger: slog.New(handlerFunc(func(slog.Record) { panic("handler") })),
			})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-1)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.EqualValues(t, 10*targets, pings.Load())
		})
	}
}

// L4: an ordinary start writes no WARN. A database that has not synced ten seconds
// later is worth one, and then each beat one.
func TestL4_Start(t *testing.T) {
	for first, want := range map[time.Duration]string{
		5 * time.Second:  "DEBUG 0s, INFO 10s",
		15 * time.Second: "DEBUG 0s, WARN 10s, INFO 20s",
		95 * time.Second: "DEBUG 0s, WARN 10s, DEBUG 20s, DEBUG 30s, DEBUG 40s, DEBUG 50s, WARN 1m0s, DEBUG 1m10s, DEBUG 1m20s, DEBUG 1m30s, INFO 1m40s",
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var got []string
			db := heartbeat.NewSyncTracker("/data/app.db")
			time.AfterFunc(first, func() { db.Record(time.Now()) })
			m, err := heartbeat.New(sent, []heartbeat.SyncReporter{db}, &heartbeat.Options{
				Interval: time.Minute, MaxSyncAge: time.Hour,
				Logger: slog.New(handlerFunc(func(r slog.Record) { got = append(got, fmt.Sprint(r.Level, " ", time.Since(start))) })),
			})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), max(time.Minute, first.Round(time.Minute)+time.Minute)-1)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.Equal(t, want, strings.Join(got[:min(len(got), strings.Count(want, ",")+1)], ", "))
		})
	}
}

// L1: a beat's first failed try is an ERROR, its further ones are DEBUG. A skipped
// beat's further looks are DEBUG, unless what they say has changed.
func TestL1_FurtherTries(t *testing.T) {
	log := &logBuffer{}
	lines := func(d time.Duration, ping heartbeat.PingerFunc, reporters ...heartbeat.SyncReporter) string {
		synctest.Test(t, func(t *testing.T) {
			m, err := heartbeat.New(ping, reporters, &heartbeat.Options{Interval: time.Minute, Logger: log.logger(slog.LevelInfo)})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			require.NoError(t, m.Run(ctx))
		})
		return log.take()
	}
	failed := "level=ERROR msg=\"heartbeat failed\" error=\"dial: heartbeat: not sent\" retry=10s\n"
	require.Equal(t, failed+failed, lines(2*time.Minute-1, func(context.Context) error {
		return fmt.Errorf("dial: %w", heartbeat.ErrNotSent)
	}, alwaysFresh{}))

	var second atomic.Bool
	got := lines(2*time.Minute-1, sent, reporterFunc{"/data/app.db", func() time.Time { panic("a") }}, reporterFunc{"/data/users.db", func() time.Time {
		time.AfterFunc(25*time.Second, func() { second.Store(true) })
		if second.Load() {
			return time.Time{}
		}
		return time.Now()
	}})
	const one = "level=WARN msg=\"heartbeat skipped\" reason=\"sync reporter panicked\" db=/data/app.db\n"
	const both = "level=WARN msg=\"heartbeat skipped\" reason=\"sync reporter panicked\" db=/data/app.db unhealthy=2 databases=2\n"
	got = strings.ReplaceAll(got, "level=ERROR msg=\"sync reporter panicked\" db=/data/app.db panic=a\n", "")
	require.Equal(t, one+both+both, got)
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

// S7: a clock without a monotonic reading that is set back rate-limits no Beat for
// longer than before, whether Run runs or not.
func TestS7_SetBackWithoutRun(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: 24 * time.Hour})
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
	f.clock.Advance(30*time.Second - 5*time.Hour)
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(time.Minute - 1)
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(1)
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
	require.Equal(t, f.clock.Now(), f.Status().LastSentAt)
}

// S7: whatever a clock without a monotonic reading does, a beat comes within the
// interval and a minute, retries included.
func TestS7_SetBackInALongInterval(t *testing.T) {
	const interval = 24 * time.Hour
	for _, step := range []time.Duration{-11 * time.Hour, -30 * time.Second, 11 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			clock := &skewedClock{bare: true, start: time.Now()}
			var at []time.Duration
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
				if at = append(at, time.Since(clock.start)); len(at) == 1 {
					return errLost
				}
				return nil
			}), []heartbeat.SyncReporter{reporterFunc{"/data/app.db", clock.Now}}, &heartbeat.Options{Interval: interval, Clock: clock, Logger: quiet})
			require.NoError(t, err)
			time.AfterFunc(30*time.Second, func() { clock.step(step) })
			ctx, cancel := context.WithTimeout(t.Context(), 3*interval)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.LessOrEqual(t, at[1], 2*time.Minute, "%v", at)
			for i := 2; i < len(at); i++ {
				require.LessOrEqual(t, at[i]-at[i-1], interval+time.Minute, "%v", at)
			}
		})
	}
}

// S7: a clock that jumps by more than a Duration can hold makes nothing spin.
func TestS7_Centuries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, from := range []time.Time{{}, epoch} {
			checks := 0
			clock := &skewedClock{start: time.Now(), bare: true}
			centuries := atomic.Int32{}
			now := func() time.Time { return clock.Now().AddDate(100*int(centuries.Load()), 0, 0) }
			m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{"/data/app.db", now}},
				&heartbeat.Options{Clock: funcClock{now, clock.After}, Logger: quiet, OnResult: func(heartbeat.Result) { checks++ }})
			require.NoError(t, err)
			clock.step(from.Sub(epoch))
			stop := run(t, m)
			time.Sleep(time.Minute)
			centuries.Store(10)
			time.Sleep(10 * time.Minute)
			stop()
			require.Equal(t, 3, checks, "at 0, at 5m, where a new grid begins, and at 10m")
		}
	})
}

// A funcClock is a Clock of two functions.
type funcClock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

func (c funcClock) Now() time.Time                         { return c.now() }
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

// H1: no ping leaves on a verdict that many blocking reporters have made old: what
// they said is judged by the time at the end.
func TestH1_ManyBlockingReporters(t *testing.T) {
	for _, row := range []struct {
		maxAge time.Duration
		want   heartbeat.Outcome
	}{{2 * time.Minute, heartbeat.Sent}, {40 * time.Second, heartbeat.Skipped}} {
		synctest.Test(t, func(t *testing.T) {
			var reporters []heartbeat.SyncReporter
			for i := range 10 {
				reporters = append(reporters, reporterFunc{fmt.Sprint(i), func() time.Time {
					time.Sleep(5 * time.Second)
					return time.Now()
				}})
			}
			m, err := heartbeat.New(sent, reporters, &heartbeat.Options{MaxSyncAge: row.maxAge, Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, row.want, m.Beat(t.Context()).Outcome)
		})
	}
}

// H5: panic(nil) is a panic too where a program allows it.
func TestH5_PanicNil(t *testing.T) {
	t.Setenv("GODEBUG", "panicnil=1")
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { panic(nil) }})
	require.NoError(t, f.Add(reporterFunc{"/data/broken.db", func() time.Time { panic(nil) }}))
	result := f.Beat(t.Context())
	require.Len(t, result.Unhealthy, 2)
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
}

// What a caller does to a Result stays with the caller.
func TestResult_IsTheCallers(t *testing.T) {
	f := newFixture(t, heartbeat.Options{OnResult: func(r heartbeat.Result) {
		for i := range r.Unhealthy {
			r.Unhealthy[i].Path = "callback's"
		}
	}, FailPinger: heartbeat.PingerFunc(func(ctx context.Context) error {
		r, _ := heartbeat.ResultFromContext(ctx)
		r.Unhealthy[0].Path = "pinger's"
		return errors.New("no answer")
	})})
	f.Beat(t.Context())
	f.clock.Advance(time.Hour)
	result := f.Beat(t.Context())
	require.Equal(t, "/data/app.db", result.Unhealthy[0].Path)
	result.Unhealthy[0].Path = "caller's"
	require.Equal(t, "/data/app.db", f.Status().LastResult.Unhealthy[0].Path)
}
