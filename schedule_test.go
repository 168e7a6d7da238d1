package heartbeat_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

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

var (
	histories  = flag.Int("heartbeat.histories", 300, "how many random histories TestSchedule runs")
	seed       = flag.Uint64("heartbeat.seed", 0, "the one history that TestSchedule runs; 0: -heartbeat.histories of them")
	errLost    = errors.New("no answer")
	errRefused = fmt.Errorf("%w: connection refused", heartbeat.ErrNotSent)
)

const day = 24 * time.Hour

// A happening is one thing that goes on in a history, from a time after its
// start to another. The kinds are "database" (it is in the Monitor's set),
// "outage" (that database does not sync; from below zero: it never has), "loss"
// (of a target's pings), "down" (they never leave), "slow" (they take long), and
// "beat" (somebody calls Beat).
type happening struct {
	kind     string
	who      int // a database or a target
	from, to time.Duration
	slow     time.Duration
}

func (h happening) String() string {
	switch h.kind {
	case "beat":
		return fmt.Sprintf("%v: Beat is called", h.from)
	case "slow":
		return fmt.Sprintf("%v to %v: pings of target %d take %v", h.from, h.to, h.who, h.slow)
	}
	return fmt.Sprintf("%v to %v: %s of %d", h.from, h.to, h.kind, h.who)
}

func (h happening) covers(e time.Duration) bool { return h.from <= e && e < h.to }

// A history is a day in the life of a Monitor.
type history struct {
	interval, maxAge time.Duration
	targets          int
	signals          bool // whether there is a FailPinger
	happenings       []happening
}

func (h history) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "interval %v, MaxSyncAge %v, %d targets, signals %v\n", h.interval, h.maxAge, h.targets, h.signals)
	for _, what := range h.happenings {
		fmt.Fprintf(&s, "  %v\n", what)
	}
	return s.String()
}

func newHistory(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 0))
	// Nanoseconds keep two happenings from falling on one moment.
	upTo := func(d time.Duration) time.Duration { return 1 + time.Duration(r.Int64N(int64(d))) }
	h := history{interval: time.Minute + upTo(29*time.Minute), targets: 1 + r.IntN(3), signals: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		h.interval = h.interval.Truncate(time.Minute)
	}
	h.maxAge = h.interval
	if r.IntN(2) == 0 {
		h.maxAge = time.Minute + upTo(2*h.interval)
	}
	databases := r.IntN(5)
	for db := range databases {
		p := happening{kind: "database", who: db, to: 2 * day}
		if r.IntN(2) == 0 {
			p.from = upTo(day)
		}
		if r.IntN(2) == 0 {
			p.to = p.from + upTo(day)
		}
		h.happenings = append(h.happenings, p)
	}
	some := func(kind string, n, who int, longest time.Duration) {
		for range r.IntN(n + 1) {
			from := upTo(day)
			h.happenings = append(h.happenings, happening{kind, r.IntN(max(1, who)), from, from + upTo(longest), upTo(59 * time.Second)})
		}
	}
	some("outage", 2*databases, databases, 3*time.Hour)
	some("loss", 6, h.targets, 2*time.Hour)
	some("down", 6, h.targets, 2*time.Hour)
	some("slow", 6, h.targets, 6*time.Hour)
	some("beat", 30, 1, 1)
	if r.IntN(4) == 0 {
		h.happenings = append(h.happenings, happening{kind: "outage", from: -1, to: upTo(time.Hour)})
	}
	return h
}

// lastSync is when the database last synced as of e; negative: never.
func (h history) lastSync(db int, e time.Duration) time.Duration {
	for i := 0; i < len(h.happenings); i++ {
		if o := h.happenings[i]; o.kind == "outage" && o.who == db && o.from < e && e < o.to {
			e, i = o.from, -1 // an earlier one may reach up to that
		}
	}
	return e
}

// healthy is the model of a check.
func (h history) healthy(e time.Duration) bool {
	any := false
	for _, p := range h.happenings {
		if p.kind != "database" || !p.covers(e) {
			continue
		}
		any = true
		if at := h.lastSync(p.who, e); at < 0 || e-at > h.maxAge {
			return false
		}
	}
	return any
}

