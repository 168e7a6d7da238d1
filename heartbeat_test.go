package heartbeat_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// logBuffer keeps log lines, without their time, for comparison.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns the lines since the last take.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

func (l *logBuffer) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

var quiet = slog.New(slog.DiscardHandler)

// namedPinger is a pinger that is a fmt.Stringer.
type namedPinger struct {
	heartbeat.Pinger
	name string
}

func (p namedPinger) String() string { return p.name }

// panicReporter panics with what it holds; a nil one cannot even tell its path.
type panicReporter struct{ path, text string }

func (r *panicReporter) Path() string                    { return r.path }
func (r *panicReporter) LastSuccessfulSyncAt() time.Time { panic(r.text) }

// fixture is a Monitor on a fake clock, with a database that has just synced.
type fixture struct {
	*heartbeat.Monitor
	clock    *heartbeattest.Clock
	pinger   *heartbeattest.Pinger
	reporter *heartbeattest.Reporter
	log      *logBuffer
}

func newFixture(t *testing.T, opts heartbeat.Options) *fixture {
	t.Helper()
	f := &fixture{
		clock:    heartbeattest.NewClock(epoch),
		reporter: heartbeattest.NewReporter("/data/app.db"),
		log:      &logBuffer{},
	}
	f.pinger = heartbeattest.NewPinger(f.clock)
	f.reporter.Set(epoch)
	opts.Clock = f.clock
	if opts.Logger == nil {
		opts.Logger = f.log.logger(slog.LevelDebug)
	}
	var err error
	f.Monitor, err = heartbeat.New(namedPinger{f.pinger, "https://hc-ping.com/abc123"}, []heartbeat.SyncReporter{f.reporter}, &opts)
	require.NoError(t, err)
	return f
}

// alwaysFresh is a database that has always just synced, by the system clock.
type alwaysFresh struct{}

func (alwaysFresh) Path() string                    { return "/data/app.db" }
func (alwaysFresh) LastSuccessfulSyncAt() time.Time { return time.Now() }

// offsets runs a Monitor in a synctest bubble for d and returns when its pinger
// was called, from the start.
func offsets(t *testing.T, d time.Duration, opts heartbeat.Options, ping func(n int) error) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		opts.Logger = quiet
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return ping(len(at))
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &opts)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		require.NoError(t, m.Run(ctx))
	})
	return at
}

func seconds(n ...float64) (at []time.Duration) {
	for _, n := range n {
		at = append(at, time.Duration(n*float64(time.Second)))
	}
	return at
}

func minutes(n ...float64) (at []time.Duration) {
	for _, n := range n {
		at = append(at, time.Duration(n*float64(time.Minute)))
	}
	return at
}

// H1: healthy is synced at least once, and at most MaxSyncAge away. H2: that holds
// for the future too.
func TestH1_H2_Verdict(t *testing.T) {
	const maxAge = 7 * time.Minute
	for _, test := range []struct {
		name     string
		lastSync time.Time
		reason   heartbeat.Reason
	}{
		{"never", time.Time{}, heartbeat.ReasonNotSynced},
		{"now", epoch, ""},
		{"exactly MaxSyncAge ago", epoch.Add(-maxAge), ""},
		{"a nanosecond more", epoch.Add(-maxAge - 1), heartbeat.ReasonStale},
		{"exactly MaxSyncAge ahead", epoch.Add(maxAge), ""},
		{"a nanosecond further", epoch.Add(maxAge + 1), heartbeat.ReasonFuture},
		{"another time zone", epoch.In(time.FixedZone("", -11*3600)), ""},
		{"ancient", time.Unix(math.MinInt64>>20, 0), heartbeat.ReasonStale},
		{"distant", time.Unix(1<<55, 0), heartbeat.ReasonFuture},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, heartbeat.Options{MaxSyncAge: maxAge})
			f.reporter.Set(test.lastSync)
			want := []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: test.lastSync, Reason: test.reason}}
			status := f.Status()
			require.Equal(t, want, status.Databases)
			require.Equal(t, test.reason == "", status.Healthy)
			require.Equal(t, test.reason == "", status.Databases[0].Healthy())
			result := f.Beat(t.Context())
			require.Equal(t, test.reason, result.Reason)
			require.Equal(t, 1, result.Databases)
			if test.reason == "" {
				require.Equal(t, heartbeat.Sent, result.Outcome)
				require.Nil(t, result.Unhealthy)
				require.Len(t, f.pinger.Times(), 1)
			} else {
				require.Equal(t, heartbeat.Skipped, result.Outcome)
				require.Equal(t, want, result.Unhealthy)
				require.Empty(t, f.pinger.Times())
			}
		})
	}
}

