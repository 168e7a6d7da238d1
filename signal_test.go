package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
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

// A bubbleRun is a Monitor's Run in a synctest bubble, with trackers for databases.
type bubbleRun struct {
	*heartbeat.Monitor
	start   time.Time
	mu      sync.Mutex // guards what follows
	pings   []time.Duration
	signals []time.Duration
	reasons []string
	checks  []time.Duration
	signal  func(ctx context.Context) error // nil: it succeeds
}

// runInBubble runs a Monitor for d. test is given it before Run begins.
func runInBubble(t *testing.T, d time.Duration, opts heartbeat.Options, test func(r *bubbleRun)) *bubbleRun {
	t.Helper()
	r := &bubbleRun{}
	synctest.Test(t, func(t *testing.T) {
		r.start = time.Now()
		opts.Logger = quiet
		opts.OnResult = func(heartbeat.Result) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.checks = append(r.checks, time.Since(r.start))
		}
		opts.FailPinger = heartbeat.PingerFunc(func(ctx context.Context) error {
			result, ok := heartbeat.ResultFromContext(ctx)
			require.True(t, ok)
			r.mu.Lock()
			r.signals = append(r.signals, time.Since(r.start))
			r.reasons = append(r.reasons, result.String())
			r.mu.Unlock()
			if r.signal != nil {
				return r.signal(ctx)
			}
			return nil
		})
		var err error
		r.Monitor, err = heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			r.pings = append(r.pings, time.Since(r.start))
			return nil
		}), nil, &opts)
		require.NoError(t, err)
		test(r)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		require.NoError(t, r.Run(ctx))
	})
	return r
}

// syncs adds a database that syncs at the given times, and has synced at first.
func (r *bubbleRun) syncs(t *testing.T, path string, at ...time.Duration) *heartbeat.SyncTracker {
	t.Helper()
	db := heartbeat.NewSyncTracker(path)
	require.NoError(t, r.Add(db))
	for _, at := range at {
		if at == 0 {
			db.Record(time.Now())
			continue
		}
		time.AfterFunc(at, func() { db.Record(time.Now()) })
	}
	return db
}

// F1, F2: the signal goes out when the last sync becomes older than MaxSyncAge, and
// says why. The beat goes out within ten seconds of the sync that ends the outage.
func TestF1_F2_AtTheLimit(t *testing.T) {
	r := runInBubble(t, 14*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		r.syncs(t, "/data/app.db", 0, 95*time.Second, 412*time.Second)
		r.syncs(t, "/data/users.db", 0, 200*time.Second, 390*time.Second, 600*time.Second)
	})
	require.Equal(t, []time.Duration{395*time.Second + 1, 712*time.Second + 1}, r.signals)
	require.Equal(t, "last sync too old: /data/app.db, last sync 2000-01-01T00:01:35Z (1 of 2 databases)", r.reasons[0])
	require.Equal(t, []time.Duration{0, 300 * time.Second, 415*time.Second + 1, 600 * time.Second}, r.pings)
	// Where all turned out healthy, Run's look was no check.
	require.Equal(t, []time.Duration{0, 300 * time.Second, 395*time.Second + 1, 405*time.Second + 1, 415*time.Second + 1, 600 * time.Second}, r.checks[:6])
}

// F1: a check that comes within a second of the limit serves as well.
func TestF1_BesideACheck(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{
		598 * time.Second:                   598*time.Second + 1,
		599*time.Second - 2:                 599*time.Second - 1,
		599*time.Second + time.Millisecond:  600 * time.Second,
		600*time.Second - 2*time.Nanosecond: 600 * time.Second,
	} {
		r := runInBubble(t, 11*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
			r.syncs(t, "/data/app.db", 0, limit-heartbeat.DefaultInterval)
		})
		require.Equal(t, []time.Duration{want}, r.signals)
	}
}

// F1: Run looks at most once a second, however short MaxSyncAge is.
func TestF1_OnceASecond(t *testing.T) {
	asked := 0
	r := runInBubble(t, 50*time.Second, heartbeat.Options{MaxSyncAge: time.Millisecond}, func(r *bubbleRun) {
		require.NoError(t, r.Add(reporterFunc{"/data/app.db", func() time.Time {
			asked++
			return time.Now()
		}}))
	})
	require.Empty(t, r.signals)
	require.LessOrEqual(t, asked, 52)
	require.GreaterOrEqual(t, asked, 48)
}

