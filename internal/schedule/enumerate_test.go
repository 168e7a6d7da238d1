package schedule

import (
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

var depth = flag.Int("schedule.depth", 5, "how many steps the histories of TestEveryHistory have")

const (
	spacing    = time.Minute
	interval   = 90 * time.Second // no multiple of the spacing: retries and grid points meet at odd times
	fresh      = 25 * time.Second
	retryAfter = 100 * time.Second
	setBack    = 2 * time.Hour
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A flight is an attempt that is not settled yet.
type flight struct {
	attempt Attempt
	at      time.Duration
	last    bool // none of the other kind could still arrive when it was reserved, and none has ended since
	outages int  // how many had begun
	number  int  // in the order of reservations
}

// A world lives through a history, and remembers what the rules are about. Its
// times are true ones, since the start: the clock that the schedule is told may
// have been set back.
type world struct {
	s       *Schedule
	now     time.Duration
	back    time.Duration
	healthy bool
	before  *bool // what the look before found; nil: there is none
	flights []flight

	attempts [2]time.Duration // the latest on each target; -1: none
	free     [2]time.Duration // the earliest next one
	paid     [2]time.Duration // the latest that pays for good, when it began; -1: none
	doubt    [2]time.Duration // of each kind: until then an attempt of it that had no answer may still arrive
	signalAt time.Duration    // -1: none
	owed     bool             // a database was lost, and nobody has been told for good
	told     bool             // somebody has been told since all were healthy
	outageAt time.Duration    // when an outage began last; -1: never
	outages  int              // how many have begun
	number   int              // of attempts
	since    time.Duration    // since when all has been healthy, and Run on time
	jumped   bool             // a jump was seen, and no look since
	steps    []string
	problem  string
}

func newWorld(targets int, system bool) *world {
	w := &world{s: New(Settings{
		Interval: interval, Spacing: spacing, MaxSyncAge: interval, Beats: targets, Signals: 1, SystemClock: system,
	}), healthy: true, signalAt: -1, outageAt: -1}
	for i := range w.attempts {
		w.attempts[i], w.paid[i], w.doubt[i] = -1, -1, -1
	}
	w.s.Start(w.clock())
	return w
}

func (w *world) clock() time.Time { return start.Add(w.now - w.back) }

func (w *world) clone() *world {
	c, s := *w, *w.s
	s.beats.targets, s.signals.targets, s.jumps = slices.Clone(s.beats.targets), slices.Clone(s.signals.targets), slices.Clone(s.jumps)
	c.s = &s
	c.flights, c.steps = slices.Clone(w.flights), slices.Clone(w.steps)
	return &c
}

func (w *world) fail(format string, args ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, args...)
	}
}

func (w *world) inFlight(signal bool, target int) bool {
	return slices.ContainsFunc(w.flights, func(f flight) bool { return f.attempt.Signal == signal && f.attempt.Target == target })
}

// look makes a look for somebody and reserves the attempts. Where attempts of the
// other kind have to be cut, they land with a, unless a hangs.
func (w *world) look(action Action, a act) {
	v := Verdict{Healthy: w.healthy, Lost: !w.healthy && w.before != nil && *w.before, Fresh: fresh}
	found := w.healthy
	w.before = &found
	if v.Lost && !w.told && !w.owed {
		w.outageAt, w.owed = w.now, true
		w.outages++
	}
	if w.healthy {
		w.owed, w.told = false, false
	}
	w.jumped = false
	plan := w.s.Decide(w.clock(), v, action)
	if plan.Cut {
		if len(plan.Attempts) > 0 {
			w.fail("F5: attempts are reserved, and others are to be cut before")
		}
		for _, f := range slices.Clone(w.flights) {
			if f.attempt.Signal != plan.Signal && !a.hangs {
				w.land(f, Outcome{Cut: true, NotSent: a.first.NotSent})
			}
		}
		w.s.Reserve(w.clock(), &plan)
	}
	for _, attempt := range plan.Attempts {
		w.reserved(attempt, action)
	}
	for _, attempt := range plan.Attempts {
		if !a.hangs {
			i := slices.IndexFunc(w.flights, func(f flight) bool { return f.attempt == attempt })
			w.land(w.flights[i], a.of(attempt))
		}
	}
}