// H1: the zero time stays unhealthy even where everything else is fresh.
func TestH1_ZeroIsNeverFresh(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: math.MaxInt64})
	f.reporter.Set(time.Time{})
	require.Equal(t, heartbeat.ReasonNotSynced, f.Beat(t.Context()).Reason)
	f.reporter.Set(time.Unix(-1<<40, 0))
	require.Equal(t, heartbeat.ReasonStale, f.Beat(t.Context()).Reason)
	f.reporter.Set(epoch.AddDate(-200, 0, 0))
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
}

// H3: all must be healthy, and there must be one. H4: only Remove makes one leave.
func TestH3_H4_All(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	second := heartbeattest.NewReporter("/data/users.db")
	require.NoError(t, f.Add(second))
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonNotSynced, result.Reason)
	require.Equal(t, 2, result.Databases)

	require.True(t, f.Remove("/data/users.db"))
	require.False(t, f.Remove("/data/users.db"))
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)

	require.True(t, f.Remove("/data/app.db"))
	f.clock.Advance(time.Hour)
	f.log.take()
	result = f.Beat(t.Context())
	require.Equal(t, heartbeat.Result{Time: f.clock.Now(), Outcome: heartbeat.Skipped, Reason: heartbeat.ReasonNoDatabases}, result)
	require.Equal(t, "level=WARN msg=\"heartbeat skipped\" reason=\"no databases\"\n", f.log.take())
	status := f.Status()
	require.False(t, status.Healthy)
	require.Empty(t, status.Databases)
	require.Len(t, f.pinger.Times(), 1)

	require.NoError(t, f.Add(second), "a removed path is free again")
	second.Set(f.clock.Now())
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
}

// H5: a panic is one database's bad health, told in one line.
func TestH5_Panic(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	require.NoError(t, f.Add(&panicReporter{"/data/broken.db", "index out of range"}))
	require.NoError(t, f.Add((*panicReporter)(nil)))
	late := heartbeattest.NewReporter("/data/late.db")
	require.NoError(t, f.Add(late))
	late.Set(epoch.Add(-time.Hour))

	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	require.Equal(t, 4, result.Databases)
	require.Equal(t, []heartbeat.DatabaseStatus{
		{Path: "/data/broken.db", Reason: heartbeat.ReasonPanicked},
		{Path: "*heartbeat_test.panicReporter", Reason: heartbeat.ReasonPanicked},
		{Path: "/data/late.db", LastSyncAt: epoch.Add(-time.Hour), Reason: heartbeat.ReasonStale},
	}, result.Unhealthy)
	require.Equal(t, `level=ERROR msg="sync reporter panicked" db=/data/broken.db panic="index out of range"
level=WARN msg="heartbeat skipped" reason="sync reporter panicked" db=/data/broken.db unhealthy=3 databases=4
level=ERROR msg="sync reporter panicked" db=*heartbeat_test.panicReporter panic="runtime error: invalid memory address or nil pointer dereference"
level=DEBUG msg="heartbeat skipped" reason="sync reporter panicked" db=*heartbeat_test.panicReporter
level=DEBUG msg="heartbeat skipped" reason="last sync too old" db=/data/late.db last_sync=2025-12-31T23:00:00.000Z age=1h0m0s max=5m0s
`, f.log.take())
	require.Len(t, f.Status().Databases, 4)
	require.Empty(t, f.log.take(), "Status does not log")
}

// S1: the grid is start + k·Interval, whatever a ping takes.
func TestS1_FixedGrid(t *testing.T) {
	at := offsets(t, 24*time.Hour-1, heartbeat.Options{}, func(int) error {
		time.Sleep(7 * time.Second)
		return nil
	})
	require.Len(t, at, 288)
	for k, at := range at {
		require.Equal(t, time.Duration(k)*5*time.Minute, at)
	}
}