// F3: a signal that failed is tried again a minute later, one that never left after
// ten seconds; and neither after the databases have recovered.
func TestF3_Retry(t *testing.T) {
	for _, row := range []struct {
		err   error
		again time.Duration
	}{{errors.New("no answer"), time.Minute}, {fmt.Errorf("dial: %w", heartbeat.ErrNotSent), 10 * time.Second}} {
		r := runInBubble(t, 10*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
			r.syncs(t, "/data/app.db", 0)
			r.signal = func(context.Context) error {
				if len(r.signals) < 3 {
					return row.err
				}
				return nil
			}
		})
		const first = 5*time.Minute + 1
		require.Equal(t, []time.Duration{first, first + row.again, first + 2*row.again}, r.signals)
	}
	r := runInBubble(t, 20*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		r.syncs(t, "/data/app.db", 0, 330*time.Second, 600*time.Second, 900*time.Second)
		r.signal = func(context.Context) error { return errors.New("no answer") }
	})
	require.Equal(t, []time.Duration{300*time.Second + 1}, r.signals)
}

// F3: Run tries again what a Beat has found, and could not tell.
func TestF3_FoundByBeat(t *testing.T) {
	broken := true
	var db *heartbeat.SyncTracker
	r := runInBubble(t, 4*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		db = r.syncs(t, "/data/app.db", 0)
		time.AfterFunc(90*time.Second, func() {
			db.Record(time.Time{}) // no longer known to have synced: nothing tells Run
			r.Beat(context.Background())
		})
		r.signal = func(context.Context) error {
			defer func() { broken = false }()
			if broken {
				return errors.New("no answer")
			}
			return nil
		}
	})
	require.Equal(t, seconds(90, 150), r.signals)
}

// F3: neither a signal that fails nor one that hangs puts off a beat.
func TestF3_PutsOffNoBeat(t *testing.T) {
	for name, signal := range map[string]func(ctx context.Context) error{
		"fails": func(context.Context) error { return errors.New("no answer") },
		"hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			for back := 62 * time.Second; back < 122*time.Second; back += 997 * time.Millisecond {
				r := runInBubble(t, 125*time.Second, heartbeat.Options{Interval: 61 * time.Second}, func(r *bubbleRun) {
					r.syncs(t, "/data/app.db", 0, back)
					r.signal = signal
				})
				require.GreaterOrEqual(t, len(r.pings), 3, "back at %v: %v, signals at %v", back, r.pings, r.signals)
				require.Equal(t, 61*time.Second, r.pings[1])
				late := r.pings[2] - max(back, 121*time.Second)
				require.LessOrEqual(t, late, 10*time.Second, "back at %v: %v, signals at %v", back, r.pings, r.signals)
				if back > 121*time.Second {
					require.Equal(t, 122*time.Second, r.pings[2])
				}
			}
		})
	}
}

// F4: a database that has never synced does not mute the signal for another.
func TestF4_NeverSynced(t *testing.T) {
	r := runInBubble(t, 20*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		r.syncs(t, "/data/never.db")
		r.syncs(t, "/data/app.db", 0, 100*time.Second)
	})
	require.Equal(t, []time.Duration{400*time.Second + 1}, r.signals)
	require.Empty(t, r.pings)
}

// F4: at most one signal until a check has found all healthy.
func TestF4_Flaps(t *testing.T) {
	r := runInBubble(t, 2*time.Hour, heartbeat.Options{Interval: time.Minute}, func(r *bubbleRun) {
		flapping := r.syncs(t, "/data/app.db", 0)
		r.syncs(t, "/data/slow.db", 0)
		time.AfterFunc(30*time.Second, func() { r.syncs(t, "/data/new.db") }) // makes its first sync for two hours
		for at := 2 * time.Minute; at < 2*time.Hour; at += 4 * time.Minute {
			time.AfterFunc(at, func() { flapping.Record(time.Now()) })
		}
	})
	require.Len(t, r.signals, 1)
	require.Len(t, r.pings, 1)
}

// F4: never at start-up, nor for a database that is added and does not sync, nor for
// one that was removed.
func TestF4_NotForNew(t *testing.T) {
	r := runInBubble(t, time.Hour, heartbeat.Options{}, func(r *bubbleRun) {
		require.NoError(t, r.Add(reporterFunc{"/data/app.db", time.Now}))
		time.AfterFunc(7*time.Minute, func() { r.syncs(t, "/data/new.db") })
		time.AfterFunc(20*time.Minute, func() { require.True(t, r.Remove("/data/new.db")) })
		time.AfterFunc(30*time.Minute, func() { require.True(t, r.Remove("/data/app.db")) })
	})
	require.Empty(t, r.signals)
}