// reserved checks an attempt that was just reserved.
func (w *world) reserved(a Attempt, action Action) {
	other := 1
	if a.Signal {
		other = 0
	}
	if w.inFlight(a.Signal, a.Target) {
		w.fail("S3: target %d is pinged twice at once", a.Target)
	}
	alone := w.now >= w.doubt[other] && !slices.ContainsFunc(w.flights, func(f flight) bool {
		return f.attempt.Signal != a.Signal && w.now < f.at+2*spacing
	})
	if a.Signal {
		if w.healthy || !w.owed {
			w.fail("F4: a signal, though nothing is owed")
		}
		if w.signalAt >= 0 && w.now-w.signalAt < RetryPause {
			w.fail("S3: two signals %v apart", w.now-w.signalAt)
		}
		w.signalAt = w.now
	} else {
		if !w.healthy || action == Peek {
			w.fail("H3: a beat on a verdict that allows none")
		}
		if w.now < w.free[a.Target] {
			w.fail("S3: target %d is pinged %v after the attempt before", a.Target, w.now-w.attempts[a.Target])
		}
		w.attempts[a.Target], w.free[a.Target] = w.now, w.now+spacing
	}
	w.number++
	w.flights = append(w.flights, flight{a, w.now, alone, w.outages, w.number})
}

// land tells what became of an attempt.
func (w *world) land(f flight, o Outcome) {
	w.flights = slices.DeleteFunc(w.flights, func(g flight) bool { return g.attempt == f.attempt })
	a := f.attempt
	w.s.Settle(w.clock(), a, o)
	kind := 0
	if a.Signal {
		kind = 1
	}
	if (o.Cut || o.GaveUp) && !o.NotSent {
		w.doubt[kind] = w.now + spacing
	}
	if !o.NotSent { // it may be the last word instead of what began later
		if !a.Signal {
			w.owed = w.owed || w.told && w.signalAt > f.at
		}
		for i := range w.paid {
			if a.Signal && w.paid[i] > f.at {
				w.paid[i] = -1
			}
		}
		for i, g := range w.flights {
			if g.attempt.Signal != a.Signal && g.number > f.number {
				w.flights[i].last = false
			}
		}
	}
	switch {
	case a.Signal && o.Sent:
		if a.debt == w.s.signals.debt {
			w.told = true
			w.owed = w.owed && !f.last
		}
	case a.Signal:
	case o.Sent && f.last && f.outages == w.outages:
		w.paid[a.Target] = max(w.paid[a.Target], f.at)
	case o.NotSent:
		w.free[a.Target] = min(w.free[a.Target], f.at+RetryPause)
	case o.RetryAfter > 0:
		w.free[a.Target] = max(w.free[a.Target], w.now+o.RetryAfter)
	}
}

// An act is what becomes of attempts; those that hang are settled later.
type act struct {
	name  string
	first Outcome // of target 0, and of a signal
	other Outcome
	hangs bool
}

var acts = []act{
	{"sent", Outcome{Sent: true}, Outcome{Sent: true}, false},
	{"failed", Outcome{GaveUp: true}, Outcome{Sent: true}, false},
	{"never left", Outcome{NotSent: true}, Outcome{}, false},
	{"Retry-After", Outcome{RetryAfter: retryAfter}, Outcome{NotSent: true}, false},
	{"hangs", Outcome{}, Outcome{}, true},
}

func (a act) of(attempt Attempt) Outcome {
	if attempt.Target == 0 {
		return a.first
	}
	return a.other
}

// run does what Run would, at the time of the next wake or some time after it.
func (w *world) run(a act, late time.Duration) {
	action, wake := w.s.Next(w.clock())
	if action == Wait {
		if !wake.After(w.clock()) {
			w.fail("S5: Run is to wait for %v", wake.Sub(w.clock()))
		}
		w.now += wake.Sub(w.clock())
		if late > 0 {
			w.pass(late)
		}
		action, _ = w.s.Next(w.clock())
		if action == Wait {
			w.fail("S3: Run wakes early")
			return
		}
	}
	began := w.now
	if action == Peek {
		w.look(Peek, a)
	} else {
		w.look(Check, a)
	}
	w.checkRun(began)
}