// S3: at a one-minute interval every beat goes out.
func TestS3_EveryMinute(t *testing.T) {
	at := offsets(t, 24*time.Hour-1, heartbeat.Options{Interval: time.Minute}, func(int) error {
		time.Sleep(200 * time.Millisecond)
		return nil
	})
	require.Len(t, at, 1440)
	for k := 1; k < len(at); k++ {
		require.GreaterOrEqual(t, at[k]-at[k-1], time.Minute)
		require.LessOrEqual(t, at[k]-at[k-1], 60300*time.Millisecond)
	}
}

// S2: a failed beat is tried again a minute later, until it is out.
func TestS2_RetryFailed(t *testing.T) {
	fail := func(ns ...int) func(int) error {
		return func(n int) error {
			for _, f := range ns {
				if n == f {
					return errors.New("lost")
				}
			}
			return nil
		}
	}
	require.Equal(t, minutes(0, 1, 2, 5, 10, 11), offsets(t, 14*time.Minute, heartbeat.Options{}, fail(1, 2, 5)))
	require.Equal(t, minutes(0, 1, 2.5, 3.5, 5), offsets(t, 5*time.Minute+1, heartbeat.Options{Interval: 150 * time.Second}, fail(1, 3)),
		"no retry is owed once the next grid point is reached")
	require.Equal(t, minutes(0, 1, 2, 3), offsets(t, 3*time.Minute+1, heartbeat.Options{Interval: time.Minute}, fail(1, 2, 3)))
}

// S3: where a retry comes less than a minute before the grid point, the next beat
// waits for that minute, and the grid stays.
func TestS3_RetryBeforeGridPoint(t *testing.T) {
	at := offsets(t, 6*time.Minute-1, heartbeat.Options{Interval: 90 * time.Second}, func(n int) error {
		if n == 1 {
			return errors.New("lost")
		}
		return nil
	})
	require.Equal(t, minutes(0, 1, 2, 3, 4.5), at)
}

// S2: a skipped beat is checked again every ten seconds.
func TestS2_RetrySkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		tracker := heartbeat.NewSyncTracker("/data/app.db")
		time.AfterFunc(25*time.Second, func() { tracker.Record(time.Now()) })
		var checks, pings []time.Duration
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			pings = append(pings, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
			Logger:     quiet,
			MaxSyncAge: time.Hour,
			OnResult:   func(r heartbeat.Result) { checks = append(checks, r.Time.Sub(start)) },
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, minutes(0.5, 5, 10), pings)
		require.Equal(t, seconds(0, 10, 20, 30, 300, 600), checks)
	})
}

// S2: of several targets only the one that missed the beat is pinged again.
func TestS2_RetryOnlyMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := make([][]time.Duration, 3)
		target := func(i int) heartbeat.Pinger {
			return heartbeat.PingerFunc(func(ctx context.Context) error {
				at[i] = append(at[i], time.Since(start))
				if i == 1 && len(at[i]) < 3 {
					<-ctx.Done() // hangs until the monitor's deadline
					return ctx.Err()
				}
				return nil
			})
		}
		m, err := heartbeat.New(heartbeat.MultiPinger(target(0), heartbeat.MultiPinger(target(1), target(2))),
			[]heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, [][]time.Duration{minutes(0, 5), minutes(0, 1, 2, 5), minutes(0, 5)}, at)
	})
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

// S2: what never left is tried again every ten seconds, until the next beat.
func TestS2_RetryNotSent(t *testing.T) {
	notSent := fmt.Errorf("dial: %w", heartbeat.ErrNotSent)
	require.Equal(t, seconds(0, 10, 20, 300, 310), offsets(t, 8*time.Minute, heartbeat.Options{}, func(n int) error {
		if n == 3 || n == 5 {
			return nil
		}
		return notSent
	}))
	require.Len(t, offsets(t, 5*time.Minute-1, heartbeat.Options{Interval: time.Minute}, func(int) error { return notSent }), 30)
}

