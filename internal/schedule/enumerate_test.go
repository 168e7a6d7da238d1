package schedule

import (
	"flag"
	"fmt"
	"maps"
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

// A flight is an attempt of a Beat that is not settled yet.
type flight struct {
	attempt Attempt
	at      time.Duration
}

// A world lives through a history, and remembers what the rules are about. Its
// times are true ones, since the start: the clock that the schedule is told may
// have been set back.
type world struct {
	s       *Schedule
	now     time.Duration
	back    time.Duration
	healthy bool
	look    uint64
	db      uint64 // the database's number
	flights []flight
	open    []Verdict // looks that have begun, and not told what they saw

	attempts  [2]time.Duration // the latest on each target; -1: none
	free      [2]time.Duration // the earliest next one
	sentBegan [2]time.Duration // the latest that was sent, when it began
	signalAt  time.Duration
	signalOut bool // one has got out since all were found healthy
	proven    bool // some look has found the database healthy
	newest    Verdict
	since     time.Duration // since when all has been healthy, and Run on time
	steps     []string
	problem   string
}

func newWorld(targets int) *world {
	w := &world{s: New(interval, spacing, targets, 1), healthy: true, look: 1, db: 1, signalAt: -1}
	for i := range w.attempts {
		w.attempts[i], w.sentBegan[i] = -1, -1
	}
	w.s.Start(w.clock())
	return w
}

func (w *world) clock() time.Time { return start.Add(w.now - w.back) }

func (w *world) clone() *world {
	c, s := *w, *w.s
	s.beats, s.signals, s.unproven = slices.Clone(s.beats), slices.Clone(s.signals), maps.Clone(s.unproven)
	c.s = &s
	c.flights, c.open, c.steps = slices.Clone(w.flights), slices.Clone(w.open), slices.Clone(w.steps)
	return &c
}

func (w *world) fail(format string, args ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, args...)
	}
}

func (w *world) newLook() Verdict {
	w.look++
	v := Verdict{Number: w.look, Healthy: w.healthy, Fresh: fresh}
	if !w.healthy {
		v.Unhealthy = []uint64{w.db}
	}
	return v
}

// told tells a verdict, and checks the plan. It returns the attempts.
func (w *world) told(v Verdict, by By) []Attempt {
	plan := w.s.Judged(w.clock(), &v, by)
	lost := v.Number > w.newest.Number && !v.Healthy && w.proven
	overtaken := v.Healthy && v.Number < w.newest.Number && !w.newest.Healthy
	if plan.Overtaken != overtaken {
		w.fail("F5: overtaken is %v", plan.Overtaken)
	}
	if v.Number > w.newest.Number {
		w.newest = v
		w.proven = w.proven || v.Healthy
		w.signalOut = w.signalOut && !v.Healthy
	}
	for _, a := range plan.Attempts {
		if a.Signal {
			if !lost || w.signalOut {
				w.fail("F4: a signal, though lost is %v and one has got out is %v", lost, w.signalOut)
			}
			if w.signalAt >= 0 && w.now-w.signalAt < Pause {
				w.fail("S3: two signals %v apart", w.now-w.signalAt)
			}
			w.signalAt = w.now
			continue
		}
		if overtaken || !v.Healthy || by == ByPeek {
			w.fail("H3: a beat on a verdict that allows none")
		}
		if w.now < w.free[a.Target] {
			w.fail("S3: target %d is pinged %v after the attempt before", a.Target, w.now-w.attempts[a.Target])
		}
		if slices.ContainsFunc(w.flights, func(f flight) bool { return !f.attempt.Signal && f.attempt.Target == a.Target }) {
			w.fail("S3: target %d is pinged twice at once", a.Target)
		}
		w.attempts[a.Target], w.free[a.Target] = w.now, w.now+spacing
	}
	if plan.Timeout <= 0 && len(plan.Attempts) > 0 || plan.Timeout > spacing {
		w.fail("P6: a ping is given %v", plan.Timeout)
	}
	return plan.Attempts
}

// settled tells an outcome.
func (w *world) settled(a Attempt, began time.Duration, o Outcome) {
	w.s.Settle(w.clock(), a, o)
	switch {
	case a.Signal:
		w.signalOut = w.signalOut || o.Sent && a.debt == w.s.outage
	case o.Sent:
		w.sentBegan[a.Target] = max(w.sentBegan[a.Target], began)
	case o.NotSent:
		w.free[a.Target] = min(w.free[a.Target], began+Pause)
	case o.RetryAfter > 0:
		w.free[a.Target] = max(w.free[a.Target], w.now+o.RetryAfter)
	}
}

// An act is what becomes of attempts; hangs are settled later.
type act struct {
	name  string
	first Outcome // of target 0, and of a signal
	other Outcome
	hangs bool
}

