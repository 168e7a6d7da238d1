// Package schedule decides when a Monitor checks, pings and signals.
//
// A [Schedule] is pure: it has no lock, no clock, no logger and no I/O. It is
// told the time and what happened, and says what is due and when to look again.
// Its caller guards it with a mutex, and does what it says without the mutex.
//
// The words: the grid is start + k·interval, and each of its points owes every
// target a beat. A look is a check of the databases. An attempt is one ping of
// one target; it is recorded when it is reserved, before the request goes out. A
// target's floor is the earliest time of its next attempt by our own rules; its
// retryAfter is the same by the server's wish.
package schedule

import (
	"slices"
	"time"
)

const (
	// Pause is the time from one try to the next while nothing was sent: long
	// enough to spare a network that is down, and six tries within the shortest
	// interval.
	Pause = 10 * time.Second

	maxRetryAfter = time.Hour   // as far as a server may push back an attempt
	minPeek       = time.Second // between two looks that only ask whether a database became stale
)

// An Action is what a caller that runs the schedule does next.
type Action int

// The actions.
const (
	Wait  Action = iota // nothing is due
	Check               // look at the databases, and ping what is owed
	Peek                // look at the databases: the one that synced longest ago may be stale by now
)

// By says on whose behalf a look was made.
type By int

// Whose behalf.
const (
	ByRun  By = iota // Next said Check: only what is owed is pinged
	ByPeek           // Next said Peek: no beat is sent
	ByBeat           // somebody asked: every target that may be pinged is
)

// A Verdict is what a look at the databases found.
type Verdict struct {
	// Number is where the look stands in the one sequence that numbers looks and
	// databases; it is above zero. What a look found is ignored where a look
	// with a higher number has told its verdict already.
	Number uint64

	Healthy   bool          // there are databases, and all are healthy
	Unhealthy []uint64      // the numbers of those that are not; a database has the number that the sequence had when it was added
	Fresh     time.Duration // for how long those that are healthy stay so if none syncs; what is too long to matter where nobody asked
}

// A Plan is what a caller does about a verdict.
type Plan struct {
	Attempts  []Attempt     // the pings to make, all at once; each must be settled
	Timeout   time.Duration // how long each of them is given
	Beat      uint64        // the number of the current beat
	Newest    bool          // no newer look has told its verdict
	Overtaken bool          // all were healthy, but a newer look has found otherwise: nothing may be sent
	Lost      bool          // an outage began, so whoever runs the schedule must ask Next again
}

// An Attempt is one ping of one target, reserved and not settled yet.
type Attempt struct {
	Signal bool      // whether it is a failure signal, or a beat
	Target int       // index of the target among those of its kind
	Began  time.Time // when it was reserved
	Look   uint64    // the number of the look that allowed it
	By     By

	debt uint64 // the beat, or the outage, that it is about
	owed bool   // whether that was owed
}

// An Outcome is what became of an attempt.
type Outcome struct {
	Sent       bool
	NotSent    bool          // no byte of it has left
	RetryAfter time.Duration // what the server asked for; zero: nothing
}

// A target is one place that is pinged.
type target struct {
	owed       bool // its beat, or signal, is still to get out
	told       bool // a signal has got out since all were healthy
	pinging    bool // an attempt is not settled
	failed     bool // an attempt of this beat has failed
	floor      time.Time
	retryAfter time.Time
}

// ready reports when the target may be pinged, leaving aside whether an attempt
// on it is still in flight.
func (t *target) ready() time.Time { return later(t.floor, t.retryAfter) }

// A Schedule holds what is owed to each target, and when. Create one with [New].
type Schedule struct {
	interval time.Duration // between two grid points
	spacing  time.Duration // between two attempts on one target, unless the first never left
	beats    []target
	signals  []target

	now     time.Time // the latest that it was told
	running bool      // between Start and Stop; without it there is no grid, and no beat is owed
	point   time.Time // the grid point whose beat is current
	beat    uint64    // the number of that beat
	checked bool      // whether it has been looked at since that point
	first   bool      // whether the grid has had no look yet
	lookAt  time.Time // no look for an owed beat before; zero: any
	limit   time.Time // when a healthy database may be stale; zero: not watched
	peekAt  time.Time // no peek before; zero: any

	// The newest verdict. Numbers order verdicts, clocks play no part: a look may
	// block for long, and a clock may be set.
	newest  uint64
	healthy bool
	outage  uint64 // counts the verdicts that found all healthy, so it names what lies between two of them

	// A database counts as lost only if some look has found it healthy: those with
	// a number below proven, but for the unproven ones.
	proven   uint64
	unproven map[uint64]struct{}
}

// New returns a Schedule for so many targets of beats and of failure signals. Two
// attempts on one target begin at least spacing apart, unless the first never left.
func New(interval, spacing time.Duration, beats, signals int) *Schedule {
	return &Schedule{interval: interval, spacing: spacing, beats: make([]target, beats), signals: make([]target, signals)}
}