// F5: a signal that is still in flight when the databases recover says nothing of
// the next outage.
func TestF5_InFlight(t *testing.T) {
	r := runInBubble(t, 9*time.Minute, heartbeat.Options{Interval: time.Minute}, func(r *bubbleRun) {
		var down atomic.Bool
		require.NoError(t, r.Add(reporterFunc{"/data/app.db", func() time.Time {
			if down.Load() {
				return time.Time{}
			}
			return time.Now()
		}}))
		time.AfterFunc(65*time.Second, func() {
			down.Store(true)
			r.Beat(context.Background()) // its signal takes 50 s
		})
		time.AfterFunc(70*time.Second, func() {
			down.Store(false)
			r.Beat(context.Background())
		})
		time.AfterFunc(90*time.Second, func() { down.Store(true) })
		r.signal = func(context.Context) error {
			if time.Since(r.start) == 65*time.Second {
				time.Sleep(50 * time.Second)
			}
			return nil
		}
	})
	require.Len(t, r.signals, 2)
	// A MinInterval after the first; by then the second outage is known.
	require.Equal(t, seconds(65, 125), r.signals)
}

// F5: clocks play no part in what is an outage.
func TestF5_ClockSetBack(t *testing.T) {
	signals := 0
	f := newFixture(t, heartbeat.Options{FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil })})
	for outage := 1; outage <= 3; outage++ {
		f.reporter.Set(f.clock.Now())
		f.Beat(t.Context())
		f.clock.Advance(6 * time.Minute)
		require.Equal(t, heartbeat.ReasonStale, f.Beat(t.Context()).Reason)
		require.Equal(t, outage, signals)
		f.clock.Advance(-2 * time.Hour)
		f.clock.Advance(2 * time.Minute)
	}
}

// F4, H4: the databases of a Source count as any.
func TestF4_Source(t *testing.T) {
	app, never := heartbeattest.NewReporter("/data/app.db"), heartbeattest.NewReporter("/data/never.db")
	named := []heartbeat.SyncReporter{app}
	panics := false
	signals := 0
	f := newFixture(t, heartbeat.Options{
		Source: func() []heartbeat.SyncReporter {
			if panics {
				panic("closed")
			}
			return named
		},
		FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil }),
	})
	beat := func(want int, why string) heartbeat.Result {
		t.Helper()
		f.clock.Advance(2 * time.Minute)
		f.reporter.Set(f.clock.Now())
		result := f.Beat(t.Context())
		require.Equal(t, want, signals, why)
		return result
	}
	beat(0, "it has not synced")
	app.Set(f.clock.Now())
	require.Equal(t, heartbeat.Sent, beat(0, "all healthy").Outcome)
	named = append(named, never)
	beat(0, "the new one has never synced")
	f.clock.Advance(6 * time.Minute)
	beat(1, "the old one is stale")
	app.Set(f.clock.Now())
	never.Set(f.clock.Now())
	beat(1, "all healthy")
	named = nil
	beat(1, "both are gone, which is no loss")
	named = []heartbeat.SyncReporter{app}
	app.Set(time.Time{})
	beat(1, "back, and so new")
	app.Set(f.clock.Now())
	beat(1, "healthy")
	panics = true
	require.Equal(t, heartbeat.ReasonPanicked, beat(2, "nobody knows how they are").Reason)
}

// The failure signal is about databases that were healthy, and about no others.
func TestFailureSignal_WhoseOutage(t *testing.T) {
	var signals int
	lost := errors.New("lost")
	err := lost
	f := newFixture(t, heartbeat.Options{FailPinger: heartbeat.PingerFunc(func(context.Context) error {
		signals++
		return err
	})})
	beat := func(want int, why string) {
		t.Helper()
		f.clock.Advance(time.Minute)
		f.Beat(t.Context())
		require.Equal(t, want, signals, why)
	}
	beat(0, "all healthy")
	fresh := heartbeattest.NewReporter("/data/new.db")
	require.NoError(t, f.Add(fresh))
	beat(0, "the new one has not been healthy")
	f.clock.Advance(time.Hour)
	beat(1, "the old one is stale")
	beat(2, "the signal was lost")
	f.reporter.Set(f.clock.Now())
	beat(3, "the old one has recovered, but not all are healthy, and nobody was told")
	f.clock.Advance(time.Hour)
	beat(4, "another outage")
	require.True(t, f.Remove("/data/app.db"))
	beat(5, "the old one is gone, and nobody was told")
	require.True(t, f.Remove("/data/new.db"))
	beat(5, "there are none")
	require.NoError(t, f.Add(f.reporter))
	beat(5, "it was added again, stale, and so has not been healthy yet")
	err = nil
	f.reporter.Set(f.clock.Now())
	beat(5, "all healthy again")
	f.clock.Advance(time.Hour)
	beat(6, "and lost")
	beat(6, "once")
}

