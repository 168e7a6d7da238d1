// Package schedule decides when a Monitor looks at its databases, pings and signals.
//
// A [Schedule] is pure: it has no lock, no clock, no logger and no I/O. It is
// told the time and what happened, and says what is due and when to ask again.
// Its caller guards it with a mutex, and does what it says without the mutex.
//
// The words: the grid is start + k·interval, and each of its points owes every target a
// beat. A look is one inquiry of all databases; looks never overlap, so their verdicts are
// told in the order in which they were made. An attempt is one ping of one target; it is
// recorded when it is reserved, before the request goes out. A target owes a ping until an
// attempt on it has been sent. A target's floor is the earliest time of its next attempt by
// our own rules. Its field after is the earliest time that the server asked for.
//
// Beats and failure signals contradict each other, and at the service the last to
// arrive counts. A request that has left cannot be called back, so no order of sending
// makes the order of arrival certain. To wait until the older one cannot arrive any
// more was rejected: an outage would be told a minute late. The newer one goes out at
// once, and once more when nothing older can arrive.
//
// One timer for each target was rejected: several wake-ups where one will do. A queue of
// what is due was rejected too: what is owed changes with each verdict, and a queue would
// have to be searched and mended each time. Here a few fields are compared.
package schedule

import (
	"math"
	"slices"
	"time"
)

const (
	// RetryPause is the time from one try to the next while nothing was sent. It spares a
	// network that is down, and allows six tries within the shortest interval. It is also
	// the shortest jump in time that is seen as one: the clocks of a busy machine may be
	// read seconds late, and its wall clock is often corrected by less.
	RetryPause = 10 * time.Second

	maxRetryAfter = time.Hour       // as far as a server may push back an attempt
	minPeek       = time.Second     // between two looks that only ask whether a database became stale
	maxWait       = 5 * time.Minute // on the system's clock, so that a nap is noticed that soon after it
	maxJumps      = 100             // that are remembered one by one
)

// An Action is what a caller of Next does, and why a look is made.
type Action int

// The actions. Next says one of the first three.
const (
	Wait  Action = iota // nothing is due
	Check               // look at the databases, and ping what is owed
	Peek                // look at the databases: the one that synced longest ago may be stale by now; send no beat
	Beat                // somebody asked for a look, and for a beat to each target that may be pinged
)

// Settings are what a Schedule does not change.
type Settings struct {
	Interval       time.Duration // between two grid points
	Spacing        time.Duration // between two attempts on one target, unless the first never left
	MaxSyncAge     time.Duration // how old a last sync may be
	Beats, Signals int           // how many targets there are of each kind

	// SystemClock says that time passes by itself. A fake clock leaps as far as
	// its test wants, and a caller that is woken late by it has missed nothing.
	SystemClock bool
}

// A Verdict is what a look at the databases found.
type Verdict struct {
	Healthy bool          // there are databases, and all are healthy
	None    bool          // there are no databases
	Lost    bool          // one that the look before asked was lost since
	Fresh   time.Duration // how long it is until the first database can be lost, if none syncs
}

// A Plan is what a caller does about a verdict.
type Plan struct {
	Attempts []Attempt // the pings to make, all at once; each must be settled
	Signal   bool      // whether the verdict asks for failure signals, or for beats
	Beat     uint64    // the number of the current beat

	// Cut says that attempts of the other kind are under way: end them, wait for
	// them, and call Reserve.
	Cut bool

	action Action
}

// An Attempt is one ping of one target, reserved and not settled yet.
type Attempt struct {
	Signal bool      // whether it is a failure signal, or a beat
	Target int       // index of the target among those of its kind
	Began  time.Time // when it was reserved

	number uint64 // of the reservation: the larger is the later, also on a clock that was set back
	beat   uint64 // the current one when it was reserved
	debt   uint64 // what it may pay
	owed   bool   // whether that was owed, by a Run
	last   bool   // whether it is the last word: nothing of the other kind can arrive after it
}

// An Outcome is what became of an attempt.
type Outcome struct {
	Sent       bool
	NotSent    bool          // no byte of it has left
	GaveUp     bool          // no answer came in its time
	Cut        bool          // its caller ended it: its failure says nothing of the target
	RetryAfter time.Duration // what the server asked for; zero: nothing
}

