// Package schedule decides when a Monitor looks at its databases, pings and signals.
//
// A [Schedule] is pure: it has no lock, no clock, no logger and no I/O. It is told the time and
// what happened, and says what is due and when to ask again. Its caller guards it with a mutex,
// and does what it says without the mutex.
//
// The words: the grid is start + k·interval, and at each of its points every target is owed a
// beat. A look is one inquiry of all databases. Looks never overlap, so the Schedule is told their
// verdicts in the order in which they were made. An attempt is one ping of one target. It is
// recorded when it is reserved, before the request goes out. A target is owed a ping until an
// attempt on it has been sent. A target's floor is the earliest time of its next attempt by our
// own rules. Its field "after" is the earliest time that the server asked for.
//
// Beats and failure signals contradict each other, and the service believes the last one that
// arrives. A request that has left cannot be called back, so no order of sending makes the order
// of arrival certain. To wait until the older one cannot arrive any more was rejected: the service
// would hear of an outage a minute late. The newer one goes out at once, and once more when
// nothing older can arrive.
//
// One timer for each target was rejected: Run would wake several times where once is enough. A
// queue of what is due was rejected too: what is owed changes with each verdict, and a queue would
// have to be searched and corrected each time. Here a few fields are compared.
package schedule

import (
	"math"
	"slices"
	"time"
)

const (
	// RetryPause is the time from one try to the next while nothing was sent. It spares a network that
	// is down, and allows six tries within the shortest interval. It is also the shortest difference
	// that counts as a jump in time: the clocks of a busy machine may be read seconds late, and its
	// wall clock is often corrected by less.
	RetryPause = 10 * time.Second

	maxRetryAfter = time.Hour       // the longest time by which a server may delay an attempt
	minPeek       = time.Second     // between two looks that only ask whether a database became stale
	maxWait       = 5 * time.Minute // the longest Wait on the system's clock: a suspend is noticed within that time after its end
	maxJumps      = 100             // how many jumps are kept; beyond that, the two oldest are merged
)

// An Action is what a caller of Next does, and why a look is made.
type Action int

// The actions. Next says one of the first three.
const (
	Wait  Action = iota // nothing is due
	Check               // look at the databases, and ping what is owed
	Peek                // look whether the database that synced longest ago is stale by now; send no beat
	Beat                // somebody asked for a look, and for a beat to each target that may be pinged
)

// Settings are what a Schedule does not change.
type Settings struct {
	Interval       time.Duration // between two grid points
	Spacing        time.Duration // between two attempts on one target, unless the first never left
	MaxSyncAge     time.Duration // how old a last sync may be
	Beats, Signals int           // how many targets there are of each kind

	// SystemClock says that time passes by itself. A fake clock moves as far as its test wants, and a
	// caller that it wakes late has missed nothing.
	SystemClock bool
}

// A Verdict is what a look at the databases found.
type Verdict struct {
	Healthy bool          // there are databases, and all are healthy
	None    bool          // there are no databases
	Lost    bool          // a database that the previous look also asked was lost since that look
	Fresh   time.Duration // how long it is until the first database can be lost, if none syncs
}

// A Plan is what a caller does about a verdict.
type Plan struct {
	Attempts []Attempt // the pings to make, all at once; each must be settled
	Signal   bool      // true: the verdict asks for failure signals; false: for beats
	Beat     uint64    // the number of the current beat

	// Cut says that attempts of the other kind are in flight. The caller ends them, waits for them,
	// and calls Reserve.
	Cut bool

	action Action
}

// An Attempt is one ping of one target, reserved and not settled yet.
type Attempt struct {
	Signal bool      // true: a failure signal; false: a beat
	Target int       // index of the target among those of its kind
	Began  time.Time // when it was reserved

	beat uint64 // the number of the current beat when it was reserved
	debt uint64 // the number of the debt that it may pay
	owed bool   // whether the target was owed this ping, in a Run
	last bool   // whether no older attempt of the other kind can arrive after it
}