// signalTest drives a Monitor by Beat on a fake clock.
type signalTest struct {
	*testing.T
	clock    *heartbeattest.Clock
	a, b     *heartbeattest.Reporter
	signal   *heartbeattest.Pinger
	monitor  *heartbeat.Monitor
	log      *logBuffer
	reported int
}

func newSignalTest(t *testing.T) *signalTest {
	t.Helper()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := &signalTest{
		T: t, clock: clock, log: &logBuffer{}, signal: heartbeattest.NewPinger(clock),
		a: heartbeattest.NewReporter("a.db"), b: heartbeattest.NewReporter("b.db"),
	}
	var err error
	s.monitor, err = heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{s.a}, &heartbeat.Options{
		Clock: clock, Logger: slog.New(s.log), FailPinger: namedPing("fail", s.signal.Ping),
	})
	require.NoError(t, err)
	return s
}

// beat lets the given databases sync, makes a check two minutes later, and returns
// the log lines of it that are about the signal.
func (s *signalTest) beat(healthy bool, synced ...*heartbeattest.Reporter) (lines []string) {
	s.Helper()
	s.clock.Advance(6 * time.Minute)
	for _, r := range synced {
		r.Set(s.clock.Now())
	}
	result := s.monitor.Beat(s.Context())
	require.Equal(s, healthy, result.Outcome == heartbeat.Sent, "%+v", result)
	all := s.log.lines()
	for _, line := range all[s.reported:] {
		if strings.Contains(line, "heartbeat failure signal") {
			lines = append(lines, line)
		}
	}
	s.reported = len(all)
	return lines
}

// Failure signal: once for each outage, never at start-up.
func TestFailureSignal(t *testing.T) {
	t.Parallel()
	const sent = "WARN heartbeat failure signal sent url=fail"
	s := newSignalTest(t)
	require.Empty(t, s.beat(false), "nothing was healthy yet")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false), "once")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false), "a second outage")
	require.Len(t, s.signal.Times(), 2)
}

// Failure signal: a failed one is tried again at the following checks, until it is
// out or the databases have recovered.
func TestFailureSignalIsRetried(t *testing.T) {
	t.Parallel()
	const sent, failed = "WARN heartbeat failure signal sent url=fail", "ERROR heartbeat failure signal failed url=fail error=no route"
	s := newSignalTest(t)
	s.signal.Fail(errors.New("no route"))
	s.beat(true, s.a)
	require.Equal(t, []string{failed}, s.beat(false))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false))

	s.beat(true, s.a)
	s.signal.Fail(errors.New("no route"))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Empty(t, s.beat(true, s.a), "recovered")
	require.Len(t, s.signal.Times(), 4)
}

// Failure signal: a database that was added later and has never synced was never
// healthy, and so raises no alarm of its own.
func TestFailureSignalOfNewDatabase(t *testing.T) {
	t.Parallel()
	s := newSignalTest(t)
	s.beat(true, s.a)
	require.NoError(t, s.monitor.Add(s.b))
	require.Empty(t, s.beat(false, s.a), "b has never synced")
	require.Len(t, s.beat(false), 1, "a was healthy")
	require.Empty(t, s.beat(true, s.a, s.b))
	require.Len(t, s.beat(false, s.a), 1, "and now b was")
	require.True(t, s.monitor.Remove("b.db"))
	require.Empty(t, s.beat(true, s.a))
}

// Failure signal under Run: a failed one goes out again a minute later, and a
// Retry-After is minded.
func TestFailureSignalUnderRun(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want []time.Duration
	}{
		{errors.New("no route"), []time.Duration{5*time.Minute + 1, 6*time.Minute + 1}},
		{&heartbeat.StatusError{Code: 503, RetryAfter: 150 * time.Second}, []time.Duration{5*time.Minute + 1, 5*time.Minute + 1 + 150*time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			fail := heartbeat.PingerFunc(func(context.Context) error {
				if at = append(at, time.Since(start)); len(at) == 1 {
					return row.err
				}
				return nil
			})
			lines := runFor(t, 30*time.Minute, heartbeat.PingerFunc(func(context.Context) error { return nil }), &heartbeat.Options{FailPinger: fail})
			require.Equal(t, row.want, at)
			require.Contains(t, lines, fmt.Sprintf("ERROR heartbeat failure signal failed error=%v retry=%v", row.err, row.want[1]-row.want[0]))
			require.Contains(t, lines, "WARN heartbeat failure signal sent")
		})
	}
}