// S3: the minute counts from when a ping goes out, however long the reporters took.
func TestS3_SlowReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		slow := []time.Duration{30 * time.Second}
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{reporterFunc{"/data/app.db", func() time.Time {
			if len(slow) > 0 {
				time.Sleep(slow[0])
				slow = slow[1:]
			}
			return time.Now()
		}}}, &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
		time.Sleep(30 * time.Second)
		require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
		time.Sleep(30 * time.Second)
		require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
		require.Equal(t, minutes(0.5, 1.5), at)
	})
}

// H1: no ping leaves on a verdict that a blocking reporter has made old.
func TestH1_VerdictIsNotOld(t *testing.T) {
	for _, test := range []struct {
		blocked time.Duration
		outcome heartbeat.Outcome
	}{{10 * time.Minute, heartbeat.Skipped}, {4 * time.Minute, heartbeat.Sent}} {
		synctest.Test(t, func(t *testing.T) {
			db := heartbeat.NewSyncTracker("/data/app.db")
			db.Record(time.Now())
			block := test.blocked
			m, err := heartbeat.New(&heartbeattest.Pinger{}, []heartbeat.SyncReporter{db, reporterFunc{"/data/slow.db", func() time.Time {
				at := time.Now()
				time.Sleep(block)
				block = 0
				return at
			}}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, test.outcome, m.Beat(t.Context()).Outcome)
		})
	}
}

// S2: once a Beat got it out, Run makes no further attempt before the next beat.
func TestS2_BeatGetsItOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		db := heartbeat.NewSyncTracker("/data/app.db")
		var checks []time.Duration
		m, err := heartbeat.New(&heartbeattest.Pinger{}, []heartbeat.SyncReporter{db}, &heartbeat.Options{
			MaxSyncAge: time.Hour, Logger: quiet,
			OnResult: func(r heartbeat.Result) { checks = append(checks, r.Time.Sub(start)) },
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		time.AfterFunc(25*time.Second, func() {
			db.Record(time.Now())
			m.Beat(ctx)
		})
		require.NoError(t, m.Run(ctx))
		require.Equal(t, seconds(0, 10, 20, 25, 300), checks)
		require.Equal(t, heartbeat.Sent, m.Status().LastResult.Outcome)
	})
}

// S3: the spacing holds on a clock that starts at the zero time, and the first
// attempt needs none.
func TestS3_ZeroClock(t *testing.T) {
	clock := heartbeattest.NewClock(time.Time{})
	db := heartbeattest.NewReporter("/data/app.db")
	m, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db}, &heartbeat.Options{Clock: clock, Logger: quiet})
	require.NoError(t, err)
	require.Equal(t, heartbeat.ReasonNotSynced, m.Beat(t.Context()).Reason)
	db.Set(clock.Now().Add(1))
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
}

// S3: spacing counts whoever asked.
func TestS3_BeatBesideRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 16*time.Minute)
		defer cancel()
		time.AfterFunc(30*time.Second, func() {
			require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(ctx).Reason)
		})
		time.AfterFunc(270*time.Second, func() {
			require.Equal(t, heartbeat.Sent, m.Beat(ctx).Outcome)
		})
		require.NoError(t, m.Run(ctx))
		require.Equal(t, minutes(0, 4.5, 5.5, 10, 15), at)
	})
}

// S3: a Run that begins just after a Beat checks at once, and pings as soon as it may.
func TestS3_RunAfterBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var pings, checks []time.Duration
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			pings = append(pings, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet, OnResult: func(r heartbeat.Result) {
			checks = append(checks, r.Time.Sub(start))
		}})
		require.NoError(t, err)
		m.Beat(t.Context())
		time.Sleep(30 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, minutes(0, 1, 5.5), pings)
		require.Equal(t, minutes(0, 0.5, 1, 5.5), checks)
	})
}

// S3: no two attempts are under a minute apart, from a hundred goroutines either.
func TestS3_ManyBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			mu.Lock()
			at = append(at, time.Now())
			mu.Unlock()
			time.Sleep(time.Second)
			return nil
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Interval: time.Minute, Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				for ctx.Err() == nil {
					m.Beat(ctx)
					time.Sleep(time.Duration(5000+37*i) * time.Millisecond)
				}
			})
		}
		require.NoError(t, m.Run(ctx))
		wg.Wait()
		require.InDelta(t, 60, len(at), 5)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i].Sub(at[i-1]), time.Minute)
		}
	})
}