// A Settlement is what follows from an outcome.
type Settlement struct {
	FirstFailure bool          // the beat that the attempt was about has had no failure before
	Retry        time.Duration // until the next try; zero: none is planned
}

// A target is one place that is pinged.
type target struct {
	owed      bool   // its beat, or signal, is still to get out
	signalled bool   // a signal has got out since all were healthy
	pinging   bool   // an attempt is not settled
	failed    uint64 // the latest beat that an attempt has failed

	// The floor and the server's Retry-After are kept apart. A grid point waits for the
	// floor, a minute at most. For a Retry-After of an hour it does not wait: the log
	// would not show an outage in all that time.
	floor, after time.Time

	// Until then the service may still take in an attempt that was cut, or given up: to
	// hang up does not call a request back.
	doubt time.Time
}

// ready reports when the target may be pinged, leaving aside whether an attempt
// on it is still in flight.
func (t *target) ready() time.Time { return later(t.floor, t.after) }

// A kind is the targets that are sent the same: beats, or failure signals.
type kind struct {
	targets []target

	// The number of what is owed now. It goes up when something new is owed. An attempt
	// keeps the number that it was reserved under, and pays only if that is still the
	// current one. To compare times was rejected: an outage and an attempt can begin at
	// one time.
	debt uint64

	latest  uint64    // the number of the latest reservation
	certain time.Time // from then on, an attempt is the last word: none of the other kind can arrive after it
}

// A Schedule holds what is owed to each target, and when. Create one with [New].
type Schedule struct {
	Settings
	beats, signals kind
	reservations   uint64 // how many there were

	now       time.Time // the latest that it was told
	running   bool      // between Start and Stop; what becomes owed without a Run counts for nothing
	gridPoint time.Time // the one whose beat is current
	beat      uint64    // the number of that beat
	looked    bool      // whether there was a look since the grid point
	newGrid   bool      // whether the grid has had no look yet
	nextLook  time.Time // no look for an owed beat before; zero: any
	staleAt   time.Time // when a database may be lost; zero: not watched
	nextPeek  time.Time // no peek before; zero: any
	wakeAt    time.Time // when Next will be asked again at the latest; zero: not known

	// From old to new. One sum of their lengths was rejected: on a machine that sleeps
	// again and again, it would include sleeps from before a sync, and so excuse that sync
	// for ever.
	jumps []jump
}

// A jump is time that passed without a chance to sync: the machine slept, the process
// stood still, or the clock was stepped forward.
type jump struct {
	end    time.Time
	length time.Duration
}

// New returns a Schedule. Two attempts on one target begin at least Spacing apart,
// unless the first never left.
func New(settings Settings) *Schedule {
	return &Schedule{
		Settings: settings,
		beats:    kind{targets: make([]target, settings.Beats)},
		signals:  kind{targets: make([]target, settings.Signals)},
	}
}

// Start begins a grid at now. A beat is owed at once, and no failure signal: what
// was lost before is not news.
//
// The floors stay, and so does what the server asked for. The service sees one client,
// however often Run is called: a daemon that leads, follows and leads again within a minute
// must not ping three times.
func (s *Schedule) Start(now time.Time) {
	s.tick(now)
	s.running, s.newGrid = true, true
	s.staleAt = time.Time{}
	for i := range s.signals.targets {
		s.signals.targets[i].owed, s.signals.targets[i].signalled = false, false
	}
	s.newBeat(s.now)
}

// Stop ends the grid. Attempts in flight may still be settled. What is owed counts for
// nothing until the next Start, which makes a beat owed anew. To clear it here too was
// rejected: there would be two places that say what a Run begins with.
func (s *Schedule) Stop() {
	s.running = false
	s.wakeAt = time.Time{}
}

// Next says what is due now or, with Wait, when to ask again. A verdict or an
// outcome that comes from elsewhere in the meantime may make that earlier.
//
// A Check comes before a Peek. It looks at the databases too, and so finds all that the
// peek would find.
func (s *Schedule) Next(now time.Time) (Action, time.Time) {
	s.tick(now)
	s.wakeAt = time.Time{}
	wake := s.nextCheck()
	if !wake.After(s.now) {
		return Check, s.now
	}
	// A check that comes within the second serves as well as a peek. So Run does not
	// wake twice where every database syncs once an interval.
	if !s.staleAt.IsZero() && s.staleAt.Before(wake.Add(-minPeek)) {
		if wake = s.staleAt; !wake.After(s.now) {
			s.nextPeek = s.now.Add(minPeek)
			return Peek, s.now
		}
	}
	if s.SystemClock {
		wake = earlier(wake, s.now.Add(maxWait))
		s.wakeAt = wake
	}
	return Wait, wake
}