// F4: a loss is told from two looks of Beats. Each row says what the databases report
// from one look to the next, and how many signals have gone out by then.
func TestF4_TwoLooks(t *testing.T) {
	type look struct {
		after   time.Duration // since the look before
		app     any           // how old the last sync is, nil: never synced; or "panic"
		other   any           // the same of a second database; "absent": not in the set
		signals int
	}
	const old = 72 * time.Hour
	minute := time.Minute
	for name, looks := range map[string][]look{
		"a stamp goes back": {{minute, minute, "absent", 0}, {minute, old, "absent", 1}},
		"a stamp goes back beside one that never synced":   {{minute, minute, nil, 0}, {minute, old, nil, 1}},
		"a stamp that was old before":                      {{minute, old, nil, 0}, {minute, old, nil, 0}},
		"one that never synced gets an old stamp":          {{minute, nil, minute, 0}, {minute, old, minute, 0}},
		"no longer known to have synced":                   {{minute, minute, "absent", 0}, {minute, nil, "absent", 1}},
		"a panic when all were healthy":                    {{minute, minute, minute, 0}, {minute, "panic", minute, 1}},
		"a panic at the very look":                         {{minute, minute, nil, 0}, {minute, minute, "panic", 0}, {minute, 6 * minute, "panic", 1}},
		"a panic hides the loss, and the next look has it": {{minute, 4 * minute, nil, 0}, {2 * minute, "panic", nil, 0}, {minute, 7 * minute, nil, 1}},
		"in the future":                                    {{minute, minute, minute, 0}, {minute, -old, minute, 0}, {minute, -old, minute, 0}},
		"synced and went stale between two looks":          {{minute, nil, nil, 0}, {time.Hour, 6 * minute, nil, 1}},
		"became stale just since the look":                 {{minute, nil, nil, 0}, {minute, 6 * minute, nil, 1}},
		"became stale just before the look":                {{minute, nil, nil, 0}, {minute, 6*minute + 1, nil, 0}},
		"a newcomer is stale":                              {{minute, minute, "absent", 0}, {minute, minute, 6 * minute, 0}, {minute, minute, 7 * minute, 0}},
		"a newcomer goes stale":                            {{minute, minute, "absent", 0}, {minute, minute, 4*minute + 30*time.Second, 0}, {minute, minute, 5*minute + 30*time.Second, 1}},
	} {
		for _, sourced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, sourced %v", name, sourced), func(t *testing.T) {
				signals := 0
				var now look
				var f *fixture
				reporter := func(path string, said func() any) heartbeat.SyncReporter {
					return reporterFunc{path, func() time.Time {
						switch said := said().(type) {
						case time.Duration:
							return f.clock.Now().Add(-said)
						case string:
							panic(said)
						}
						return time.Time{}
					}}
				}
				app, other := reporter("app", func() any { return now.app }), reporter("other", func() any { return now.other })
				opts := heartbeat.Options{FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil })}
				if sourced {
					opts.Source = func() []heartbeat.SyncReporter {
						if now.other == "absent" {
							return []heartbeat.SyncReporter{app}
						}
						return []heartbeat.SyncReporter{app, other}
					}
				}
				f = newFixture(t, opts)
				f.Remove("/data/app.db")
				if !sourced {
					require.NoError(t, f.Add(app))
				}
				added := false
				for n, now2 := range looks {
					now = now2
					f.clock.Advance(now.after)
					if !sourced && !added && now.other != "absent" {
						require.NoError(t, f.Add(other))
						added = true
					}
					f.Beat(t.Context())
					require.Equal(t, now.signals, signals, "look %d", n)
				}
			})
		}
	}
}

// F4: a signal that is owed stays owed, also where something panics at its retry.
func TestF3_PanicAtTheRetry(t *testing.T) {
	var panics atomic.Bool
	r := runInBubble(t, 10*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		r.syncs(t, "/data/app.db", 0)
		require.NoError(t, r.Add(reporterFunc{"/data/users.db", func() time.Time {
			if panics.Load() {
				panic("users")
			}
			return time.Now()
		}}))
		time.AfterFunc(330*time.Second, func() { panics.Store(true) })
		r.signal = func(context.Context) error {
			if len(r.signals) == 1 {
				return errors.New("no answer")
			}
			return nil
		}
	})
	require.Equal(t, seconds(300, 360), truncated(r.signals))
}