// S4: grid points missed while late are dropped, and the grid stays.
func TestS4_Jump(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	for _, jump := range minutes(5, 23, 2, 5) {
		require.NoError(t, f.clock.BlockUntil(ctx, 1))
		f.clock.Advance(jump)
	}
	require.NoError(t, f.clock.BlockUntil(ctx, 1))
	cancel()
	require.NoError(t, <-done)
	var at []time.Duration
	for _, ping := range f.pinger.Times() {
		at = append(at, ping.Sub(epoch))
	}
	require.Equal(t, minutes(0, 5, 28, 30, 35), at)
}

// strictClock fails the test when Run asks for what S5 rules out.
type strictClock struct {
	t           *testing.T
	mu          sync.Mutex
	outstanding int
}

func (c *strictClock) Now() time.Time { return time.Now() }

func (c *strictClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Positive(c.t, d)
	c.outstanding++
	require.Equal(c.t, 1, c.outstanding)
	out := make(chan time.Time, 1)
	time.AfterFunc(d, func() {
		c.mu.Lock()
		c.outstanding--
		c.mu.Unlock()
		out <- time.Now()
	})
	return out
}

// S5: one After at a time, never for d ≤ 0, and nothing outlives Run: a goroutine
// that did would fail the bubble.
func TestS5_OneWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			n++
			time.Sleep(time.Duration(n) * 7 * time.Second) // up to and past the next grid point
			return nil
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{
			Interval: time.Minute, Clock: &strictClock{t: t}, Logger: quiet,
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour+time.Second, cancel)
		require.NoError(t, m.Run(ctx))
		require.Greater(t, n, 10)
		time.Sleep(time.Hour) // lets the waiter that Run gave up at its end be served
	})
}

// S6: an attempt counts before it succeeds, so a failing endpoint is not hammered.
func TestS6_FailureIsAnAttempt(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	f.pinger.Fail(errors.New("connection refused"))
	require.Equal(t, heartbeat.Failed, f.Beat(t.Context()).Outcome)
	f.clock.Advance(time.Minute - 1)
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(1)
	require.Equal(t, heartbeat.Failed, f.Beat(t.Context()).Outcome)
	require.Zero(t, f.Status().LastSentAt)
}

// L1, L2: the lines are those of the users' documentation.
func TestL1_L2_Lines(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	require.Equal(t, heartbeat.Result{
		Time: epoch, Outcome: heartbeat.Sent, Databases: 1, Targets: []heartbeat.TargetResult{{Name: "https://hc-ping.com"}},
	}, f.Beat(t.Context()))
	require.Equal(t, "level=INFO msg=\"heartbeat sent\" url=https://hc-ping.com/abc123\n", f.log.take())

	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	require.Equal(t, "level=DEBUG msg=\"heartbeat skipped\" reason=\"rate limited\" url=https://hc-ping.com/abc123\n", f.log.take())

	f.clock.Advance(2 * time.Minute)
	cause := errors.New("dial tcp 127.0.0.1:9: connect: connection refused")
	f.pinger.Fail(cause)
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Failed, result.Outcome)
	require.ErrorIs(t, result.Err, cause)
	require.Empty(t, result.Reason)
	require.Equal(t, "level=ERROR msg=\"heartbeat failed\" url=https://hc-ping.com/abc123 error=\"dial tcp 127.0.0.1:9: connect: connection refused\"\n", f.log.take())

	f.reporter.Set(time.Time{})
	f.Beat(t.Context())
	require.Equal(t, "level=WARN msg=\"heartbeat skipped\" reason=\"database not synced\" db=/data/app.db\n", f.log.take())

	f.reporter.Set(epoch.Add(-time.Hour))
	f.Beat(t.Context())
	require.Equal(t, "level=WARN msg=\"heartbeat skipped\" reason=\"last sync too old\" db=/data/app.db last_sync=2025-12-31T23:00:00.000Z age=1h2m0s max=5m0s\n", f.log.take())

	require.NoError(t, f.Add(heartbeat.NewSyncTracker("/data/users.db")))
	f.Beat(t.Context())
	require.Equal(t, `level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2025-12-31T23:00:00.000Z age=1h2m0s max=5m0s unhealthy=2 databases=2
level=DEBUG msg="heartbeat skipped" reason="database not synced" db=/data/users.db
`, f.log.take())
}

