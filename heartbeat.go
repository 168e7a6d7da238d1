// Package heartbeat supervises replication. It watches when each database last
// synced. While all of them are fresh it pings a dead man's switch, such as
// Healthchecks.io, Cronitor, Better Stack, Dead Man's Snitch or any URL that takes
// a GET. When one goes stale the [Monitor] stays silent, the service misses a
// beat, and somebody is told.
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"time"
//
//		"github.com/go-heartbeat/heartbeat"
//	)
//
//	func main() {
//		db := heartbeat.NewSyncTracker("/data/app.db")
//		pinger, err := heartbeat.NewHTTPPinger("https://hc-ping.com/your-uuid-here", nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		go func() {
//			for {
//				began := time.Now()
//				// … replicate, and then:
//				db.Record(began)
//				time.Sleep(time.Second)
//			}
//		}()
//		log.Fatal(monitor.Run(context.Background()))
//	}
//
// # How a check decides
//
// A database is healthy when it has synced at least once and its last sync is at
// most Options.MaxSyncAge away from now, in the past or in the future, by the
// monotonic clock and by the wall clock. All databases must be healthy, and there
// must be at least one. Then each target is pinged, unless an attempt on it
// started less than [MinInterval] ago.
//
// # When it checks
//
// [Monitor.Run] checks at once and then at every start + k·Interval. A beat that
// did not get out is tried again until it is out or the next beat is due: ten
// seconds after the last try began if nothing was sent, because a database was
// unhealthy or the request never left; one MinInterval after it otherwise. Beats
// that were missed while the machine slept are dropped. With a FailPinger, Run
// also looks at the databases when the one that synced longest ago becomes stale.
//
// # What a heartbeat does not prove
//
// It says that each SyncReporter reported a sync in time. Whether what was synced
// can be restored, only a restore proves.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

const (
	// DefaultInterval is the time between two heartbeats where Options.Interval
	// is zero.
	DefaultInterval = 5 * time.Minute

	// MinInterval is the floor of the interval, and of the time between two
	// attempts on one target. Healthchecks.io may ignore more than five pings a
	// minute.
	MinInterval = time.Minute
)

// Errors of a [Monitor]; test for them with [errors.Is].
var (
	// ErrRunning is returned by Run while another Run has not returned.
	ErrRunning = errors.New("heartbeat: monitor is already running")

	// ErrDuplicatePath is returned by New and Add when two databases have one path.
	ErrDuplicatePath = errors.New("heartbeat: duplicate database path")
)

// Options are the settings of a [Monitor]. A nil *Options, and the zero value,
// mean all defaults.
type Options struct {
	// Interval is the time between two heartbeats. Zero: DefaultInterval. Below
	// MinInterval: MinInterval, and New logs a warning.
	Interval time.Duration

	// MaxSyncAge is how old a database's last sync may be. Zero: the interval.
	// Negative: an error from New.
	MaxSyncAge time.Duration

	// Clock is the source of time. nil: the system clock.
	Clock Clock

	// Logger takes a line for each check and target. nil: what slog.Default
	// returns when New is called. A handler that panics loses its line, and
	// nothing else.
	Logger *slog.Logger

	// FailPinger is told once when a database that was healthy turns unhealthy, so
	// that the service can alert at once. Run looks when a database becomes stale,
	// and not only at the next beat. ResultFromContext gives the reason. An attempt
	// that fails is made again as a heartbeat's is, until one is out or those
	// databases have recovered or been removed. A database counts once a check has
	// found it healthy: not at start-up, nor one that is added and does not sync
	// yet. After a signal there is no other until a check has found all healthy.
	// nil: the service finds out by itself, after its period and grace.
	FailPinger Pinger

	// OnResult is called after each check, for metrics, by the goroutine that
	// made it: so several calls may be under way at once, and Run waits for its
	// own. It may call any method of the Monitor; a Beat in it is reported to
	// OnResult in turn. Since that would never end where each call makes one, a
	// check that ends while 100 calls are under way is not reported. A panic in
	// it is logged, and nothing else happens. nil: no calls.
	OnResult func(Result)

	// Source returns further databases, beside those given to New and Add. It is for
	// a daemon whose set of databases has an owner already: return what that holds
	// now. Source is called at each check and each Status, by several goroutines at
	// once, and must not block; its slice is read before it is called again by the
	// same goroutine, and not kept. A database that it names no more has left. Two
	// with one path are both judged. A nil in the slice is an unhealthy database,
	// and a Source that panics is an unhealthy check, both with ReasonPanicked.
	// nil: no further databases.
	Source func() []SyncReporter
}