// stretches returns the spans of time in which all is healthy.
func (h history) stretches() (spans [][2]time.Duration) {
	marks := []time.Duration{0, day}
	for _, p := range h.happenings {
		marks = append(marks, p.from, p.to, p.from+h.maxAge)
	}
	marks = slices.DeleteFunc(marks, func(e time.Duration) bool { return e < 0 || e > day })
	slices.Sort(marks)
	for i, from := range marks[:len(marks)-1] {
		to := marks[i+1]
		if !h.healthy(from + (to-from)/2) {
			continue
		}
		if n := len(spans); n > 0 && spans[n-1][1] == from {
			spans[n-1][1] = to
		} else {
			spans = append(spans, [2]time.Duration{from, to})
		}
	}
	return spans
}

// A witness records what the Monitor did, in times since the start.
type witness struct {
	mu       sync.Mutex
	attempts [][]time.Duration                 // of each target
	failed   []map[time.Duration]time.Duration // of each target, with the time after which an attempt may be repeated
	healthy  []time.Duration                   // checks that found all healthy
	signals  []time.Duration
	cut      []time.Duration // when a heartbeat in flight made room for a signal
	lines    map[string]int  // that were logged
	want     map[string]int  // that should have been
	problems []string
}

func (w *witness) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func (w *witness) Enabled(context.Context, slog.Level) bool { return true }

func (w *witness) WithAttrs([]slog.Attr) slog.Handler { return w }

func (w *witness) WithGroup(string) slog.Handler { return w }

