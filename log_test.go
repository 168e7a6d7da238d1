package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

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

// A handlerFunc is a log handler that does what it likes with a line.
type handlerFunc func(line slog.Record)

func (handlerFunc) Enabled(context.Context, slog.Level) bool { return true }

func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h handlerFunc) WithGroup(string) slog.Handler { return h }

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

// L4, S5: one that ends its goroutine, while a failure signal is under way, leaves
// nothing behind.
func TestL4_GoexitInAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := 0
		m, err := heartbeat.New(sent, fresh(), &heartbeat.Options{
			Logger:     slog.New(handlerFunc(func(slog.Record) { runtime.Goexit() })),
			FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil }),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, 1, signals)
	})
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
		log := &logBuffer{}
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
		log := &logBuffer{}
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
		log := &logBuffer{}
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
			log := &logBuffer{}
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

// L4, S5: where the line about a slow look hangs, the checks of other slow looks go on,
// and Run waits for it, also where the look was no check.
func TestL4_SlowLookHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hanging, takes atomic.Int64
		takes.Store(11)
		opts := &heartbeat.Options{MaxSyncAge: time.Minute, FailPinger: namedPing("fail", sent), Logger: slog.New(handlerFunc(func(r slog.Record) {
			if r.Message == "sync reporter has not answered" {
				hanging.Add(1)
				<-release
				hanging.Add(-1)
			}
		}))}
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{"/data/app.db", func() time.Time {
			time.Sleep(time.Duration(takes.Load()) * time.Second)
			return time.Now()
		}}}, opts)
		require.NoError(t, err)
		go m.Beat(t.Context())
		time.Sleep(time.Minute)
		takes.Store(9)
		require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
		stop := run(t, m)
		time.Sleep(30 * time.Second)
		takes.Store(11)
		time.Sleep(2 * time.Minute) // it only asks whether the database became stale
		require.GreaterOrEqual(t, hanging.Load(), int64(2))
		time.AfterFunc(time.Hour, func() { close(release) })
		stop()
		require.Zero(t, hanging.Load())
	})
}

// L1: a pinger that has not come back after its timeout is one WARN that names it.
func TestL1_PingerDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		release := make(chan struct{})
		m, err := heartbeat.New(namedPing("chat", func(context.Context) error { <-release; return nil }), fresh(),
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
			var pings atomic.Int32
			opts := &heartbeat.Options{Interval: time.Minute, MaxSyncAge: day, Logger: quiet}
			if where == "handler" {
				opts.Logger = slog.New(handlerFunc(func(slog.Record) { <-release }))
			} else {
				opts.OnResult = func(heartbeat.Result) { <-release }
			}
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { pings.Add(1); return nil }), fresh(), opts)
			require.NoError(t, err)
			stop := run(t, m)
			time.Sleep(10 * time.Hour)
			require.EqualValues(t, 100, pings.Load(), where)
			close(release)
			time.Sleep(10 * time.Minute)
			require.GreaterOrEqual(t, pings.Load(), int32(109))
			stop()
		})
	}
}

// A lineKind is what the log table of DESIGN.md says of a line.
type lineKind struct{ message, level string }