// nextCheck returns the time of the next look that may send something: at the grid
// point or, once that has been looked at, when an owed beat or signal may be tried.
// While no target may be pinged, a grid point waits, since to look early would be
// to look twice. Only the first does not: Run's caller sees at once what is wrong.
func (s *Schedule) nextCheck() time.Time {
	next := s.gridPoint
	if s.looked {
		next = next.Add(s.Interval)
	}
	if !s.newGrid {
		first := slices.MinFunc(s.beats.targets, func(a, b target) int { return a.floor.Compare(b.floor) })
		next = later(next, first.floor)
	}
	next = s.beats.nextTry(next, s.nextLook)
	return s.signals.nextTry(next, time.Time{})
}

// nextTry returns when a target that is owed something may be tried, if that is before
// next. An attempt in flight is not considered, because Next is asked again when it is
// settled.
func (k *kind) nextTry(next, notBefore time.Time) time.Time {
	for i := range k.targets {
		if t := &k.targets[i]; t.owed && !t.pinging {
			next = earlier(next, later(t.ready(), notBefore))
		}
	}
	return next
}

// Decide tells what a look found, at the time when it was done, and returns what
// to do about it. The attempts are recorded already.
func (s *Schedule) Decide(now time.Time, v Verdict, action Action) Plan {
	s.tick(now)
	s.observe(v)
	plan := Plan{Signal: !v.Healthy, Beat: s.beat, action: action}
	if v.Healthy && action == Peek {
		return plan
	}
	// A Beat does not stand for the grid point's own look. Run makes that too, and so has its
	// lines for each beat, whoever else asks.
	if action != Beat {
		s.looked, s.newGrid = true, false
		if !v.Healthy {
			s.nextLook = s.now.Add(RetryPause)
		}
	}
	// A ping that is cut is lost. So pings are cut only if a ping of this kind can be made
	// now.
	mine, other := s.kinds(plan.Signal)
	plan.Cut = slices.ContainsFunc(other.targets, func(t target) bool { return t.pinging }) &&
		slices.ContainsFunc(mine.targets, func(t target) bool { return s.may(&t, &plan) })
	if !plan.Cut {
		s.Reserve(s.now, &plan)
	}
	return plan
}

// observe takes a verdict, and makes failure signals owed or takes them back.
//
// Once owed, a signal stays owed until it is out or all are healthy, whatever later looks
// find. To ask at each try whether there is still a loss was rejected: a loss is news at one
// look only, and the try after a failed one would find none.
//
// Nothing is watched while each target has had its signal. There is no second one to send
// before all are healthy again, so a database that becomes stale meanwhile can wait for the
// next look.
func (s *Schedule) observe(v Verdict) {
	if v.Healthy {
		s.signals.debt++ // a signal that is in flight is about an outage that is over
	}
	began, watching := false, false
	for i := range s.signals.targets {
		t := &s.signals.targets[i]
		t.signalled = t.signalled && !v.Healthy
		lost := v.Lost && !t.signalled && !t.owed
		began = began || lost
		t.owed = (t.owed || lost) && !v.Healthy && !v.None // whoever removes the last database has ended the outage
		watching = watching || !t.signalled
	}
	if began {
		// After the signal, the service shows the check as down until a beat comes. So a
		// beat is owed as soon as the databases are back, and not at the next grid point.
		s.owe()
		s.nextLook = s.now.Add(RetryPause)
	}
	s.staleAt = time.Time{}
	if watching {
		// To the nanosecond at which the age is more than allowed.
		s.staleAt = later(s.now.Add(v.Fresh).Add(1), s.nextPeek)
	}
}

// may reports whether the plan may ping t now.
func (s *Schedule) may(t *target, plan *Plan) bool {
	wanted := t.owed || plan.action == Beat && !plan.Signal
	// ready is not called, since it copies times, and this is most of what a rate-limited
	// Beat costs.
	return wanted && !t.pinging && !s.now.Before(t.floor) && !s.now.Before(t.after)
}