var acts = []act{
	{"sent", Outcome{Sent: true}, Outcome{Sent: true}, false},
	{"failed", Outcome{}, Outcome{Sent: true}, false},
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

// run does what Run would, at the time of the next wake.
func (w *world) run(a act) {
	action, wake := w.s.Next(w.clock())
	if action == Wait {
		if !wake.After(w.clock()) {
			w.fail("S5: Run is to wait for %v", wake.Sub(w.clock()))
		}
		w.now += wake.Sub(w.clock())
		if action, _ = w.s.Next(w.clock()); action == Wait {
			if len(w.flights) == 0 { // else it looked whether what flies may be repeated
				w.fail("S3: Run wakes early")
			}
			return
		}
	}
	by, v := ByRun, w.newLook()
	if action == Peek {
		by = ByPeek
	}
	began := w.now
	attempts := w.told(v, by)
	if a.hangs && len(attempts) > 0 { // until the timeout, and Run waits
		w.now += w.s.timeoutOf(attempts, by)
	}
	for _, attempt := range attempts {
		w.settled(attempt, began, a.of(attempt))
	}
	w.checkRun(began, a)
}

// timeoutOf is the timeout of the attempts that were planned just before.
func (s *Schedule) timeoutOf(attempts []Attempt, by By) time.Duration {
	if attempts[0].Signal {
		return s.signalTimeout(by)
	}
	return s.timeout(attempts, by)
}

// checkRun checks the rules about when Run does what, after it has acted.
func (w *world) checkRun(began time.Duration, a act) {
	action, wake := w.s.Next(w.clock())
	until := wake.Sub(w.clock())
	if until > interval+spacing {
		w.fail("S7: Run waits for %v", until)
	}
	if action != Wait && w.now == began && !a.hangs {
		w.fail("S5: Run has nothing to wait for, and spins")
	}
	if w.back == 0 && !w.newest.Healthy && w.owesAny() && w.free[0] <= w.now && until > Pause {
		w.fail("S2: after a skipped beat Run waits for %v", until)
	}
	if w.lostAndMute() && w.now < w.signalAt+spacing && until > spacing {
		w.fail("F3: a signal is not out, and Run waits for %v", until)
	}
	if w.newest.Healthy && !w.signalOut && until > fresh+time.Second {
		w.fail("F1: Run waits for %v, though a database may be stale after %v", until, fresh)
	}
	if !w.healthy {
		w.since = w.now
	}
	for i := range w.s.beats {
		last := max(w.since, w.attempts[i])
		if began-last > interval+spacing && w.free[i] <= last+spacing && !w.inFlight(i) {
			w.fail("S1: target %d has had no attempt for %v", i, began-last)
		}
		if point := w.now - w.now%interval; w.back == 0 && w.sentBegan[i] < point && !w.s.Owed(i) && w.s.running {
			w.fail("S8: target %d owes nothing at %v, though the latest that was sent began at %v", i, w.now, w.sentBegan[i])
		}
	}
}

func (w *world) inFlight(target int) bool {
	return slices.ContainsFunc(w.flights, func(f flight) bool { return !f.attempt.Signal && f.attempt.Target == target })
}

func (w *world) owesAny() bool {
	for i := range w.s.beats {
		if w.s.Owed(i) && !w.inFlight(i) {
			return true
		}
	}
	return false
}

func (w *world) lostAndMute() bool {
	return w.proven && !w.newest.Healthy && !w.signalOut && w.signalAt >= 0
}

// beat is what a Beat does whose look has just ended.
func (w *world) beat(v Verdict, a act) {
	for _, attempt := range w.told(v, ByBeat) {
		if a.hangs {
			w.flights = append(w.flights, flight{attempt, w.now})
			continue
		}
		w.settled(attempt, w.now, a.of(attempt))
	}
}

func (w *world) land(o Outcome) bool {
	if len(w.flights) == 0 {
		return false
	}
	f := w.flights[0]
	w.flights = w.flights[1:]
	w.settled(f.attempt, f.at, o)
	return true
}

// pass lets time pass without Run: its timer is late.
func (w *world) pass(d time.Duration) {
	w.now += d
	w.since = w.now
}

// A step is one thing that may happen. It returns false where it cannot now.
type step struct {
	name string
	do   func(w *world) bool
}

func steps() (all []step) {
	add := func(name string, do func(w *world) bool) { all = append(all, step{name, do}) }
	for _, a := range acts {
		add("Run wakes: "+a.name, func(w *world) bool { w.run(a); return true })
		add("Beat: "+a.name, func(w *world) bool { w.beat(w.newLook(), a); return true })
	}
	add("10 s pass", func(w *world) bool { w.pass(10 * time.Second); return true })
	add("a minute but for a nanosecond passes", func(w *world) bool { w.pass(time.Minute - 1); return true })
	add("the database turns", func(w *world) bool { w.healthy, w.since = !w.healthy, w.now; return true })
	add("what flies arrives", func(w *world) bool { return w.land(Outcome{Sent: true}) })
	add("what flies never left", func(w *world) bool { return w.land(Outcome{NotSent: true}) })
	add("the clock is set back", func(w *world) bool { w.back += setBack; w.since = w.now; return w.back == setBack })
	add("a look begins", func(w *world) bool { w.open = append(w.open, w.newLook()); return len(w.open) == 1 })
	add("that look ends", func(w *world) bool {
		if len(w.open) == 0 {
			return false
		}
		v := w.open[0]
		w.open = nil
		w.beat(v, acts[0])
		return true
	})
	return all
}

// TestEveryHistory lives through each history of so many steps, for one and for two
// targets, and checks the rules S1 to S8 and F1 to F5 after each step.
func TestEveryHistory(t *testing.T) {
	all := steps()
	for targets := 1; targets <= 2; targets++ {
		histories := 0
		var explore func(w *world, left int)
		explore = func(w *world, left int) {
			if w.problem != "" {
				t.Fatalf("%d targets: %s\n%s", targets, w.problem, strings.Join(w.steps, "\n"))
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
		explore(newWorld(targets), *depth)
		t.Logf("%d histories of %d steps, %d targets", histories, *depth, targets)
	}
}