func truncated(at []time.Duration) (whole []time.Duration) {
	for _, at := range at {
		whole = append(whole, at.Truncate(time.Millisecond))
	}
	return whole
}

// F4: the first look of a Run may take so long that a last sync becomes too old. There
// is no signal at start-up.
func TestF4_SlowFirstLook(t *testing.T) {
	r := runInBubble(t, 10*time.Minute, heartbeat.Options{}, func(r *bubbleRun) {
		db := r.syncs(t, "/data/app.db")
		db.Record(time.Now().Add(-heartbeat.DefaultInterval + 4*time.Second))
		asked := 0
		require.NoError(t, r.Add(reporterFunc{"/data/slow.db", func() time.Time {
			if asked++; asked == 1 {
				time.Sleep(8 * time.Second)
			}
			return time.Now()
		}}))
	})
	require.Empty(t, r.signals)
	require.Empty(t, r.pings)
}

// F4: the look of a Beat that began before Run is no look of that Run, though it ends
// after the start.
func TestF4_BeatBesideTheStart(t *testing.T) {
	r := runInBubble(t, 20*time.Second, heartbeat.Options{}, func(r *bubbleRun) {
		r.syncs(t, "/data/app.db").Record(time.Now().Add(-heartbeat.DefaultInterval + 8500*time.Millisecond))
		require.NoError(t, r.Add(reporterFunc{"/data/slow.db", func() time.Time {
			time.Sleep(8 * time.Second)
			return time.Now()
		}}))
		go r.Beat(context.Background())
		time.Sleep(time.Second)
	})
	require.Empty(t, r.signals)
	require.Len(t, r.pings, 1, "the Beat's")
}

// F4, H4: a Source that panics is a database that does. One that never synced is not
// lost by that.
func TestF4_SourcePanicsBetween(t *testing.T) {
	signals := 0
	panics := false
	f := newFixture(t, heartbeat.Options{
		FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil }),
		Source: func() []heartbeat.SyncReporter {
			if panics {
				panic("source")
			}
			return []heartbeat.SyncReporter{heartbeat.NewSyncTracker("/data/never.db")}
		},
	})
	for _, panics = range []bool{false, true, false, false} {
		f.clock.Advance(time.Minute)
		f.Beat(t.Context())
	}
	require.Zero(t, signals)
}

// F4, H4: where there was no database, a Source that panics has lost none.
func TestF4_EmptySourcePanics(t *testing.T) {
	signals := 0
	source := func() []heartbeat.SyncReporter { return nil }
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{
		Logger:     quiet,
		FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil }),
		Source:     func() []heartbeat.SyncReporter { return source() },
	})
	require.NoError(t, err)
	m.Beat(t.Context())
	source = func() []heartbeat.SyncReporter { panic("source") }
	m.Beat(t.Context())
	require.Zero(t, signals)
}

// F4: a new Run is no outage, however long ago the last one ended. So a daemon may call
// it for each term of a lease.
func TestF4_Terms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var signals []time.Duration
		db := heartbeat.NewSyncTracker("/data/app.db")
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{db}, &heartbeat.Options{
			Interval: time.Minute, Logger: quiet,
			FailPinger: heartbeat.PingerFunc(func(context.Context) error {
				signals = append(signals, time.Since(start))
				return nil
			}),
		})
		require.NoError(t, err)
		for range 3 { // each term lasts five minutes, with a sync every ten seconds
			ctx, demote := context.WithTimeout(t.Context(), 5*time.Minute)
			time.AfterFunc(3*time.Second, func() {
				for ctx.Err() == nil {
					db.Record(time.Now())
					time.Sleep(10 * time.Second)
				}
			})
			require.NoError(t, m.Run(ctx))
			demote()
			require.Empty(t, signals)
			db.Record(time.Now())
			m.Beat(t.Context()) // between two terms
			time.Sleep(time.Hour)
		}
		ctx, demote := context.WithTimeout(t.Context(), 5*time.Minute)
		defer demote()
		start = time.Now()
		db.Record(start)
		require.NoError(t, m.Run(ctx))
		require.Equal(t, []time.Duration{time.Minute + 1}, signals, "a loss within a term is told")
	})
}