// Reserve records the plan's attempts: one on each target that is owed one and may be
// pinged. For a Beat's heartbeat, the target need not be owed one.
func (s *Schedule) Reserve(now time.Time, plan *Plan) {
	s.tick(now)
	s.reservations++
	mine, other := s.kinds(plan.Signal)
	// An attempt that is under way for two spacings hangs: its ctx ended after one. To
	// count it for longer would repeat the other kind for as long as it hangs. It counts
	// once more when it ends: see Settle.
	doubtful := func(t target) bool {
		return t.pinging && s.now.Before(t.floor.Add(s.Spacing)) || s.now.Before(t.doubt)
	}
	certain := mine.certain
	if slices.ContainsFunc(other.targets, doubtful) {
		certain = s.now.Add(s.Spacing)
	}
	for i := range mine.targets {
		t := &mine.targets[i]
		if !s.may(t, plan) {
			continue
		}
		plan.Attempts = append(plan.Attempts, Attempt{
			Signal: plan.Signal, Target: i, Began: s.now, number: s.reservations, beat: s.beat,
			debt: mine.debt, owed: t.owed && s.running, last: !s.now.Before(certain),
		})
		t.pinging, t.floor = true, s.now.Add(s.Spacing)
		mine.latest, mine.certain = s.reservations, certain
	}
}

// kinds returns the targets of a kind, and those of the other.
func (s *Schedule) kinds(signal bool) (mine, other *kind) {
	if signal {
		return &s.signals, &s.beats
	}
	return &s.beats, &s.signals
}

// Owed reports whether a target's beat is still to get out.
func (s *Schedule) Owed(target int) bool { return s.beats.targets[target].owed }

// Settle tells what became of an attempt. An attempt pays only the debt that it was about.
// A ping that began before a grid point or an outage does not count for that, and a signal
// of an outage that is over does not count for the next. If an attempt of the other kind
// may still arrive after this one, this one has to be made once more.
func (s *Schedule) Settle(now time.Time, a Attempt, o Outcome) (is Settlement) {
	s.tick(now)
	mine, other := s.kinds(a.Signal)
	t := &mine.targets[a.Target]
	t.pinging = false
	if !o.NotSent && a.number < other.latest {
		// It hung, and the service may take it for newer than what began later.
		for i := range other.targets {
			again := &other.targets[i]
			again.owed = again.owed || again.signalled || a.Signal
		}
	}
	if o.Sent {
		if a.debt == mine.debt {
			t.owed, t.signalled = !a.last, a.Signal
		}
		return Settlement{}
	}
	// A failure with an answer leaves no doubt: the service has taken the request in.
	if o.NotSent {
		t.floor = t.floor.Add(RetryPause - s.Spacing) // it was reserved a Spacing before its floor
	} else if o.Cut || o.GaveUp {
		t.doubt = s.now.Add(s.Spacing)
	}
	t.after = s.now.Add(min(o.RetryAfter, maxRetryAfter)) // an earlier Retry-After has been waited for
	// Without a Run there is no next try: whoever calls Beat decides.
	if s.running && t.owed {
		is.Retry = later(t.ready(), s.now).Sub(s.now)
	}
	if o.Cut {
		return is
	}
	// By the beat's number, and not by a flag that each beat clears: a try may end after
	// the next grid point. What was not owed, or has no Run, is no part of a beat.
	is.FirstFailure = !s.running || !a.owed || a.beat > t.failed
	if a.owed {
		t.failed = max(t.failed, a.beat)
	}
	return is
}

// Elapsed returns how much time there was to sync since a given time: what has passed until
// now, less the jumps in it. It also returns for how long the schedule will know all of
// these jumps. If there were none, that is the longest Duration.
//
// A jump counts for MaxSyncAge, in which the jumps after it do not count. One that has
// expired is forgotten: a clock that is set back later would make it look younger than it
// is. A jump may have been noticed late. Then it also excuses syncs that came after it, and
// must not do so for longer.
func (s *Schedule) Elapsed(now, since time.Time) (elapsed, known time.Duration) {
	s.tick(now)
	passed := Age(now, since)
	elapsed, known = passed, math.MaxInt64
	jumped := time.Duration(0) // by the jumps after the one that is looked at
	for i, j := range slices.Backward(s.jumps) {
		ago := max(0, Age(s.now, j.end))
		left := s.MaxSyncAge - (ago - jumped)
		if left < 0 {
			s.jumps = slices.Delete(s.jumps, 0, i+1)
			break
		}
		if passed > ago {
			elapsed, known = elapsed-j.length, min(known, left)
		}
		jumped += j.length
	}
	return elapsed, known
}