// L1: each target has a line; L2: without url where it is no fmt.Stringer.
func TestL1_EachTarget(t *testing.T) {
	log := &logBuffer{}
	bad := errors.New("no route to host")
	m, err := heartbeat.New(heartbeat.MultiPinger(
		heartbeat.PingerFunc(func(context.Context) error { return nil }),
		heartbeat.PingerFunc(func(context.Context) error { return bad }),
		namedPinger{heartbeat.PingerFunc(func(context.Context) error { panic("boom") }), "third"},
	), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: log.logger(slog.LevelInfo)})
	require.NoError(t, err)
	result := m.Beat(t.Context())
	require.Equal(t, heartbeat.Failed, result.Outcome)
	require.ErrorIs(t, result.Err, bad)
	require.EqualError(t, result.Err, "target 2: no route to host\nthird: heartbeat: pinger panicked: boom")
	require.ElementsMatch(t, []string{
		`level=INFO msg="heartbeat sent"`,
		`level=ERROR msg="heartbeat failed" error="no route to host"`,
		`level=ERROR msg="heartbeat failed" url=third error="heartbeat: pinger panicked: boom"`,
	}, strings.Split(strings.TrimSpace(log.take()), "\n"))
	require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
	require.Empty(t, log.take(), "rate limits are for DEBUG")
}

// L3: a ping that ctx cut short is a Result, but not a failure in the log.
func TestL3_CutShort(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	f.pinger.Block()
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan heartbeat.Result)
	go func() { results <- f.Beat(ctx) }()
	require.NoError(t, f.pinger.BlockUntil(t.Context(), 1))

	// Beside a ping in flight nothing waits.
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(time.Hour)
	f.reporter.Set(f.clock.Now())
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason, "still in flight")
	require.True(t, f.Status().Healthy)
	require.NoError(t, f.Add(heartbeat.NewSyncTracker("/data/users.db")))
	require.True(t, f.Remove("/data/users.db"))
	f.log.take()

	cancel()
	result := <-results
	require.Equal(t, heartbeat.Failed, result.Outcome)
	require.ErrorIs(t, result.Err, context.Canceled)
	require.Empty(t, f.log.take())

	result = f.Beat(ctx)
	require.Equal(t, heartbeat.Failed, result.Outcome)
	require.ErrorIs(t, result.Err, context.Canceled)
	require.EqualError(t, result.Err, "heartbeat: not sent: context canceled")
	require.Len(t, f.pinger.Times(), 1, "no attempt is made, nor recorded, after ctx is done")
	require.Empty(t, f.log.take())
}

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

func TestStatus(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	require.Equal(t, heartbeat.Status{
		Healthy:   true,
		Interval:  heartbeat.DefaultInterval,
		Databases: []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch}},
	}, f.Status())
	sent := f.Beat(t.Context())
	f.clock.Advance(time.Hour)
	status := f.Status()
	require.Equal(t, heartbeat.Status{
		Interval:   heartbeat.DefaultInterval,
		LastResult: sent,
		LastSentAt: epoch,
		Databases:  []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch, Reason: heartbeat.ReasonStale}},
	}, status, "it is judged now")

	result := f.Beat(t.Context())
	f.Status().LastResult.Unhealthy[0].Path = "mine"
	require.Equal(t, result, f.Status().LastResult, "a caller's change stays with the caller")
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

func TestAddRemove_KeepsOrder(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	for i := range 100 {
		require.NoError(t, f.Add(heartbeat.NewSyncTracker(fmt.Sprint(i))))
	}
	var want []string
	want = append(want, "/data/app.db")
	for i := range 100 {
		if i%7 == 0 {
			want = append(want, fmt.Sprint(i))
		} else {
			require.True(t, f.Remove(fmt.Sprint(i)))
			require.Len(t, f.Status().Databases, len(want)+99-i, "each Remove is seen by the next check")
		}
	}
	require.ErrorIs(t, f.Add(heartbeat.NewSyncTracker("49")), heartbeat.ErrDuplicatePath)
	require.NoError(t, f.Add(heartbeat.NewSyncTracker("last")))
	want = append(want, "last")
	var paths []string
	for _, db := range f.Status().Databases {
		paths = append(paths, db.Path)
	}
	require.Equal(t, want, paths)
	require.Equal(t, len(want), f.Beat(t.Context()).Databases)
}