// logTable reads that table: for each message the levels, and all keys.
func logTable(t *testing.T) (levels map[lineKind]bool, keys map[string][]string) {
	design, err := os.ReadFile(".github/DESIGN.md")
	require.NoError(t, err)
	levels, keys = map[lineKind]bool{}, map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z ]+)` \\| ([^|]+) \\| ((?:`[a-z_]+` ?)+)\\|$").FindAllStringSubmatch(string(design), -1) {
		for _, level := range regexp.MustCompile("[A-Z]{4,}").FindAllString(row[2], -1) {
			levels[lineKind{row[1], level}] = true
		}
		keys[row[1]] = append(keys[row[1]], regexp.MustCompile("[a-z_]+").FindAllString(row[3], -1)...)
	}
	require.Greater(t, len(keys), 8)
	return levels, keys
}

// L1, L2: the table in DESIGN.md is what the library writes: each line stands there,
// and each message, level and key that stands there is written.
func TestLogTable(t *testing.T) {
	levels, keys := logTable(t)
	written, used := map[lineKind]bool{}, map[string]map[string]bool{}
	var mu sync.Mutex
	logger := slog.New(handlerFunc(func(r slog.Record) {
		mu.Lock()
		defer mu.Unlock()
		kind := lineKind{r.Message, r.Level.String()}
		written[kind] = true
		if used[r.Message] == nil {
			used[r.Message] = map[string]bool{}
		}
		if !levels[kind] {
			t.Errorf("%v is not in the table", kind)
		}
		r.Attrs(func(a slog.Attr) bool {
			used[r.Message][a.Key] = true
			if !slices.Contains(keys[r.Message], a.Key) {
				t.Errorf("%s: the key %s is not in the table", r.Message, a.Key)
			}
			return true
		})
	}))
	synctest.Test(t, func(t *testing.T) {
		errs := []error{nil, &heartbeat.StatusError{Code: 404}, heartbeat.ErrNotSent}
		beats, signals := 0, 0
		fail := func(n *int) heartbeat.PingerFunc {
			return func(context.Context) error {
				*n++
				return errs[min(*n-1, len(errs)-1)]
			}
		}
		db, other := heartbeat.NewSyncTracker("/data/app.db"), heartbeat.NewSyncTracker("/data/other.db")
		db.Record(time.Now())
		other.Record(time.Now())
		m, err := heartbeat.New(heartbeat.MultiPinger(
			namedPing("one", fail(&beats)),
			namedPing("hangs", func(context.Context) error { time.Sleep(2 * time.Minute); return nil }),
		), []heartbeat.SyncReporter{db, other}, &heartbeat.Options{
			Interval: time.Second, MaxSyncAge: 10 * time.Minute, Logger: logger,
			FailPinger: namedPing("fail", fail(&signals)),
			OnResult:   func(heartbeat.Result) { panic("callback") },
		})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(9 * time.Minute)
		m.Beat(t.Context())
		time.Sleep(3 * time.Minute) // the signal is out
		for range 3 {               // and fails, for the second outage
			db.Record(time.Now())
			other.Record(time.Now())
			time.Sleep(13 * time.Minute)
		}
		require.NoError(t, m.Add(reporterFunc{"/data/broken.db", func() time.Time { panic("broken") }}))
		time.Sleep(time.Minute)
		require.True(t, m.Remove("/data/broken.db"))
		hang := true
		require.NoError(t, m.Add(reporterFunc{"/data/slow.db", func() time.Time {
			if hang {
				time.Sleep(11 * time.Second)
				hang = false
			}
			return time.Now()
		}}))
		time.Sleep(time.Minute)
		stop()
	})
	for kind := range levels {
		require.True(t, written[kind], "%v is in the table, and is not written", kind)
	}
	for message, keys := range keys {
		for _, key := range keys {
			require.True(t, used[message][key], "%s: the key %s is in the table, and is not written", message, key)
		}
	}
}

// L4, F1: a look that only asks whether a database is stale, and is forgotten, makes no
// later line a new one.
func TestL4_PeekBetweenLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		start := time.Now()
		lagging := reporterFunc{"/data/lagging.db", func() time.Time {
			if s := time.Since(start); s > 4*time.Second && s < 8*time.Second {
				return time.Now() // another replica has answered
			}
			return start.Add(-time.Hour)
		}}
		other := reporterFunc{"/data/other.db", func() time.Time { // syncs at 0s and 5s and then always
			if s := time.Since(start); s > 5*time.Second {
				return time.Now()
			}
			return start.Add(-5*time.Minute + 5*time.Second)
		}}
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{lagging, other}, &heartbeat.Options{
			Logger: log.logger(slog.LevelWarn), FailPinger: heartbeat.PingerFunc(func(context.Context) error { return nil }),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, 1, strings.Count(strings.Join(log.lines(), "\n"), "WARN heartbeat skipped"))
	})
}

// L4: the last look of a Run, whose ctx ends during it, says nothing new.
func TestL4_EndOfRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		db := reporterFunc{"/data/app.db", func() time.Time {
			if time.Since(start) > time.Minute {
				cancel()
			}
			return start.Add(-time.Hour)
		}}
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{db}, &heartbeat.Options{Logger: log.logger(slog.LevelWarn)})
		require.NoError(t, err)
		require.NoError(t, m.Run(ctx))
		require.Greater(t, time.Since(start), time.Minute)
		require.Len(t, log.lines(), 1)
	})
}

// L1, H5: two databases of Source may have one path. Each panic is an ERROR.
func TestL1_PanicsOfOnePath(t *testing.T) {
	log := &logBuffer{}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{
		Logger: log.logger(slog.LevelDebug),
		Source: func() []heartbeat.SyncReporter {
			return []heartbeat.SyncReporter{&panicReporter{"/data/app.db", "first"}, &panicReporter{"/data/app.db", "second"}}
		},
	})
	require.NoError(t, err)
	m.Beat(t.Context())
	var errs []string
	for _, l := range log.lines() {
		if strings.HasPrefix(l, "ERROR") {
			errs = append(errs, l)
		}
	}
	require.Equal(t, []string{"ERROR sync reporter panicked db=/data/app.db panic=first", "ERROR sync reporter panicked db=/data/app.db panic=second"}, errs)
}

// L1: the failure of a Beat that began before a Run is an ERROR, though the Run has begun
// when it ends.
func TestL1_BeatBetweenRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		hang := time.Duration(0)
		n := 0
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			n++
			if n >= 3 {
				return nil
			}
			time.Sleep(hang)
			return fmt.Errorf("ping %d", n)
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: log.logger(slog.LevelDebug)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		require.NoError(t, m.Run(ctx)) // the first term
		cancel()
		time.Sleep(time.Minute)
		hang = 10 * time.Second
		go m.Beat(t.Context())
		time.Sleep(time.Second)
		ctx, cancel = context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx)) // the second term
		require.Contains(t, strings.Join(log.lines(), "\n"), "ERROR heartbeat failed error=ping 2")
	})
}

// L1: the line about a slow look that ends at that moment names a database of that look.
func TestL1_SlowLookBesideTheNext(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			log := &logBuffer{}
			slow := []heartbeat.SyncReporter{reporterFunc{"/slow", func() time.Time {
				time.Sleep(10 * time.Second)
				return time.Now()
			}}}
			var all []heartbeat.SyncReporter
			for i := range 20 {
				all = append(all, reporterFunc{fmt.Sprint("/fast/", i), func() time.Time { runtime.Gosched(); return time.Now() }})
			}
			n := 0
			m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: log.logger(slog.LevelWarn), Source: func() []heartbeat.SyncReporter {
				if n++; n == 1 { // looks are made one at a time
					return slow
				}
				return all
			}})
			require.NoError(t, err)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { m.Beat(context.Background()) })
			}
			wg.Wait()
			for _, line := range log.lines() {
				require.Contains(t, line, "db=/slow")
			}
		})
	}
}

// L1: only the targets that are owed a beat and may not be pinged have a line.
func TestL1_OneRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := &logBuffer{}
		m, err := heartbeat.New(heartbeat.MultiPinger(
			namedPing("limited", func(context.Context) error {
				return &heartbeat.StatusError{Code: 503, RetryAfter: 10 * time.Minute}
			}),
			namedPing("other", func(context.Context) error { return nil }),
		), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Interval: time.Minute, Logger: logs.logger(slog.LevelDebug)})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Second)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		limited := 0
		for _, line := range logs.lines() {
			if strings.Contains(line, "rate limited") {
				require.Contains(t, line, "url=limited")
				limited++
			}
		}
		require.Equal(t, 5, limited)
	})
}

// L1: a target that is owed a beat and may not be pinged has a DEBUG line, also of Run's.
func TestL1_RunRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, limited := &logBuffer{}, 0
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			return &heartbeat.StatusError{Code: 503, RetryAfter: 10 * time.Minute}
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{
			Interval: time.Minute, Logger: logs.logger(slog.LevelDebug),
			OnResult: func(r heartbeat.Result) {
				if r.Reason == heartbeat.ReasonRateLimited {
					limited++
				}
			}})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Second)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.NotZero(t, limited)
		require.Equal(t, limited, strings.Count(strings.Join(logs.lines(), "\n"), "rate limited")) // 5; main: 0
	})
}