// Age returns how long ago a time was, by the monotonic clock (if both times have a reading
// of it) or by the wall clock, whichever says more. The first stands still while the machine
// sleeps. The second can be set.
func Age(now, at time.Time) time.Duration {
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

// tick takes note of the time: of a jump in it, and of the grid points that have
// passed.
func (s *Schedule) tick(now time.Time) {
	// Two callers may read the clock in one order and take the lock in the other. So
	// a small step back is ignored, and the time stands still until the clock has
	// caught up.
	if now.Before(s.now) {
		back := s.now.Sub(now)
		if back < s.Spacing {
			return
		}
		s.now = now
		s.setBack(back)
	}
	s.noteJump(now)
	s.now = now
	// Points that have passed are dropped, whatever made Run late: the service needs one
	// beat now, and not one for each.
	if passed := now.Sub(s.gridPoint); passed >= s.Interval {
		point := s.gridPoint.Add(passed.Truncate(s.Interval))
		if now.Sub(point) >= s.Interval { // it is further away than a Duration reaches
			point = now
		}
		s.newBeat(point)
	}
}

// noteJump finds a jump in time: the wall and the monotonic clock disagree, as
// after a suspend or where a clock was stepped, or whoever runs the schedule was
// woken late, as after a pause of the process. A beat is owed then.
//
// To ask the system how long it slept was rejected. Each system has another call for that,
// package time has none, and a fake clock could not be asked. It would also say nothing of
// a process that was stopped.
func (s *Schedule) noteJump(now time.Time) {
	if s.now.IsZero() {
		return
	}
	// Round(0) strips the monotonic reading. Without one, both differences are equal.
	step := now.Round(0).Sub(s.now.Round(0)) - now.Sub(s.now)
	length := step
	if !s.wakeAt.IsZero() {
		length = max(length, now.Sub(s.wakeAt))
	}
	switch {
	case length >= RetryPause:
		if s.jumps = append(s.jumps, jump{now, length}); len(s.jumps) > maxJumps { // the two oldest become one
			s.jumps[1].length += s.jumps[0].length
			s.jumps = slices.Delete(s.jumps, 0, 1)
		}
	case step > -RetryPause: // a wall clock that was set back by more owes a beat; it makes no sync older
		return
	}
	s.wakeAt = time.Time{}
	s.OweNow()
}

// OweNow makes a beat owed at once. Its caller has seen that a timer fired ten seconds or
// more before its time: a clock without monotonic readings was set back by less
// than it had gone on. No floor moves, or a clock whose timers fire at once would flood
// a target.
func (s *Schedule) OweNow() {
	s.owe()
	s.nextLook = time.Time{}
}

// newBeat makes point the current grid point. Points between it and the one before
// are dropped.
func (s *Schedule) newBeat(point time.Time) {
	s.gridPoint, s.looked = point, false
	s.beat++
	s.OweNow()
}

// owe makes a beat owed to each target, whatever is in flight.
func (s *Schedule) owe() {
	s.beats.debt++
	for i := range s.beats.targets {
		s.beats.targets[i].owed = true
	}
}

// setBack moves every deadline back with a clock that was set back and has no
// monotonic reading. How much time has really passed is not known. So what was left
// to wait is waited for in full, and a beat is due at once.
//
// To leave the deadlines was rejected: a clock that is set back by a day would bring no ping
// for a day. To clear them was rejected too: two attempts might begin within a Spacing, and
// a Retry-After would be forgotten.
func (s *Schedule) setBack(by time.Duration) {
	for _, k := range []*kind{&s.beats, &s.signals} {
		k.certain = k.certain.Add(-by)
		for i := range k.targets {
			t := &k.targets[i]
			t.floor, t.after, t.doubt = t.floor.Add(-by), t.after.Add(-by), t.doubt.Add(-by)
		}
	}
	for i := range s.jumps {
		s.jumps[i].end = s.jumps[i].end.Add(-by)
	}
	s.staleAt, s.nextPeek, s.wakeAt = time.Time{}, time.Time{}, time.Time{}
	s.newBeat(s.now)
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