// An Outcome is what became of an attempt.
type Outcome struct {
	Sent       bool
	NotSent    bool          // no byte of it has left
	GaveUp     bool          // no answer came in time
	Cut        bool          // its caller ended it, so its failure says nothing of the target
	RetryAfter time.Duration // what the server asked for; zero: nothing
}

// A Settlement is what follows from an outcome.
type Settlement struct {
	FirstFailure bool          // no earlier attempt of the same beat on this target has failed
	Retry        time.Duration // until the next try; zero: none is planned; negative: it is overdue
}

// A target is one place that is pinged.
type target struct {
	owed      bool   // a beat, or a signal, has still to be sent to it
	signalled bool   // a signal has been sent to it since all databases were healthy
	pinging   bool   // an attempt on it is not settled
	failed    uint64 // the latest beat of which an attempt on it failed

	// The floor and the server's Retry-After are kept apart. A grid point waits for the floor, a
	// minute at most. It does not wait for a Retry-After, which may be an hour: in that hour the log
	// would show no outage.
	floor, after time.Time

	// doubt is the time until which the service may still accept an attempt that was cut or got no
	// answer in time. To close the connection does not cancel a request that has left.
	doubt time.Time
}

// ready returns the earliest time at which the target may be pinged. It does not consider whether
// an attempt on it is in flight.
func (t *target) ready() time.Time { return later(t.floor, t.after) }

// A kind is all targets that get beats, or all targets that get failure signals.
type kind struct {
	targets []target

	// The number of what is owed now. It goes up for beats when a new beat is owed, for signals when a
	// look finds all databases healthy, and for both when an attempt of the other kind that may have
	// left ends. An attempt keeps the number that it was reserved under, and pays only if that number
	// is still the current one. To compare times was rejected: an outage and an attempt can begin at
	// the same time.
	debt uint64
}

// A Schedule holds what is owed to each target, and when. Create one with [New].
type Schedule struct {
	Settings
	beats, signals kind

	now       time.Time // the latest time that the Schedule was told
	running   bool      // between Start and Stop; an attempt without a Run belongs to no beat and plans no retry
	gridPoint time.Time // the grid point whose beat is current
	beat      uint64    // the number of that beat
	looked    bool      // whether the look of the current grid point was made
	newGrid   bool      // whether no look of this grid was made yet
	nextLook  time.Time // the earliest time of the next look for an owed beat; zero: at once
	staleAt   time.Time // when a database may become lost; zero: not watched
	nextPeek  time.Time // the earliest time of the next peek; zero: at once
	wakeAt    time.Time // the latest time at which Next will be asked again; zero: not known

	// The oldest jump comes first. To keep only the sum of their lengths was rejected: on a machine
	// that sleeps again and again, the sum would include sleeps from before a sync, and so excuse that
	// sync for ever.
	jumps []jump
}

// A jump is time that passed without a chance to sync: the machine slept, the process
// stood still, or the clock was stepped forward.
type jump struct {
	end    time.Time
	length time.Duration
}

// New returns a Schedule. Two attempts on one target begin at least Spacing apart, unless the
// first never left.
func New(settings Settings) *Schedule {
	return &Schedule{
		Settings: settings,
		beats:    kind{targets: make([]target, settings.Beats)},
		signals:  kind{targets: make([]target, settings.Signals)},
	}
}

// Start begins a grid at now. A beat is owed at once. No failure signal is owed: a database that
// was lost before the Run does not cause a signal in this Run.
//
// The floors stay, and so does what the server asked for. The service sees one client, however
// often Run is called: a daemon that leads, follows and leads again within a minute must not ping
// twice in that minute.
func (s *Schedule) Start(now time.Time) {
	s.tick(now)
	s.running, s.newGrid = true, true
	for i := range s.signals.targets {
		s.signals.targets[i].owed, s.signals.targets[i].signalled = false, false
	}
	s.newBeat(s.now)
}

// Stop ends the grid. Attempts in flight may still be settled. What is owed stays until the next
// Start, and a Beat may send it. To clear it here too was rejected: there would be two places that
// say what a Run begins with.
func (s *Schedule) Stop() {
	s.running = false
	s.wakeAt = time.Time{}
}