func (w *witness) Handle(_ context.Context, r slog.Record) error {
	line := r.Message // the levels are TestL1_FurtherTries's
	r.Attrs(func(a slog.Attr) bool {
		if slices.Contains([]string{"url", "error", "reason", "db"}, a.Key) {
			line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	if strings.Contains(line, string(heartbeat.ReasonRateLimited)) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines[fmt.Sprintf("%d %s", r.Time.UnixNano(), line)]++
	return nil
}

func (w *witness) expect(line string, args ...any) {
	w.want[fmt.Sprintf("%d %s", time.Now().UnixNano(), fmt.Sprintf(line, args...))]++
}

type historyDB struct {
	history
	who   int
	start time.Time
}

func (d historyDB) Path() string { return fmt.Sprint("db", d.who) }

func (d historyDB) LastSuccessfulSyncAt() time.Time {
	if at := d.lastSync(d.who, time.Since(d.start)); at >= 0 {
		return d.start.Add(at)
	}
	return time.Time{}
}

// A historyTarget is a Pinger that lives through a history.
type historyTarget struct {
	history
	*witness
	who   int
	start time.Time
}

func (p historyTarget) String() string { return fmt.Sprint("target", p.who) }

func (p historyTarget) Ping(ctx context.Context) error {
	began := time.Since(p.start)
	var wait time.Duration
	var err error
	for _, l := range p.happenings {
		if l.who == p.who && l.covers(began) {
			switch l.kind {
			case "loss":
				err = errLost
			case "down":
				err = errRefused
			case "slow":
				wait = max(wait, l.slow)
			}
		}
	}
	p.mu.Lock()
	p.attempts[p.who] = append(p.attempts[p.who], began)
	if !p.history.healthy(began) {
		p.problem("ping of target %d at %v while a database is unhealthy", p.who, began)
	}
	p.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		now := time.Since(p.start)
		p.failed[p.who][began] = heartbeat.MinInterval
		if now <= day+time.Second { // else it is the end of the history
			// A failure signal takes its place: nothing else cuts a ping.
			p.cut = append(p.cut, now)
		}
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		repeat := heartbeat.MinInterval
		if errors.Is(err, heartbeat.ErrNotSent) {
			repeat = max(10*time.Second, wait)
		}
		p.failed[p.who][began] = repeat
		p.expect("heartbeat failed url=%v error=%v", p, err)
	} else {
		p.expect("heartbeat sent url=%v", p)
	}
	return err
}

// run lives through the history in a bubble, and returns what was wrong.
func (h history) run(t *testing.T) []string {
	w := &witness{attempts: make([][]time.Duration, h.targets), failed: make([]map[time.Duration]time.Duration, h.targets), lines: map[string]int{}, want: map[string]int{}}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var pingers []heartbeat.Pinger
		for who := range h.targets {
			w.failed[who] = map[time.Duration]time.Duration{}
			pingers = append(pingers, historyTarget{h, w, who, start})
		}
		opts := &heartbeat.Options{
			Interval: h.interval, MaxSyncAge: h.maxAge, Logger: slog.New(w),
			OnResult: func(r heartbeat.Result) {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, db := range r.Unhealthy {
					w.expect("heartbeat skipped reason=%v db=%v", db.Reason, db.Path)
				}
				switch {
				case len(r.Unhealthy) > 0:
				case r.Reason == heartbeat.ReasonNoDatabases:
					w.expect("heartbeat skipped reason=%v", r.Reason)
				default:
					w.healthy = append(w.healthy, r.Time.Sub(start))
				}
			},
		}
		if h.signals {
			opts.FailPinger = heartbeat.PingerFunc(func(context.Context) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.signals = append(w.signals, time.Since(start))
				w.expect("heartbeat failure signal sent")
				return nil
			})
		}
		monitor, err := heartbeat.New(heartbeat.MultiPinger(pingers...), nil, opts)
		require.NoError(t, err)
		// Not on a grid point: a ping that ends with ctx may have its line or not.
		ctx, cancel := context.WithDeadline(t.Context(), start.Add(day+time.Second+1))
		defer cancel()

		type step struct {
			at time.Duration
			do func()
		}
		var steps []step
		var beats sync.WaitGroup
		for _, p := range h.happenings {
			switch p.kind {
			case "database":
				db := historyDB{h, p.who, start}
				steps = append(steps, step{p.from, func() { require.NoError(t, monitor.Add(db)) }},
					step{p.to, func() { require.True(t, monitor.Remove(db.Path())) }})
			case "beat":
				steps = append(steps, step{p.from, func() { beats.Go(func() { monitor.Beat(ctx) }) }})
			}
		}
		slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
		running := false
		for _, s := range append(steps, step{day, func() {}}) {
			if s.at > 0 && !running {
				running = true
				beats.Go(func() { require.NoError(t, monitor.Run(ctx)) })
			}
			if s.at > day {
				break
			}
			time.Sleep(time.Until(start.Add(s.at)))
			s.do()
		}
		beats.Wait()
	})

	for who, attempts := range w.attempts {
		h.checkAttempts(w, who, attempts)
	}
	if h.signals {
		h.checkSignals(w)
	}
	for line, n := range w.want {
		if w.lines[line] != n {
			w.problem("logged %d times instead of %d: %s", w.lines[line], n, line)
		}
	}
	for line, n := range w.lines {
		if w.want[line] == 0 {
			w.problem("logged %d times for no reason: %s", n, line)
		}
	}
	return w.problems
}

// checkAttempts looks at when a target was pinged.
func (h history) checkAttempts(w *witness, who int, attempts []time.Duration) {
	for i := 1; i < len(attempts); i++ {
		spacing := heartbeat.MinInterval
		if repeat, ok := w.failed[who][attempts[i-1]]; ok {
			spacing = min(spacing, repeat)
		}
		if gap := attempts[i] - attempts[i-1]; gap < spacing {
			w.problem("attempts on target %d at %v and %v later", who, attempts[i-1], gap)
		}
	}
	// In a healthy stretch, no time of interval + MinInterval is without an
	// attempt on each target, whatever becomes of those attempts. One of Run's that
	// failed is made again as soon as it may be; or a MinInterval later where a Beat
	// was in its way.
	for _, s := range h.stretches() {
		last := s[0]
		for _, at := range append(slices.Clone(attempts), s[1]) {
			if at < s[0] || at > s[1] {
				continue
			}
			limit := h.interval + heartbeat.MinInterval
			if repeat, ok := w.failed[who][last]; ok && h.targets == 1 && !slices.ContainsFunc(h.happenings, func(p happening) bool {
				return p.kind == "beat" && p.from == last
			}) {
				limit = repeat + heartbeat.MinInterval
			}
			if at-last > limit {
				w.problem("no attempt on target %d from %v to %v, though all is healthy from %v to %v", who, last, at, s[0], s[1])
			}
			last = at
		}
	}
}