// checkRun checks the rules about when Run does what, after it has acted.
func (w *world) checkRun(began time.Duration) {
	action, wake := w.s.Next(w.clock())
	until := wake.Sub(w.clock())
	if until > interval+spacing {
		w.fail("S7: Run waits for %v", until)
	}
	if action != Wait {
		w.fail("S5: Run has nothing to wait for, and spins")
	}
	if w.back == 0 && !w.healthy && w.mayPing() && until > RetryPause {
		w.fail("S2: after a skipped beat Run waits for %v", until)
	}
	if w.owed && !w.inFlight(true, 0) && w.signalAt >= 0 && w.now < w.signalAt+spacing && w.back == 0 && until > spacing {
		w.fail("F3: a signal is not out, and Run waits for %v", until)
	}
	if w.healthy && until > fresh+1+minPeek {
		w.fail("F1: Run waits for %v, though a database may be stale after %v", until, fresh)
	}
	if !w.healthy {
		w.since = w.now
	}
	for i := range w.s.beats.targets {
		last := max(w.since, w.attempts[i])
		if began-last > interval+spacing && w.free[i] <= last+spacing && !w.inFlight(false, i) {
			w.fail("S1: target %d has had no attempt for %v", i, began-last)
		}
		owing := w.paid[i] < max(w.now-w.now%interval, w.outageAt)
		if w.back == 0 && owing && !w.s.beats.targets[i].owed {
			w.fail("S8: target %d owes nothing at %v, though the latest that counts began at %v", i, w.now, w.paid[i])
		}
	}
}

// mayPing reports whether a target owes a beat and might be pinged if all were healthy.
func (w *world) mayPing() bool {
	for i := range w.s.beats.targets {
		if w.s.beats.targets[i].owed && !w.inFlight(false, i) && w.free[i] <= w.now {
			return true
		}
	}
	return false
}

// pass lets time pass without Run: its timer is late. On the system's clock that is
// a jump, which owes a beat as soon as it is seen.
func (w *world) pass(d time.Duration) {
	promised := w.s.wakeAt
	w.now += d
	w.since = w.now
	if !promised.IsZero() && w.clock().Sub(promised) >= RetryPause {
		w.s.Next(w.clock())
		if w.s.now.Equal(w.clock()) { // else a clock that was set back is being caught up
			w.jumped = true
		}
	}
	for i := range w.s.beats.targets {
		if w.jumped && !w.s.beats.targets[i].owed {
			w.fail("S7: after a jump, target %d owes nothing", i)
		}
	}
}

// A step is one thing that may happen. It returns false where it cannot now.
type step struct {
	name string
	do   func(w *world) bool
}

func steps() (all []step) {
	add := func(name string, do func(w *world) bool) { all = append(all, step{name, do}) }
	for _, a := range acts {
		add("Run wakes: "+a.name, func(w *world) bool { w.run(a, 0); return true })
		add("Beat: "+a.name, func(w *world) bool { w.look(Beat, a); return true })
	}
	add("Run wakes 12 s late: sent", func(w *world) bool { w.run(acts[0], 12*time.Second); return true })
	add("10 s pass", func(w *world) bool { w.pass(10 * time.Second); return true })
	add("a minute but for a nanosecond passes", func(w *world) bool { w.pass(time.Minute - 1); return true })
	add("the database turns", func(w *world) bool { w.healthy, w.since = !w.healthy, w.now; return true })
	for name, o := range map[string]Outcome{"arrives": {Sent: true}, "never left": {NotSent: true}, "fails": {}} {
		add("the first in flight "+name, func(w *world) bool {
			if len(w.flights) == 0 {
				return false
			}
			w.land(w.flights[0], o)
			return true
		})
	}
	add("the last in flight arrives", func(w *world) bool {
		if len(w.flights) < 2 {
			return false
		}
		w.land(w.flights[len(w.flights)-1], Outcome{Sent: true})
		return true
	})
	add("the clock is set back", func(w *world) bool { w.back += setBack; w.since = w.now; return w.back == setBack })
	return all
}

// TestEveryHistory lives through each history of so many steps, for one and for two
// targets, and checks after each step what the rules S1 to S8, F1 and F3 to F5 say of
// the schedule. With -race the histories are one step shorter: there is one goroutine,
// and each step takes long.
func TestEveryHistory(t *testing.T) {
	all := steps()
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		*depth--
	}
	for _, kind := range []struct {
		targets int
		system  bool
	}{{1, false}, {1, true}, {2, true}} {
		histories := 0
		var explore func(w *world, left int)
		explore = func(w *world, left int) {
			if w.problem != "" {
				t.Fatalf("%+v: %s\n%s", kind, w.problem, strings.Join(w.steps, "\n"))
			}
			if left == 0 {
				histories++
				return
			}
			for _, s := range all {
				next := w.clone()
				if s.do(next) {
					next.steps = append(next.steps, fmt.Sprintf("%v: %s", next.now, s.name))
					explore(next, left-1)
				}
			}
		}
		explore(newWorld(kind.targets, kind.system), *depth)
		t.Logf("%d histories of %d steps, %+v", histories, *depth, kind)
	}
}