// A Monitor checks its databases and pings its targets. Create one with [New] or
// [Config.NewMonitor]. All its methods may be called from any goroutine at any
// time, also from an OnResult or a Pinger: no lock is held while one of those runs.
// A reporter, an Options.Source or a Clock may call Status, Add and Remove. It must
// not call Beat, which would wait for the check that it is part of.
type Monitor struct {
	clock       Clock
	systemClock bool
	logger      *slog.Logger
	interval    time.Duration
	maxSyncAge  time.Duration
	onResult    func(Result)
	source      func() []SyncReporter
	targets     []target
	signals     []target // of FailPinger

	running atomic.Bool
	woken   chan struct{} // has a value when Run must ask the schedule again
	reports reportLimit

	// Whoever has put a value into looking makes a look, and owns these. A channel
	// and not a mutex, so that Beat can give up with its ctx, and so that the time of
	// a synctest bubble goes on.
	looking   chan struct{}
	asked     inquiry
	sourced   []database  // room for what source returns
	spare     *look       // room for the next
	slowTimer *time.Timer // fires when a look takes long

	slowLine chan struct{} // has a value while a line about a slow look is written

	mu         sync.Mutex // guards what follows
	schedule   *schedule.Schedule
	set        databaseSet
	looks      uint64     // how many have begun
	waitingFor []database // those that the look under way asks; nil: none is
	before     *look      // the latest look of this Run, or of Beats without one; nil: none yet
	flights    []*flight
	last       Result // what the newest check to end came to
	lastLook   uint64 // its number
	lastSentAt time.Time
	sentLook   uint64 // the number of the check that lastSentAt is of
}

// A target is a pinger with its names.
type target struct {
	pinger Pinger
	url    string // for the log; "" if it has none
	name   string // for errors and results
}