// F1, F3: an outage is signalled at whatever moment it begins, however long the signal
// takes.
func TestF1_EachPhase(t *testing.T) {
	for _, takes := range []time.Duration{1500 * time.Millisecond, 3 * time.Second, 5 * time.Second} {
		for phase := range 60 {
			last := 60*time.Second + time.Duration(phase)*time.Second
			out := 0
			r := runInBubble(t, 10*time.Minute, heartbeat.Options{Interval: time.Minute}, func(r *bubbleRun) {
				r.syncs(t, "/data/app.db", 0, 30*time.Second, 45*time.Second, last)
				r.signal = func(ctx context.Context) error {
					select {
					case <-time.After(takes):
						out++
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			})
			require.GreaterOrEqual(t, out, 1, "the last sync at %v, a signal takes %v", last, takes)
			require.LessOrEqual(t, len(r.signals), 2)
		}
	}
}

// A slowService keeps the words that reach it. A request takes its time to get there,
// and goes on when its client has hung up.
type slowService struct {
	mu   sync.Mutex
	word string
}

func (s *slowService) pinger(word string, takes time.Duration) heartbeat.PingerFunc {
	return func(ctx context.Context) error {
		arrived := make(chan struct{})
		time.AfterFunc(takes, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.word = word
			close(arrived)
		})
		select {
		case <-arrived:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// F5: the last word at the service is the true one within two minutes, also at an
// interval of an hour, and where one of the words takes long.
func TestF5_LastWord(t *testing.T) {
	const quick = 200 * time.Millisecond
	for _, row := range []struct{ interval, up, down time.Duration }{
		{time.Minute, 8 * time.Second, 8 * time.Second}, {time.Hour, 8 * time.Second, quick}, {time.Hour, quick, 8 * time.Second},
		{time.Hour, 40 * time.Second, quick}, {time.Hour, quick, 40 * time.Second}, {5 * time.Minute, 40 * time.Second, quick},
	} {
		for phase := 100 * time.Millisecond; phase < 50*time.Second; phase += 1300 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				s := &slowService{}
				maxAge := max(row.interval, 10*time.Minute)
				m, err := heartbeat.New(s.pinger("up", row.up), nil, &heartbeat.Options{
					Interval: row.interval, MaxSyncAge: maxAge, Logger: quiet, FailPinger: s.pinger("down", row.down),
				})
				require.NoError(t, err)
				// It goes stale when the second beat may be in flight, and is back when the
				// signal may be.
				db := heartbeat.NewSyncTracker("/data/app.db")
				require.NoError(t, m.Add(db))
				db.Record(time.Now().Add(row.interval + phase - maxAge))
				stop := run(t, m)
				defer stop()
				wordIs := func(want string) {
					t.Helper()
					time.Sleep(2*time.Minute + max(row.up, row.down))
					s.mu.Lock()
					defer s.mu.Unlock()
					require.Equal(t, want, s.word, "phase %v, %+v", phase, row)
				}
				time.Sleep(row.interval + phase + 1)
				wordIs("down")
				db.Record(time.Now())
				wordIs("up")
				db.Record(time.Now().Add(-maxAge - 1))
				go m.Beat(t.Context()) // finds the loss; its signal is in flight when that ends
				time.Sleep(phase)
				db.Record(time.Now())
				m.Beat(t.Context())
				wordIs("up")
			})
		}
	}
}

// F5: a request whose client has given up may reach the service later, after a word of
// the other kind. That one is said once more.
func TestF5_LastWordAfterATimeout(t *testing.T) {
	timeouts := []error{
		context.DeadlineExceeded,
		os.ErrDeadlineExceeded, // of a connection's own deadline
		&net.OpError{Op: "read", Net: "tcp", Err: syscall.ETIMEDOUT},
	}
	for phase := time.Second; phase < 20*time.Second; phase += time.Second {
		synctest.Test(t, func(t *testing.T) {
			s := &slowService{}
			atOnce, slow := s.pinger("up", 200*time.Millisecond), s.pinger("up", 14*time.Second)
			pings := 0
			up := heartbeat.PingerFunc(func(ctx context.Context) error {
				if pings++; pings != 2 {
					return atOnce(ctx)
				}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				if slow(ctx) != nil {
					return timeouts[int(phase/time.Second)%len(timeouts)]
				}
				return nil
			})
			const maxAge = 2 * time.Hour
			db := heartbeat.NewSyncTracker("/data/app.db")
			db.Record(time.Now().Add(time.Hour + phase - maxAge))
			m, err := heartbeat.New(up, []heartbeat.SyncReporter{db}, &heartbeat.Options{
				Interval: time.Hour, MaxSyncAge: maxAge, Logger: quiet, FailPinger: s.pinger("down", 200*time.Millisecond),
			})
			require.NoError(t, err)
			defer run(t, m)()
			time.Sleep(time.Hour + phase + 2*time.Minute)
			s.mu.Lock()
			defer s.mu.Unlock()
			require.Equal(t, "down", s.word, "stale %v after the beat began", phase)
		})
	}
}

// F5, H1: while a look waits for signals that it has cut, a last sync may run out. No
// heartbeat goes out then.
func TestF5_StaleMeanwhile(t *testing.T) {
	for left, want := range map[time.Duration]int{1100 * time.Millisecond: 1, time.Second: 1, time.Second - 1: 0} {
		synctest.Test(t, func(t *testing.T) {
			pings := 0
			db := heartbeat.NewSyncTracker("/data/app.db")
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { pings++; return nil }),
				[]heartbeat.SyncReporter{db}, &heartbeat.Options{
					Logger: quiet,
					FailPinger: heartbeat.PingerFunc(func(context.Context) error {
						time.Sleep(30 * time.Second) // it ignores its ctx
						return nil
					}),
				})
			require.NoError(t, err)
			db.Record(time.Now())
			m.Beat(t.Context())
			time.Sleep(heartbeat.DefaultInterval + 1)
			go m.Beat(t.Context()) // finds the loss
			time.Sleep(time.Second)
			pings = 0
			db.Record(time.Now().Add(left - heartbeat.DefaultInterval))
			m.Beat(t.Context())
			require.Equal(t, want, pings, "stale %v after the look", left)
			time.Sleep(time.Minute) // until the signal is over
		})
	}
}