// Next says what is due now or, with Wait, when to ask again. A Beat, or an outcome, may make that
// time earlier.
//
// A Check comes before a Peek, because it finds all that the Peek would find.
func (s *Schedule) Next(now time.Time) (Action, time.Time) {
	s.tick(now)
	s.wakeAt = time.Time{}
	wake := s.nextCheck()
	if !wake.After(s.now) {
		return Check, s.now
	}
	// If a check is due within a second after the peek, the check takes the place of the peek. So Run
	// does not wake twice in each interval if every database syncs once an interval.
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

// nextCheck returns the time of the next look that may send something. That is the next grid point
// or, if it is earlier, the time at which an owed beat or signal may be tried.
//
// A grid point waits until the floor of at least one target has passed, since an earlier look
// would have to be repeated. It does not wait for a Retry-After. The first grid point of a Run
// does not wait at all, so that Run's caller sees at once what is wrong.
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

// nextTry returns when a target that is owed something may be tried, or next if next is earlier.
// An attempt in flight is not considered, because Next is asked again when it is settled.
func (k *kind) nextTry(next, notBefore time.Time) time.Time {
	for i := range k.targets {
		if t := &k.targets[i]; t.owed && !t.pinging {
			next = earlier(next, later(t.ready(), notBefore))
		}
	}
	return next
}

// Decide is told what a look found, with the time at which the look ended, and returns what to do
// about it. The Plan's attempts are already recorded. If Plan.Cut is set, the Plan has no attempts
// yet: Reserve adds them.
func (s *Schedule) Decide(now time.Time, v Verdict, action Action) Plan {
	s.tick(now)
	s.observe(v)
	plan := Plan{Signal: !v.Healthy, Beat: s.beat, action: action}
	if v.Healthy && action == Peek {
		return plan
	}
	// A Beat's look does not replace the look of the grid point. Run makes its own look too, so that
	// the log has lines for each beat of Run.
	if action != Beat {
		s.looked, s.newGrid = true, false
		if !v.Healthy {
			s.nextLook = s.now.Add(RetryPause)
		}
	}
	// A ping that is cut is lost. So pings are cut only if a ping of this kind can be made now.
	mine, other := s.kinds(plan.Signal)
	plan.Cut = slices.ContainsFunc(other.targets, func(t target) bool { return t.pinging }) &&
		slices.ContainsFunc(mine.targets, func(t target) bool { return s.may(&t, &plan) })
	if !plan.Cut {
		s.Reserve(s.now, &plan)
	}
	return plan
}

// observe takes a verdict, and makes failure signals owed or no longer owed.
//
// Once owed, a signal stays owed until it is sent, all databases are healthy, or no database is
// left. To ask at each try whether there is still a loss was rejected: only one look reports a
// loss, so after a failed try the next try would find no loss.
//
// Nothing is watched once each target has had its signal. No second signal is sent before all
// databases are healthy again, so a database that becomes stale meanwhile can wait for the next
// look.
func (s *Schedule) observe(v Verdict) {
	if v.Healthy {
		s.signals.debt++ // a signal in flight is about an outage that is over
	}
	watching := false
	for i := range s.signals.targets {
		t := &s.signals.targets[i]
		t.signalled = t.signalled && !v.Healthy
		t.owed = (t.owed || v.Lost && !t.signalled) && !v.Healthy && !v.None // without databases there is no outage to tell
		watching = watching || !t.signalled
	}
	if v.Lost {
		// After the signal, the service shows the check as down until a beat arrives. So a beat is owed as
		// soon as the databases are healthy again, and not only at the next grid point.
		s.Owe()
		s.nextLook = s.now.Add(RetryPause)
	}
	s.staleAt = time.Time{}
	if watching {
		// The nanosecond makes the age larger than MaxSyncAge, and not equal to it.
		s.staleAt = later(s.now.Add(v.Fresh).Add(1), s.nextPeek)
	}
}

// may reports whether the plan may ping t now.
func (s *Schedule) may(t *target, plan *Plan) bool {
	wanted := t.owed || plan.action == Beat && !plan.Signal
	// ready is not called, because it copies times. This test is most of what a rate-limited Beat
	// costs.
	return wanted && !t.pinging && !s.now.Before(t.floor) && !s.now.Before(t.after)
}

// Reserve records the plan's attempts: one on each target that is owed a ping and may be pinged.
// For a Beat's heartbeat, the target need not be owed a ping.
func (s *Schedule) Reserve(now time.Time, plan *Plan) {
	s.tick(now)
	mine, other := s.kinds(plan.Signal)
	// An attempt that has been in flight for two Spacings hangs, because its ctx ended after one. From
	// then on it raises no doubt: otherwise pings of the other kind would be repeated for as long as
	// it hangs. When it ends, Settle lets the other kind be repeated once.
	doubtful := slices.ContainsFunc(other.targets, func(t target) bool {
		return t.pinging && s.now.Before(t.floor.Add(s.Spacing)) || s.now.Before(t.doubt)
	})
	for i := range mine.targets {
		t := &mine.targets[i]
		if !s.may(t, plan) {
			continue
		}
		plan.Attempts = append(plan.Attempts, Attempt{
			Signal: plan.Signal, Target: i, Began: s.now, beat: s.beat,
			debt: mine.debt, owed: t.owed && s.running, last: !doubtful,
		})
		t.pinging, t.floor = true, s.now.Add(s.Spacing)
	}
}

// kinds returns the signals and the beats if signal is true. Otherwise it returns the beats and
// the signals.
func (s *Schedule) kinds(signal bool) (mine, other *kind) {
	if signal {
		return &s.signals, &s.beats
	}
	return &s.beats, &s.signals
}

// Owed reports whether a target's beat has still to be sent.
func (s *Schedule) Owed(target int) bool { return s.beats.targets[target].owed }

// Settle records what became of an attempt. An attempt pays only the debt that it was made for. A
// beat that began before a grid point or an outage does not pay the beat that is owed since then.
// A signal of an outage that is over does not pay the signal of the next outage. If an attempt of
// the other kind may still arrive after this one, this one has to be made once more.
func (s *Schedule) Settle(now time.Time, a Attempt, o Outcome) (is Settlement) {
	s.tick(now)
	mine, other := s.kinds(a.Signal)
	t := &mine.targets[a.Target]
	t.pinging = false
	if !o.NotSent {
		// If this attempt hung, an attempt of the other kind may have begun after it and still have arrived
		// before it. Whatever of the other kind was sent, or is in flight, is owed once more. If nothing
		// was, this changes nothing: after a signal the beats are still owed, and after a beat there is no
		// signal to repeat.
		other.debt++
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
	// A failure with an answer leaves no doubt: the request has arrived.
	if o.NotSent {
		t.floor = t.floor.Add(RetryPause - s.Spacing) // the attempt was reserved a Spacing before this floor
	} else if o.Cut || o.GaveUp {
		t.doubt = s.now.Add(s.Spacing)
	}
	t.after = s.now.Add(min(o.RetryAfter, maxRetryAfter)) // overwrites a time that has passed: the attempt began after it
	// Without a Run there is no next try: the caller of Beat decides.
	if s.running && t.owed {
		is.Retry = t.ready().Sub(s.now)
	}
	if o.Cut {
		return is
	}
	// The first failure is found by the number of the beat. A flag that each beat clears was rejected,
	// because a try may end after the next grid point. An attempt that was not owed, or that began
	// without a Run, belongs to no beat, and each of its failures counts as a first failure.
	is.FirstFailure = !a.owed || a.beat > t.failed
	if a.owed {
		t.failed = a.beat
	}
	return is
}

// Elapsed returns how much time there was to sync since a given time: what has passed until now,
// less the jumps in it. It also returns for how long the schedule will know all of these jumps. If
// there were none, that is the longest Duration.
//
// A jump is subtracted until MaxSyncAge has passed since its end, not counting the time of later
// jumps. Then it is deleted, because a clock that is set back would make it seem recent again. The
// limit is needed since a jump may be noticed late: it then also excuses syncs that were made
// after it, and must not do so for longer than that.
func (s *Schedule) Elapsed(now, since time.Time) (elapsed, known time.Duration) {
	s.tick(now)
	passed := Age(now, since)
	elapsed, known = passed, math.MaxInt64
	jumped := time.Duration(0) // the length of the jumps after j
	for i, j := range slices.Backward(s.jumps) {
		ago := Age(s.now, j.end)
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

// Age returns how long ago a time was, by the monotonic clock (if both times have a reading of it)
// or by the wall clock, whichever says more. The monotonic clock stands still while the machine
// sleeps. The wall clock can be set.
func Age(now, at time.Time) time.Duration {
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

// tick records the time, a jump in it, and the grid points that have passed.
func (s *Schedule) tick(now time.Time) {
	// Two callers may read the clock in one order and take the lock in the other. So a small step back
	// is ignored, and the Schedule's time stays until the clock has caught up.
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
	// Only the latest of the grid points that have passed counts, whatever made Run late: the service
	// needs one beat now, and not one for each point.
	if passed := now.Sub(s.gridPoint); passed >= s.Interval {
		point := s.gridPoint.Add(passed.Truncate(s.Interval))
		if passed == math.MaxInt64 { // now is further away than the longest Duration
			point = now
		}
		s.newBeat(point)
	}
}

// noteJump finds two kinds of jumps in time. Either the wall clock and the monotonic clock
// disagree, as after a suspend or when a clock was set. Or Next was asked late, as after a pause
// of the process. After a jump a beat is owed.
//
// To ask the system how long it slept was rejected. Each system has another call for that, package
// time has none, and a fake clock could not be asked. The answer would also say nothing of a
// process that was stopped.
func (s *Schedule) noteJump(now time.Time) {
	// Round(0) strips the monotonic reading. If there is none, both differences are equal.
	step := now.Round(0).Sub(s.now.Round(0)) - now.Sub(s.now)
	length := step
	if !s.wakeAt.IsZero() {
		length = max(length, now.Sub(s.wakeAt))
	}
	switch {
	case length >= RetryPause:
		if s.jumps = append(s.jumps, jump{now, length}); len(s.jumps) > maxJumps { // the two oldest are merged
			s.jumps[1].length += s.jumps[0].length
			s.jumps = slices.Delete(s.jumps, 0, 1)
		}
	case step > -RetryPause:
		return
	}
	// There was a jump, or the wall clock was set back by RetryPause or more. After such a step back
	// no jump is remembered, because no sync looks older.
	s.wakeAt = time.Time{}
	s.Owe()
}

// newBeat makes point the current grid point. Points between it and the previous one are dropped.
func (s *Schedule) newBeat(point time.Time) {
	s.gridPoint, s.looked = point, false
	s.beat++
	s.Owe()
}

// Owe makes a beat owed to each target, even while a beat is in flight. It is exported for Run,
// which calls it when a timer fired ten seconds or more before its time. Then a clock without
// monotonic readings was set back while Run waited, perhaps by too little for tick to notice. The
// floors stay: without them, with a clock whose timers fire at once, a target would be pinged
// without a pause.
func (s *Schedule) Owe() {
	s.beats.debt++
	for i := range s.beats.targets {
		s.beats.targets[i].owed = true
	}
}

// setBack moves the targets' deadlines back by as much as a clock without monotonic readings was
// set back. How much time has really passed is not known. So what was left of a wait is waited in
// full, and a beat is due at once.
//
// To leave the deadlines was rejected: after a clock was set back by a day, no ping would be sent
// for a day. To clear them was rejected too: two attempts might begin within a Spacing, and a
// Retry-After would be forgotten.
func (s *Schedule) setBack(by time.Duration) {
	for _, k := range []*kind{&s.beats, &s.signals} {
		for i := range k.targets {
			t := &k.targets[i]
			t.floor, t.after, t.doubt = t.floor.Add(-by), t.after.Add(-by), t.doubt.Add(-by)
		}
	}
	for i := range s.jumps {
		s.jumps[i].end = s.jumps[i].end.Add(-by)
	}
	s.nextLook, s.nextPeek = time.Time{}, time.Time{}
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