// checkSignals looks at the failure signals: none while all is healthy, no two
// without a healthy check between them (but a second one a MinInterval later where a
// heartbeat had no answer), and one at the end of each healthy stretch
// that a check has seen and that a database ended by going stale. Run may be
// waiting for a ping then, for a minute.
func (h history) checkSignals(w *witness) {
	for _, at := range w.cut {
		if !slices.Contains(w.signals, at) {
			w.problem("a ping was cut at %v, and no signal went out", at)
		}
	}
	for i, at := range w.signals {
		if h.healthy(at) {
			w.problem("signal at %v though all is healthy", at)
		}
		again := i > 0 && at-w.signals[i-1] >= heartbeat.MinInterval && w.doubtful(w.signals[i-1])
		if i > 0 && !again && !slices.ContainsFunc(w.healthy, func(e time.Duration) bool { return w.signals[i-1] < e && e < at }) {
			w.problem("signals at %v and %v without a healthy check between them", w.signals[i-1], at)
		}
	}
	for _, s := range h.stretches() {
		end := s[1]
		stale := slices.ContainsFunc(h.happenings, func(p happening) bool {
			last := h.lastSync(p.who, end+1)
			return p.kind == "database" && p.covers(end+time.Minute) && last >= 0 && end+1-last > h.maxAge &&
				slices.ContainsFunc(w.healthy, func(e time.Duration) bool { return max(s[0], p.from) < e && e <= end })
		})
		until := end + time.Second + heartbeat.MinInterval
		if stale && until < day && !slices.ContainsFunc(w.signals, func(at time.Duration) bool { return end < at && at <= until }) &&
			!h.healthyWithin(end+1, until) {
			w.problem("no signal after %v", end)
		}
	}
}

// doubtful reports whether a heartbeat that had no answer may reach the service after
// a signal.
func (w *witness) doubtful(signal time.Duration) bool {
	return slices.Contains(w.cut, signal) || slices.ContainsFunc(w.failed, func(failed map[time.Duration]time.Duration) bool {
		for began, repeat := range failed {
			if repeat == heartbeat.MinInterval && began < signal && signal < began+2*heartbeat.MinInterval {
				return true
			}
		}
		return false
	})
}

// healthyWithin reports whether all is healthy at some time from one to another.
func (h history) healthyWithin(from, to time.Duration) bool {
	return slices.ContainsFunc(h.stretches(), func(s [2]time.Duration) bool { return s[0] < to && from < s[1] })
}

// shrink leaves out what the history does not need to go wrong.
func (h history) shrink(t *testing.T) history {
	for i := len(h.happenings) - 1; i >= 0; i-- {
		less := h
		less.happenings = slices.Delete(slices.Clone(h.happenings), i, i+1)
		if len(less.run(t)) > 0 {
			h = less
		}
	}
	return h
}

// raceEnabled reports whether the test was built with -race.
func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestSchedule compares the Monitor with a model of a few lines, over random
// days. One that fails prints a seed, for -heartbeat.seed, and its steps.
//
// Not with -race: Go 1.26's race runtime crashes on long bubbles with many timers
// (golang.org/issue/78156). The other tests have what can race.
func TestSchedule(t *testing.T) {
	if raceEnabled() {
		t.Skip("golang.org/issue/78156")
	}
	first, last := uint64(1), uint64(*histories)
	if *seed != 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last; n++ {
		h := newHistory(n)
		problems := h.run(t)
		if len(problems) > 0 {
			small := h.shrink(t)
			slices.Sort(problems)
			t.Fatalf("go test -run TestSchedule -heartbeat.seed=%d .\n%v%s\nall of it: %v%s", n,
				small, strings.Join(small.run(t), "\n"), h, strings.Join(problems[:min(len(problems), 10)], "\n"))
		}
	}
}