// F5: a ping that hangs, whatever its ctx, makes the word of the other kind be said
// again for as long as its request may be under way, and when it ends; not all the time.
func TestF5_Hangs(t *testing.T) {
	for _, signalHangs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var pings, signals []time.Duration
			note := func(at *[]time.Duration, hangs int) heartbeat.Pinger {
				return heartbeat.PingerFunc(func(context.Context) error {
					if *at = append(*at, time.Since(start).Truncate(time.Millisecond)); len(*at) == hangs {
						time.Sleep(30 * time.Minute)
					}
					return nil
				})
			}
			beat, signal := note(&pings, 2), note(&signals, 0)
			if signalHangs {
				beat, signal = note(&pings, 0), note(&signals, 1)
			}
			m, err := heartbeat.New(beat, nil, &heartbeat.Options{
				Interval: time.Hour, MaxSyncAge: time.Hour + 2*time.Second, Logger: quiet, FailPinger: signal,
			})
			require.NoError(t, err)
			db := heartbeat.NewSyncTracker("/data/app.db")
			require.NoError(t, m.Add(db))
			db.Record(start)
			if signalHangs {
				time.AfterFunc(time.Hour+3*time.Second, func() { db.Record(time.Now()) })
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Minute)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			if signalHangs {
				require.Equal(t, seconds(3602), signals)
				require.Equal(t, seconds(0, 3600, 3661, 3721, 3781, 5402), pings)
				return
			}
			require.Equal(t, seconds(0, 3600), pings)
			require.Equal(t, seconds(3603, 3663, 3723, 5400), signals)
		})
	}
}

// F1: a FailPinger may have more targets than the pinger.
func TestF1_MoreSignalsThanBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := &heartbeattest.Pinger{}
		m, err := heartbeat.New(sent, fresh(), &heartbeat.Options{Logger: quiet, FailPinger: heartbeat.MultiPinger(signals, signals)})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(6 * time.Minute) // the database never syncs again
		stop()
		require.Len(t, signals.Times(), 2)
	})
}

// F1, F4: with the largest MaxSyncAge, a sync that a Duration cannot reach is lost, and Run
// does not look for it every second.
func TestF1_LargestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, looks, signals := heartbeat.NewSyncTracker("/data/app.db"), 0, 0
		db.Record(time.Now())
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{db.Path(), func() time.Time {
			looks++
			return db.LastSuccessfulSyncAt()
		}}}, &heartbeat.Options{
			MaxSyncAge: math.MaxInt64, Logger: quiet,
			FailPinger: heartbeat.PingerFunc(func(context.Context) error { signals++; return nil }),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(7*time.Minute, func() { db.Record(time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC)) })
		require.NoError(t, m.Run(ctx))
		require.Less(t, looks, 400)
		require.Equal(t, 1, signals) // main: 0, and 3003 looks in the hour; aee0bac: 1, and 302
	})
}