// New returns a Monitor of the databases that reporters report on, and that pings
// pinger, which may be a [MultiPinger]. There may be no reporters yet. If opts is
// nil, all defaults are used. New returns an error if a pinger or a reporter is nil
// (a nil pointer in a Pinger too), if two reporters have one path
// ([ErrDuplicatePath]), if MaxSyncAge is negative, and if FailPinger is the pinger
// itself or requests its URL: that would answer an outage with a heartbeat.
func New(pinger Pinger, reporters []SyncReporter, opts *Options) (*Monitor, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MaxSyncAge < 0 {
		return nil, fmt.Errorf("heartbeat: MaxSyncAge is negative (%v); use a positive one, or zero for the interval", o.MaxSyncAge)
	}
	targets, err := newTargets(pinger)
	if err != nil {
		return nil, err
	}
	var signals []target
	if o.FailPinger != nil {
		if signals, err = newTargets(o.FailPinger); err != nil {
			return nil, err
		}
	}
	for _, s := range signals {
		if slices.ContainsFunc(targets, func(t target) bool { return samePinger(s.pinger, t.pinger) }) {
			return nil, errors.New("heartbeat: FailPinger pings what the pinger pings; give it the service's failure URL")
		}
	}
	m := newMonitor(o, targets, signals)
	for _, r := range reporters {
		if err := m.Add(r); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func newMonitor(o Options, targets, signals []target) *Monitor {
	m := &Monitor{
		clock: o.Clock, logger: o.Logger, interval: o.Interval, maxSyncAge: o.MaxSyncAge, onResult: o.OnResult, source: o.Source,
		targets: targets, signals: signals, set: databaseSet{index: map[string]int{}},
		woken: make(chan struct{}, 1), looking: make(chan struct{}, 1), slowLine: make(chan struct{}, 1),
	}
	if m.clock == nil {
		m.clock, m.systemClock = systemClock{}, true
	}
	if m.logger == nil {
		m.logger = slog.Default()
	}
	switch {
	case m.interval == 0:
		m.interval = DefaultInterval
	case m.interval < MinInterval:
		m.log(context.Background(), slog.LevelWarn, "heartbeat interval raised to the minimum",
			slog.Duration("interval", m.interval), slog.Duration("minimum", MinInterval))
		m.interval = MinInterval
	}
	if m.maxSyncAge == 0 {
		m.maxSyncAge = m.interval
	}
	m.schedule = schedule.New(schedule.Settings{
		Interval: m.interval, Spacing: MinInterval, MaxSyncAge: m.maxSyncAge,
		Beats: len(targets), Signals: len(signals), SystemClock: m.systemClock,
	})
	return m
}

func newTargets(pinger Pinger) ([]target, error) {
	pingers := flatten([]Pinger{pinger})
	if len(pingers) == 0 {
		return nil, errors.New("heartbeat: MultiPinger has no pingers; give it at least one")
	}
	targets := make([]target, len(pingers))
	for i, p := range pingers {
		if isNilPinger(p) {
			return nil, errors.New("heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc")
		}
		targets[i] = target{p, logName(p), targetName(p, i)}
	}
	return targets, nil
}

// Format prints how much the Monitor watches, and none of its state, for every
// verb of package fmt.
func (m *Monitor) Format(f fmt.State, _ rune) {
	if m == nil {
		_, _ = io.WriteString(f, "heartbeat.Monitor(nil)")
		return
	}
	m.mu.Lock()
	databases := len(m.set.index)
	m.mu.Unlock()
	fmt.Fprintf(f, "heartbeat.Monitor(%d databases, %d targets)", databases, len(m.targets))
}

// Add adds a database, from the next check on. It returns [ErrDuplicatePath] if
// its path is taken, and an error if r is nil.
func (m *Monitor) Add(r SyncReporter) error {
	if r == nil {
		return errors.New("heartbeat: sync reporter is nil")
	}
	path := pathOf(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.set.add(database{path, r, m.looks}) {
		return fmt.Errorf("%w: %s", ErrDuplicatePath, path)
	}
	return nil
}

// Remove removes the database with that path, from the next check on, and
// reports whether there was one. It is the only way for a database that was added
// to leave: one that was closed stays, goes stale and is reported.
func (m *Monitor) Remove(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set.remove(path)
}

// Status judges the databases now, and tells what the newest check came to. It
// never waits for a check or a ping.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	added := m.set.databases()
	m.mu.Unlock()
	var q inquiry
	q.ask(m.withSource(added, nil))
	v := q.judge(m.clock.Now(), m.maxSyncAge)
	status := Status{Healthy: v.healthy(), Interval: m.interval, Databases: make([]DatabaseStatus, len(q.dbs))}
	for i, db := range q.dbs {
		status.Databases[i] = DatabaseStatus{db.path, q.syncs[i], ""}
	}
	for n, i := range v.at {
		status.Databases[i] = v.unhealthy[n]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	status.LastResult, status.LastSentAt = m.last.clone(), m.lastSentAt
	return status
}

// patience is how long somebody foreign may take before a line says so, and how
// long Run waits for its pings on a clock that is not the system's.
const patience = 10 * time.Second

// maxUnfinished is how many checks of Run may be unfinished. A ping ends within
// MinInterval, so only a pinger, a log handler or a callback that hangs makes them
// pile up.
const maxUnfinished = 100

// Run checks and pings until ctx is done, and then returns nil. It returns
// [ErrRunning] if another Run has not returned yet. Once that has, Run may be
// called again: so a daemon that leads only for a time calls it once for each term,
// with a ctx that ends with the term. Run uses the caller's goroutine. The pings are
// made beside it, and when ctx is done Run waits for them and leaves nothing behind:
// a pinger, a log handler or an OnResult that hangs holds it up then.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	start := m.clock.Now()
	m.mu.Lock()
	m.schedule.Start(start)
	m.before = nil
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.schedule.Stop()
		m.before = nil
		m.mu.Unlock()
	}()
	r := &runner{Monitor: m, unfinished: make(chan struct{}, maxUnfinished)}
	defer r.checks.Wait()
	for ctx.Err() == nil {
		now := m.clock.Now()
		m.mu.Lock()
		action, wake := m.schedule.Next(now)
		m.mu.Unlock()
		switch action {
		case schedule.Check:
			r.check(ctx, schedule.CallerRun)
		case schedule.Peek:
			r.check(ctx, schedule.CallerPeek)
		case schedule.Wait:
			r.wait(ctx, now, wake)
		}
	}
	return nil
}

// A runner is what one Run knows beside the Monitor.
type runner struct {
	*Monitor
	timer      <-chan time.Time // nil: none is outstanding
	timerAt    time.Time
	checks     sync.WaitGroup
	unfinished chan struct{} // has a value for each check that is
	lines      runLines
}

// check makes a check. What follows the look goes on beside the loop.
func (r *runner) check(ctx context.Context, caller schedule.Caller) {
	select {
	case r.unfinished <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c := &check{caller: caller}
	if !r.look(ctx, c, &r.lines) {
		<-r.unfinished
		return
	}
	done := make(chan struct{})
	r.checks.Go(func() {
		defer close(done)
		defer func() { <-r.unfinished }()
		r.finish(ctx, c)
	})
	if r.systemClock {
		return
	}
	// A test moves its clock when it sees that Run waits on it. By then the check
	// must be over.
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// wait waits until wake, or until a Beat or a settled ping has changed what is due.
// It asks the clock for a second channel while one is outstanding only if that would
// come too late: some fake clocks count those that were given up.
func (r *runner) wait(ctx context.Context, now, wake time.Time) {
	if r.timer == nil || wake.Before(r.timerAt) {
		r.timer, r.timerAt = r.clock.After(wake.Sub(now)), wake
	}
	select {
	case <-ctx.Done():
	case <-r.timer:
		r.timer = nil
	case <-r.woken:
	}
}

// wakeRun makes Run ask the schedule again.
func (m *Monitor) wakeRun() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// Beat makes one check now, and pings each target that is not rate-limited if
// all databases are healthy. It blocks until the pings are done. A target is
// rate-limited for [MinInterval] after the start of an attempt, or for ten seconds
// if that attempt never left; while a ping is in flight; and for as long as a
// Retry-After asks. Who asked for the attempt does not matter. When all targets
// are rate-limited, the Result is Skipped with [ReasonRateLimited]. When ctx is
// done before the ping, it is Failed with the error of ctx. Checks are made one
// after the other: Beat waits, as long as its ctx allows, while another asks the
// databases.
func (m *Monitor) Beat(ctx context.Context) Result {
	c := check{caller: schedule.CallerBeat}
	m.look(ctx, &c, nil)
	m.wakeRun() // it may have something to do earlier
	return m.finish(ctx, &c)
}

// A check is a look with what follows from it.
type check struct {
	verdict
	caller schedule.Caller
	number uint64 // of the look
	slow   bool   // a line about the look may be under way
	plan   schedule.Plan
	flight *flight // nil: nothing is pinged
	levels levels  // of its lines
	result Result
}

// look asks the databases, judges them, and reserves the attempts. Looks are made
// one at a time, so that their verdicts are told in the order in which they were
// made. It writes no log line: a handler may block, and all looks with it. lines is
// Run's; nil for a Beat. It reports whether that was a check: a peek that finds all
// healthy is none.
func (m *Monitor) look(ctx context.Context, c *check, lines *runLines) bool {
	select {
	case m.looking <- struct{}{}:
		defer m.endLook()
	case <-ctx.Done():
	}
	c.result.Time = m.clock.Now()
	if ctx.Err() == nil {
		m.ask(c)
		if !c.healthy() {
			c.result.skipFor(c.unhealthy)
		}
	}
	ended := ctx.Err()
	if ended == nil {
		m.decide(ctx, c)
	}
	switch {
	case c.result.Outcome == Skipped:
	case c.caller == schedule.CallerPeek:
		return false
	case ended != nil:
		c.result.Outcome, c.result.Err = Failed, fmt.Errorf("heartbeat: not sent: %w", ended)
	}
	c.levels = lines.levels(c)
	return true
}

// endLook lets the next look begin. A database that is gone must not be kept alive.
func (m *Monitor) endLook() {
	clear(m.sourced)
	m.asked.dbs = nil
	<-m.looking
}

// ask asks the databases and then judges what they said, so that the verdict is as
// old as the last answer.
func (m *Monitor) ask(c *check) {
	m.watchLook()
	defer m.unwatchLook(c)
	m.mu.Lock()
	m.looks++
	c.number = m.looks
	dbs := m.set.databases()
	m.waitingFor = dbs
	if m.source != nil {
		m.asked.asking.Store(0)
		m.waitingFor = askingSource
	}
	m.mu.Unlock()
	if m.source != nil {
		dbs = m.withSource(dbs, m.sourced[:0])
		m.sourced = dbs
		m.mu.Lock()
		m.waitingFor = dbs
		m.mu.Unlock()
	}
	m.asked.ask(dbs)
	c.verdict = m.asked.judge(m.clock.Now(), m.maxSyncAge)
	c.result.Databases = c.databases
}

var askingSource = []database{{path: panickedSource{}.Path()}}

// withSource returns the databases that were added and then those of Source, for
// which it uses room. A Source that panics is a database that does.
func (m *Monitor) withSource(added, room []database) []database {
	if m.source == nil {
		return added
	}
	all := append(room, added...)
	value, panicked := try(func() {
		for _, r := range m.source() {
			if r == nil {
				r = nilReporter{}
			}
			all = append(all, database{pathOf(r), r, fromSource})
		}
	})
	if panicked {
		r := panickedSource{value}
		all = append(all[:len(added)], database{r.Path(), r, fromSource})
	}
	return all
}

// decide tells the schedule the verdict, and reserves the attempts that it allows.
// Heartbeats and failure signals exclude each other, so that the last word at the
// service is the true one.
func (m *Monitor) decide(ctx context.Context, c *check) {
	v := schedule.Verdict{Healthy: c.healthy(), None: c.databases == 0}
	if len(m.signals) > 0 {
		v.Lost = m.lost(c)
		v.Fresh = c.fresh
	}
	m.mu.Lock()
	c.plan = m.schedule.Decide(c.now, v, c.caller)
	if c.plan.Cut {
		var cut []*flight
		for _, f := range m.flights {
			if f.Signal != c.plan.Signal && f.ctx.Err() == nil { // one that was cut before is not waited for again
				f.end()
				cut = append(cut, f)
			}
		}
		m.mu.Unlock()
		waitFor(cut)
		now := m.nowOr(c.now)
		m.mu.Lock()
		m.schedule.Reserve(now, &c.plan)
	}
	if len(c.plan.Attempts) > 0 {
		c.flight = newFlight(ctx, c)
		m.flights = append(m.flights, c.flight)
	}
	m.mu.Unlock()
}

// lost reports whether a database was lost since the look before, and makes this
// the look before of the next. One in which anything panicked has seen too little
// for that.
func (m *Monitor) lost(c *check) bool {
	m.mu.Lock()
	before, jumps := m.before, m.schedule.Jumps(c.now)
	m.mu.Unlock()
	this := m.spare
	if this == nil {
		this = &look{}
	}
	this.begin(c.number, c.now)
	lost := c.judgeLoss(m.asked.dbs, before, this, jumps)
	if m.spare = this; len(c.panics) > 0 {
		return lost
	}
	this.remember(m.asked.dbs)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before == before { // else Run has begun or ended in between
		m.before, m.spare = this, before
	}
	return lost
}

// A flight is the attempts of one check while they are under way.
type flight struct {
	schedule.Plan
	number uint64          // of the check
	ctx    context.Context // of the pings
	end    context.CancelFunc
	left   int           // attempts that are not settled
	landed chan struct{} // closed when none is left
	told   chan struct{} // closed when the attempts' lines may be written
}

// newFlight gives each ping MinInterval. The deadline is on the system's clock, as
// the network is: a fake one cannot cut a real call short.
func newFlight(ctx context.Context, c *check) *flight {
	f := &flight{Plan: c.plan, number: c.number, left: len(c.plan.Attempts), landed: make(chan struct{}), told: make(chan struct{})}
	f.ctx, f.end = context.WithTimeout(context.WithValue(ctx, resultKey{}, c.result.clone()), MinInterval)
	return f
}

// waitFor waits for flights that were cut: a second at most, since a pinger may
// ignore its ctx.
func waitFor(cut []*flight) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for _, f := range cut {
		select {
		case <-f.landed:
		case <-timer.C:
			return
		}
	}
}

// A delivery is what became of one attempt.
type delivery struct {
	schedule.Settlement
	target *target
	err    error
	hint   string
	cut    bool // its caller's ctx has ended, or a ping of the other kind took its place
}

// finish makes the pings of a check, tells what it came to, and returns that.
func (m *Monitor) finish(ctx context.Context, c *check) Result {
	wait := m.launch(ctx, c.flight)
	m.awaitSlowLine(c)
	switch result := &c.result; {
	case result.Outcome == Skipped:
		m.logSkipped(ctx, c)
		wait()
	case result.Outcome == Failed:
	case c.flight == nil:
		result.Outcome, result.Reason = Skipped, ReasonRateLimited
		m.logRateLimited(ctx, c)
	default:
		result.sum(wait(), len(m.targets))
		m.logRateLimited(ctx, c)
	}
	m.mu.Lock()
	if c.number >= m.lastLook {
		m.last, m.lastLook = c.result.clone(), c.number
	}
	m.mu.Unlock()
	m.report(ctx, c)
	return c.result
}

// launch begins the attempts, all at once, and returns a function that lets their
// lines be written and waits for them. Each attempt is settled as soon as it has
// ended, and its line is written then.
func (m *Monitor) launch(ctx context.Context, f *flight) (wait func() []delivery) {
	if f == nil {
		return func() []delivery { return nil }
	}
	deliveries := make([]delivery, len(f.Attempts))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pingAll(len(deliveries), func(i int) {
			m.deliver(ctx, f, f.Attempts[i], &deliveries[i])
			<-f.told
			m.logDelivery(ctx, f.Signal, &deliveries[i])
		})
	}()
	return func() []delivery {
		close(f.told)
		<-done
		return deliveries
	}
}

// deliver makes one attempt and settles it.
func (m *Monitor) deliver(ctx context.Context, f *flight, a schedule.Attempt, d *delivery) {
	d.target = &m.targets[a.Target]
	if a.Signal {
		d.target = &m.signals[a.Target]
	}
	stop := m.watchPing(ctx, d.target)
	d.err = callPinger(f.ctx, d.target.pinger)
	var o schedule.Outcome
	o, d.hint = classify(d.err)
	d.cut = d.err != nil && (ctx.Err() != nil || errors.Is(f.ctx.Err(), context.Canceled))
	o.Cut = d.cut
	now := m.nowOr(a.Began)
	m.mu.Lock()
	if o.Sent && !a.Signal && f.number >= m.sentLook {
		m.lastSentAt, m.sentLook = a.Began, f.number
	}
	d.Settlement = m.schedule.Settle(now, a, o)
	if f.left--; f.left == 0 {
		m.flights = slices.DeleteFunc(m.flights, func(g *flight) bool { return g == f })
		f.end()
		close(f.landed)
	}
	m.mu.Unlock()
	m.wakeRun()
	stop()
}

// nowOr returns the time, or the given one where the clock panics: an attempt must
// be settled all the same.
func (m *Monitor) nowOr(fallback time.Time) time.Time {
	now := fallback
	try(func() { now = m.clock.Now() })
	return now
}

// A reportLimit ends what would never end: an OnResult that makes Beats, each of
// which calls OnResult.
type reportLimit struct {
	mu         sync.Mutex
	underWay   int // calls of OnResult
	sinceQuiet int // calls since none was under way
}

// maxReports is how many calls of OnResult may be under way at once, and how many
// may be added by Beats before all of them have returned. The depth alone was
// bounded once: an OnResult that makes two Beats makes a tree of that depth.
const maxReports = 100

func (l *reportLimit) begin(beat bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay >= maxReports || beat && l.sinceQuiet >= maxReports {
		return false
	}
	l.underWay++
	l.sinceQuiet++
	return true
}

func (l *reportLimit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay--; l.underWay == 0 {
		l.sinceQuiet = 0
	}
}

// report calls OnResult.
func (m *Monitor) report(ctx context.Context, c *check) {
	if m.onResult == nil || !m.reports.begin(c.caller == schedule.CallerBeat) {
		return
	}
	defer m.reports.end()
	if value, panicked := try(func() { m.onResult(c.result.clone()) }); panicked {
		m.log(ctx, slog.LevelError, "heartbeat callback panicked", slog.String("panic", fmt.Sprint(value)))
	}
}