// Start begins a grid at now. A beat is owed at once.
func (s *Schedule) Start(now time.Time) {
	s.tick(now)
	s.running, s.first = true, true
	s.begin(s.now)
}

// Stop ends the grid. Attempts in flight may still be settled.
func (s *Schedule) Stop() {
	s.running = false
	s.limit = time.Time{}
	for i := range s.beats {
		s.beats[i].owed = false
	}
}

// Next says what is due now or, with Wait, when to ask again. A verdict or an
// outcome that comes from elsewhere in the meantime may make that earlier.
func (s *Schedule) Next(now time.Time) (Action, time.Time) {
	s.tick(now)
	check := s.nextCheck()
	if !check.After(s.now) {
		return Check, s.now
	}
	// A check that comes within the second serves as well as a peek, and its pings
	// are given longer.
	if s.limit.IsZero() || !s.limit.Before(check.Add(-minPeek)) {
		return Wait, check
	}
	if !s.limit.After(s.now) {
		s.peekAt = s.now.Add(minPeek)
		return Peek, s.now
	}
	return Wait, s.limit
}

// nextCheck returns the time of the next look that may send something: at the grid
// point or, once that has been looked at, when an owed beat or signal may be tried.
// While no target may be pinged, a grid point waits, since to look early would be
// to look twice. Only the first does not: Run's caller sees at once what is wrong.
func (s *Schedule) nextCheck() time.Time {
	next := s.point
	if s.checked {
		next = next.Add(s.interval)
	}
	if !s.first {
		next = later(next, s.firstFloor())
	}
	for i := range s.beats {
		next = s.earlierTry(next, &s.beats[i], s.lookAt)
	}
	for i := range s.signals {
		next = s.earlierTry(next, &s.signals[i], time.Time{})
	}
	return next
}

// earlierTry returns when t may be tried, if that is owed and before next. An
// attempt in flight is waited for until it may be repeated; after that, until it
// is settled.
func (s *Schedule) earlierTry(next time.Time, t *target, notBefore time.Time) time.Time {
	at := later(t.ready(), notBefore)
	if !t.owed || t.pinging && !at.After(s.now) {
		return next
	}
	return earlier(next, at)
}

func (s *Schedule) firstFloor() time.Time {
	first := s.beats[0].floor
	for i := range s.beats {
		first = earlier(first, s.beats[i].floor)
	}
	return first
}

// Judged tells what a look found, at the time when it was done, and returns the
// attempts that it allows. They are recorded already.
func (s *Schedule) Judged(now time.Time, v *Verdict, by By) (plan Plan) {
	s.tick(now)
	plan.Beat, plan.Newest = s.beat, v.Number > s.newest
	if plan.Newest {
		plan.Lost = s.observe(v)
	}
	if by == ByRun {
		s.checked, s.first = true, false
	}
	if by != ByBeat && !v.Healthy {
		s.lookAt = s.now.Add(Pause)
	}
	switch {
	case v.Healthy && !s.healthy:
		plan.Overtaken = true
	case v.Healthy && by != ByPeek:
		plan.Attempts = s.reserve(false, by, v.Number)
		plan.Timeout = s.timeout(plan.Attempts, by)
	case !v.Healthy && plan.Newest:
		plan.Attempts = s.reserve(true, by, v.Number)
		plan.Timeout = s.signalTimeout(by)
	}
	return plan
}

// observe takes the newest verdict, and reports whether an outage began.
func (s *Schedule) observe(v *Verdict) (began bool) {
	s.newest, s.healthy = v.Number, v.Healthy
	if v.Healthy {
		s.outage++
	}
	if len(s.signals) == 0 {
		return false
	}
	lost := s.prove(v)
	watching := false
	for i := range s.signals {
		t := &s.signals[i]
		if v.Healthy {
			t.told = false
		}
		began = began || lost && !t.told && !t.owed
		t.owed = lost && !t.told
		watching = watching || !t.told
	}
	if began && s.running {
		// The service takes the signal for down until a beat comes: so one is owed
		// as soon as the databases are back, and not at the next grid point.
		s.owe()
		s.lookAt = s.now.Add(Pause)
	}
	s.limit = time.Time{}
	if watching && s.running {
		// To the nanosecond at which the age is more than allowed.
		s.limit = later(s.now.Add(v.Fresh).Add(1), s.peekAt)
	}
	return began
}

// prove takes note of which databases have been found healthy, and reports
// whether one that had been before is not.
func (s *Schedule) prove(v *Verdict) (lost bool) {
	var unproven map[uint64]struct{}
	for _, number := range v.Unhealthy {
		if _, ok := s.unproven[number]; number < s.proven && !ok {
			lost = true
			continue
		}
		if unproven == nil {
			unproven = make(map[uint64]struct{})
		}
		unproven[number] = struct{}{}
	}
	s.proven, s.unproven = v.Number, unproven
	return lost
}