// A check that is under way keeps the set it began with.
func TestAddRemove_DuringCheck(t *testing.T) {
	var m *heartbeat.Monitor
	calls := 0
	reporter := reporterFunc{"/data/first.db", func() time.Time {
		calls++
		if calls == 1 {
			require.True(t, m.Remove("/data/second.db"))
			require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/third.db")))
		}
		return time.Now()
	}}
	m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return nil }),
		[]heartbeat.SyncReporter{reporter, heartbeat.NewSyncTracker("/data/second.db")}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/second.db", Reason: heartbeat.ReasonNotSynced}}, m.Beat(t.Context()).Unhealthy)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/third.db", Reason: heartbeat.ReasonNotSynced}}, m.Beat(t.Context()).Unhealthy)
}

type reporterFunc struct {
	path string
	at   func() time.Time
}

func (r reporterFunc) Path() string                    { return r.path }
func (r reporterFunc) LastSuccessfulSyncAt() time.Time { return r.at() }

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

func TestJSON(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	toJSON := func(v any) string {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		return string(text)
	}
	require.JSONEq(t, `{"healthy":true,"interval":300000000000,"databases":[{"path":"/data/app.db","last_sync_at":"2026-01-01T00:00:00Z"}]}`, toJSON(f.Status()))
	f.pinger.Fail(errors.New("connection refused"))
	result := f.Beat(t.Context())
	require.JSONEq(t, `{"time":"2026-01-01T00:00:00Z","outcome":"failed","databases":1,"error":"connection refused",
		"targets":[{"name":"https://hc-ping.com","error":"connection refused"}]}`, toJSON(result))
	f.log.take()
	f.log.logger(slog.LevelInfo).Info("checked", "result", result)
	require.Equal(t, "level=INFO msg=checked result.outcome=failed result.databases=1 result.error=\"connection refused\"\n", f.log.take())

	f.reporter.Set(time.Time{})
	result = f.Beat(t.Context())
	want := `{"time":"2026-01-01T00:00:00Z","outcome":"skipped","reason":"database not synced","databases":1,
		"unhealthy":[{"path":"/data/app.db","reason":"database not synced"}]}`
	require.JSONEq(t, want, toJSON(result))
	require.JSONEq(t, `{"healthy":false,"interval":300000000000,"last_result":`+want+`,"databases":[{"path":"/data/app.db","reason":"database not synced"}]}`, toJSON(f.Status()))
	f.log.take()
	f.log.logger(slog.LevelInfo).Info("checked", "result", result)
	require.Equal(t, "level=INFO msg=checked result.outcome=skipped result.databases=1 result.reason=\"database not synced\" result.unhealthy=1\n", f.log.take())
}

func TestOutcome_String(t *testing.T) {
	require.Equal(t, "sent skipped failed Outcome(0)", fmt.Sprint(heartbeat.Sent, heartbeat.Skipped, heartbeat.Failed, heartbeat.Outcome(0)))
}

func TestMonitor_Format(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.Equal(t, "heartbeat.Monitor(1 databases, 1 targets)", fmt.Sprintf(verb, f.Monitor))
	}
	var none *heartbeat.Monitor
	require.Equal(t, "heartbeat.Monitor(nil)", fmt.Sprint(none))
}

func TestSyncTracker(t *testing.T) {
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	require.Equal(t, "/data/app.db", tracker.Path())
	require.Zero(t, tracker.LastSuccessfulSyncAt())
	tracker.Record(epoch)
	tracker.Record(epoch.Add(-time.Hour))
	require.Equal(t, epoch.Add(-time.Hour), tracker.LastSuccessfulSyncAt(), "the latest call counts")
	tracker.Record(time.Time{})
	require.Zero(t, tracker.LastSuccessfulSyncAt())
}