// reserve records an attempt on each target that is owed one and may be pinged; a
// Beat's heartbeat, on each that may be pinged.
func (s *Schedule) reserve(signal bool, by By, look uint64) (attempts []Attempt) {
	targets, debt := s.targets(signal)
	for i := range targets {
		t := &targets[i]
		wanted := t.owed || by == ByBeat && !signal
		// Not ready: what a rate-limited Beat costs is mostly this, and that copies times.
		if !wanted || t.pinging || s.now.Before(t.floor) || s.now.Before(t.retryAfter) {
			continue
		}
		attempts = append(attempts, Attempt{Signal: signal, Target: i, Began: s.now, Look: look, By: by, debt: debt, owed: t.owed})
		t.pinging, t.floor = true, s.now.Add(s.spacing)
	}
	return attempts
}

// targets returns the targets of a kind, and what is owed to them now: the current
// beat, or the signal of the current outage.
func (s *Schedule) targets(signal bool) (targets []target, debt uint64) {
	if signal {
		return s.signals, s.outage
	}
	return s.beats, s.beat
}

// timeout returns how long the pings of beats are given. Run waits for them, so one
// that hangs must not cost a target that is not pinged now its next beat. Those that
// are pinged now are not pinged again within the spacing.
func (s *Schedule) timeout(attempts []Attempt, by By) time.Duration {
	timeout := s.spacing
	if by == ByBeat || !s.running {
		return timeout
	}
	for i := range s.beats {
		if t := &s.beats[i]; !slices.ContainsFunc(attempts, func(a Attempt) bool { return a.Target == i }) {
			timeout = min(timeout, later(s.point.Add(s.interval), t.ready()).Sub(s.now))
		}
	}
	return timeout
}

// signalTimeout returns how long a failure signal is given: until the next look,
// which may find the databases back.
func (s *Schedule) signalTimeout(by By) time.Duration {
	if by == ByBeat || !s.running {
		return s.spacing
	}
	return min(Pause, s.point.Add(s.interval).Sub(s.now))
}

// Owed reports whether a target's beat is still to get out.
func (s *Schedule) Owed(target int) bool { return s.beats[target].owed }

// Settle tells what became of an attempt, and reports whether that is the first
// failure of its beat. It settles no other debt than the one it was about: a ping
// that began before a grid point says nothing of that point, and a signal of an
// outage that is over nothing of the next.
func (s *Schedule) Settle(now time.Time, a Attempt, o Outcome) (firstFailure bool) {
	s.tick(now)
	targets, debt := s.targets(a.Signal)
	t := &targets[a.Target]
	t.pinging = false
	current := a.debt == debt
	if o.Sent {
		if current {
			t.owed, t.told = false, a.Signal
		}
		return false
	}
	if o.NotSent {
		t.floor = earlier(t.floor, a.Began.Add(Pause))
	}
	if o.RetryAfter > 0 {
		t.retryAfter = s.now.Add(min(o.RetryAfter, maxRetryAfter))
	}
	repeated := s.running && a.owed && current && t.failed
	t.failed = t.failed || a.owed && current
	return !repeated
}

// tick takes note of the time, and of the grid points that have passed.
func (s *Schedule) tick(now time.Time) {
	// Callers read the clock before they take the lock, so a little out of order is
	// no clock that was set back. Then the time stands still until the clock has
	// caught up.
	if now.Before(s.now) {
		back := s.now.Sub(now)
		if back < s.spacing {
			return
		}
		s.now = now
		s.setBack(back)
	}
	s.now = now
	if !s.running {
		return
	}
	if passed := now.Sub(s.point); passed >= s.interval {
		point := s.point.Add(passed.Truncate(s.interval))
		if now.Sub(point) >= s.interval { // further than a Duration reaches
			point = now
		}
		s.begin(point)
	}
}

// begin makes point the current grid point. Points between it and the one before
// are dropped.
func (s *Schedule) begin(point time.Time) {
	s.point = point
	s.beat++
	s.checked = false
	s.lookAt = time.Time{}
	s.owe()
	for i := range s.beats {
		s.beats[i].failed = false
	}
	for i := range s.signals {
		s.signals[i].failed = false
	}
}

func (s *Schedule) owe() {
	for i := range s.beats {
		s.beats[i].owed = true
	}
}

// setBack sets back what lies ahead, by a clock that was and has no monotonic reading.
// How much time has really passed is not known. So what was left to wait is waited
// for in full, and a beat is due at once.
func (s *Schedule) setBack(by time.Duration) {
	for _, targets := range [][]target{s.beats, s.signals} {
		for i := range targets {
			t := &targets[i]
			t.floor, t.retryAfter = t.floor.Add(-by), t.retryAfter.Add(-by)
		}
	}
	s.limit, s.peekAt = time.Time{}, time.Time{}
	if s.running {
		s.begin(s.now)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
