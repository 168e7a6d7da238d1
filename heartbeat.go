// Package heartbeat supervises replication. It watches when each database last
// synced. While all of them are fresh it pings a dead man's switch, such as
// Healthchecks.io, Cronitor, Better Stack, Dead Man's Snitch or any URL that takes
// a GET. When a database goes stale, the [Monitor] stops these pings. The service
// misses the pings and alerts you.
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
// A database is healthy when it has synced at least once, and its last sync is at
// most Options.MaxSyncAge away from now, in the past or in the future. That must
// hold by the monotonic clock and by the wall clock. All databases must be healthy,
// and there must be at least one. If so, Run pings each target that is due and not
// rate-limited, and Beat pings each target that is not rate-limited. [Monitor.Beat]
// says when a target is rate-limited.
//
// # When it checks
//
// [Monitor.Run] checks at once and then at every start + k·Interval. A heartbeat that
// was not sent is tried again until it is sent or the next heartbeat is due. If a
// database was unhealthy, or if the request never left, the next try begins ten
// seconds after the last one. Otherwise it begins MinInterval after the last one.
// Heartbeats that were missed while the machine slept are not sent later. A heartbeat
// is due at once when time has jumped by ten seconds or more: the machine slept, the
// process stood still, or the clock was set. With a FailPinger, Run also looks at the
// databases when the database that synced longest ago becomes stale.
//
// # What a heartbeat does not prove
//
// A heartbeat means that every SyncReporter reported a sync in time. It does not mean
// that the replica can be restored. Test that with a restore.
package heartbeat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

const (
	// DefaultInterval is the time between two heartbeats if Options.Interval is zero.
	DefaultInterval = 5 * time.Minute

	// MinInterval is the shortest interval. It is also the shortest time between two
	// attempts on one target, unless the first never left. If Healthchecks.io gets
	// more than five pings in a minute, it may ignore the rest.
	MinInterval = time.Minute
)

// Errors of a [Monitor]; test for them with [errors.Is].
var (
	// ErrRunning is returned by Run while another Run has not returned.
	ErrRunning = errors.New("heartbeat: monitor is already running")

	// ErrDuplicatePath is returned by New and Add when two databases have the same path.
	ErrDuplicatePath = errors.New("heartbeat: duplicate database path")
)

// Options are the settings of a [Monitor]. A nil *Options, and the zero value,
// mean all defaults.
type Options struct {
	// Interval is the time between two heartbeats. If it is zero, DefaultInterval is
	// used. If it is shorter than MinInterval, MinInterval is used, and New logs a
	// warning.
	Interval time.Duration

	// MaxSyncAge is how old a database's last sync may be. If it is zero, the interval
	// is used. If it is negative, New returns an error. All databases of a Monitor have
	// the same MaxSyncAge. If databases need different ages, use a Monitor for each age,
	// each with a check of its own at the service. Never give two Monitors the same URL:
	// the heartbeats of one keep the check green when the other has stopped.
	MaxSyncAge time.Duration

	// Clock is the source of time. If it is nil, the system clock is used. If it is
	// set, Run waits for the pings of a check before it waits on the Clock: up to ten
	// seconds by the system's clock. So a test that sees Run wait knows that the check
	// is over.
	Clock Clock

	// Logger takes the log lines. If it is nil, the Monitor uses what slog.Default
	// returns when New is called. If a handler panics, its line is lost, and nothing
	// else happens. A handler that blocks holds up the check that logged the line.
	Logger *slog.Logger

	// FailPinger is pinged once when databases are lost, so that the service can alert at
	// once. A database is lost when it is unhealthy now and all databases were healthy at
	// the previous check. It is also lost when its last sync has become too old since the
	// previous check. Run looks at the databases when a last sync becomes too old, and not
	// only at the next heartbeat. A last sync in the future is no loss, and neither is one
	// that is too old only because time has jumped. No database is lost at the first check
	// of a Run, or at the first check of that database. ResultFromContext gives the reason.
	//
	// A signal that fails is tried again as a heartbeat is, until it is sent, a check finds
	// all databases healthy, a check finds no database, or a new Run begins. After a signal
	// was sent, the next can follow only when a check has found all databases healthy or a
	// new Run has begun.
	//
	// Heartbeats and failure signals are never in flight together, unless a Pinger ignores
	// its ctx. A heartbeat is cut short if a signal is due, and a signal if a heartbeat is
	// due. The service may receive the two in either order if the earlier one was cut short,
	// or timed out less than MinInterval before the later one began. So the later one is
	// then sent once more, MinInterval later.
	//
	// If FailPinger is nil, the service finds out by itself, after its period and grace.
	FailPinger Pinger

	// OnResult is called when a check has ended, for metrics. If it is nil, there are
	// no calls. Several calls may be made at once. If a ping is slow, the call for its
	// check can come after the calls for newer checks. To know the order, compare
	// Result.Time. OnResult may call any method of the Monitor. If it calls Beat, that
	// check is reported too. To stop endless recursion, the Monitor counts the calls of
	// OnResult, and starts again at zero when no call is in progress. After 100 calls it
	// reports no Beat. If OnResult panics, that is logged, and nothing else happens.
	OnResult func(Result)

	// Source returns further databases, beside those given to New and Add. It is for
	// a daemon that keeps its set of databases elsewhere: return the set as it is now.
	// If Source is nil, there are no further databases. A database that Source no
	// longer returns is no longer checked. Paths need not be unique: each reporter is
	// checked.
	//
	// Source is called at each check and each Status, from several goroutines, and must not
	// block. The Monitor reads the slice right after the call, and does not keep it.
	// While the Monitor reads it, another goroutine may call Source: so do not change a
	// slice that Source has returned. A nil in the slice, or a Source that panics, counts as
	// an unhealthy database with ReasonPanicked. Source must not call Beat.
	Source func() []SyncReporter
}

// A Monitor checks its databases and pings its targets. Create one with [New] or
// [Config.NewMonitor]. All its methods may be called from any goroutine at any
// time, also from an OnResult or a Pinger: no lock is held while an OnResult or a
// Pinger runs. A reporter, an Options.Source or a Clock may call Add and Remove. It may
// also call Status, but Status calls it again. It must not call Beat: that Beat would
// wait for the check that called it.
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

	// Whoever has put a value into looking, which is a channel, makes a look and owns the
	// fields from asked to slowLine. A mutex was rejected: Beat must give up when its ctx is
	// done, and the time of a synctest bubble stands still while a goroutine waits for a mutex.
	looking  chan struct{}
	asked    inquiry
	rooms    [2]look         // memory for the previous look and for the next
	slowLook *time.Timer     // when it fires, a line about a slow look is written; nil: the next look makes a new one
	slowLine <-chan struct{} // closed when that line has been written

	mu         sync.Mutex // guards what follows
	schedule   *schedule.Schedule
	added      map[string]uint64 // the numbers of the databases that were added, by path
	list       []database        // see databases
	count      uint64            // of additions and looks, which are numbered in one order
	before     *look             // the latest look that the next one may be compared with; nil: there was none
	started    uint64            // count when a Run last began or ended: looks made before that are not compared with
	flights    []*flight
	reports    int    // calls of onResult under way
	reported   int    // calls of onResult since the last moment without one under way
	last       Result // of the newest check that has ended
	lastLook   uint64 // the number of that check
	lastSentAt time.Time
	sentLook   uint64 // the number of the check to which lastSentAt belongs
}

// A target is a pinger with its names.
type target struct {
	pinger  Pinger
	logName func() string // "" if the pinger has no name; a function, so that fmt finds no URL in a Monitor
	name    string        // for errors and results
}

// New returns a Monitor that watches the databases of reporters and pings pinger,
// which may be a [MultiPinger]. There may be no reporters yet. If opts is nil, all
// defaults are used. New returns an error if a pinger or a reporter is nil (a nil
// pointer in a Pinger too), if two reporters have the same path ([ErrDuplicatePath]),
// if MaxSyncAge is negative, and if FailPinger is the pinger itself or requests its
// URL: a failure signal would then count as a heartbeat.
func New(pinger Pinger, reporters []SyncReporter, opts *Options) (*Monitor, error) {
	o := *cmp.Or(opts, &Options{})
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
		clock: cmp.Or[Clock](o.Clock, systemClock{}), systemClock: o.Clock == nil, logger: cmp.Or(o.Logger, slog.Default()),
		interval: cmp.Or(o.Interval, DefaultInterval), onResult: o.OnResult, source: o.Source,
		targets: targets, signals: signals, added: map[string]uint64{},
		woken: make(chan struct{}, 1), looking: make(chan struct{}, 1),
	}
	if m.interval < MinInterval {
		m.log(context.Background(), slog.LevelWarn, "heartbeat interval raised to the minimum",
			slog.Duration("interval", m.interval), slog.Duration("minimum", MinInterval))
		m.interval = MinInterval
	}
	m.maxSyncAge = cmp.Or(o.MaxSyncAge, m.interval)
	m.schedule = schedule.New(schedule.Settings{
		Interval: m.interval, Spacing: MinInterval, MaxSyncAge: m.maxSyncAge,
		Beats: len(targets), Signals: len(signals), SystemClock: m.systemClock,
	})
	return m
}

func newTargets(pinger Pinger) ([]target, error) {
	pingers := MultiPinger(pinger).(multiPinger)
	if len(pingers) == 0 {
		return nil, errors.New("heartbeat: MultiPinger has no pingers; give it at least one")
	}
	targets := make([]target, len(pingers))
	for i, p := range pingers {
		if isNilPinger(p) {
			return nil, errors.New("heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc")
		}
		url := logName(p)
		targets[i] = target{p, func() string { return url }, targetName(p, i)}
	}
	return targets, nil
}

// Format prints how many databases were added and how many targets there are, and
// nothing else of the Monitor. Package fmt calls it for all verbs but %T, %p and %w.
func (m *Monitor) Format(f fmt.State, _ rune) {
	m.mu.Lock()
	databases := len(m.added)
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
	if _, taken := m.added[path]; taken {
		return fmt.Errorf("%w: %s", ErrDuplicatePath, path)
	}
	if len(m.list) > 2*len(m.added) { // if nobody makes a check or calls Status, only this drops what was removed
		m.databases()
	}
	m.count++
	m.added[path], m.list = m.count, append(m.list, database{path, r, m.count})
	return nil
}

// Remove removes the database with that path, from the next check on, and reports
// whether there was one. A database that was added leaves only by Remove. A database
// that was closed stays, goes stale and is reported.
func (m *Monitor) Remove(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.added[path]
	delete(m.added, path)
	return ok
}

// Status asks the databases, and returns which of them are healthy now. It also returns
// the Result of the newest check that has ended. It never waits for a check or a ping.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	added := m.databases()
	m.mu.Unlock()
	q := inquiry{asking: new(atomic.Pointer[string])}
	q.list(added, m.source)
	q.ask()
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

// patience is how long a look may take, and how long a pinger may go on after its
// MinInterval, before a log line says so. If Options.Clock is set, it is also how long
// Run waits for the pings of a check.
const patience = 10 * time.Second

// maxUnfinished is how many checks of Run may be unfinished. A ping ends within
// MinInterval. So there are so many only if a pinger, a log handler or a callback hangs.
const maxUnfinished = 100

// Run checks and pings until ctx is done, and then returns nil. It returns
// [ErrRunning] if another Run has not returned yet. When the other Run has returned,
// Run may be called again. So a daemon that leads only for a time calls Run once for
// each term, with a ctx that ends with the term.
//
// Run blocks, and checks in its caller's goroutine. It pings in other goroutines.
// When ctx is done, Run waits for these goroutines and leaves none behind. So a
// pinger, a log handler or an OnResult that hangs then keeps Run from returning.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	start := m.clock.Now()
	m.mu.Lock()
	m.schedule.Start(start)
	m.started = m.count
	m.mu.Unlock()
	r := &runner{Monitor: m, unfinished: make(chan struct{}, maxUnfinished)}
	defer r.checks.Wait()
	defer func() {
		// Stop is called before the wait for the pings, because the schedule would take
		// that wait for a late wake-up.
		m.mu.Lock()
		m.schedule.Stop()
		m.started = m.count
		m.mu.Unlock()
	}()
	for ctx.Err() == nil {
		now := m.clock.Now()
		m.mu.Lock()
		action, wake := m.schedule.Next(now)
		m.mu.Unlock()
		if action == schedule.Wait {
			r.wait(ctx, now, wake)
		} else {
			r.check(ctx, action)
		}
	}
	return nil
}

// A beat is made in these steps. Run asks the schedule what is due, and calls check.
// check calls look. look calls ask (in checker.go), which asks and judges the databases.
// Then look calls decide, in which the schedule reserves the attempts. Beside the loop,
// finish calls ping (both in delivery.go). ping calls deliver for each attempt. deliver
// calls the pinger (callPinger, in pinger.go) and tells the schedule what became of the
// attempt (settle). Then ping calls logDelivery (in log.go), which writes the line.

// A runner is the state of one Run.
type runner struct {
	*Monitor
	timer      <-chan time.Time // the clock's channel that Run waits on; nil: none is outstanding
	timerAt    time.Time
	checks     sync.WaitGroup
	unfinished chan struct{} // has one value for each unfinished check
	lines      runLines
}

// check makes a check. It makes the look itself. What follows from the look goes on
// beside the loop.
func (r *runner) check(ctx context.Context, action schedule.Action) {
	select {
	case r.unfinished <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c := &check{action: action}
	r.look(ctx, c, &r.lines)
	done := make(chan struct{})
	r.checks.Go(func() {
		defer close(done)
		defer func() { <-r.unfinished }()
		r.finish(ctx, c)
	})
	if r.systemClock {
		return
	}
	// A test moves its clock when it sees that Run waits on that clock. So the check
	// must be over before Run waits.
	select {
	case <-done:
	case <-time.After(patience):
	case <-ctx.Done():
	}
}

// wait waits until wake, or until a Beat or a settled ping has changed what is due.
// If a channel of the clock is outstanding, wait asks for another only if the first
// would fire too late: some fake clocks count the channels that were given up.
func (r *runner) wait(ctx context.Context, now, wake time.Time) {
	if r.timer == nil || wake.Before(r.timerAt) {
		r.timer, r.timerAt = r.clock.After(wake.Sub(now)), wake
	}
	select {
	case <-ctx.Done():
	case <-r.timer:
		r.timer = nil
		if r.timerAt.Sub(r.clock.Now()) >= schedule.RetryPause {
			r.mu.Lock()
			r.schedule.Owe()
			r.mu.Unlock()
		}
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
// all databases are healthy. It blocks until the pings are done. If all targets are
// rate-limited, the Result is Skipped with [ReasonRateLimited]. If ctx is done before
// the pings begin, the Result is Failed with the error of ctx.
//
// A target is rate-limited for [MinInterval] after the start of an attempt, or for ten
// seconds if that attempt never left. It is also rate-limited while a ping is in
// flight, and for as long as a Retry-After asks. Attempts of Run count as well as
// attempts of Beat.
//
// One check at a time asks the databases. Beat waits for its turn until ctx is done.
func (m *Monitor) Beat(ctx context.Context) Result {
	c := check{action: schedule.Beat}
	m.look(ctx, &c, &runLines{looked: true})
	m.wakeRun() // Run may now have something to do earlier
	return m.finish(ctx, &c)
}

// A check is a look and what follows from it.
type check struct {
	verdict
	action   schedule.Action // why it is made
	number   uint64          // of the look
	plan     schedule.Plan
	flight   *flight // nil: nothing is pinged
	result   Result
	slowLine <-chan struct{} // closed when the line about a slow look has been written; nil: the look was not slow

	// The levels of a skipped check's log lines. skipLevel is for the line about the
	// first unhealthy database, or about no database. panicLevels has one level for each
	// unhealthy database, for the line about its panic.
	skipLevel   slog.Level
	panicLevels []slog.Level
}

// look asks the databases, judges them, and reserves the attempts. Looks are made one
// at a time, so that the schedule gets their verdicts in the order in which they were
// made. look writes no log line: a handler may block, and then no other look could
// begin.
func (m *Monitor) look(ctx context.Context, c *check, lines *runLines) {
	select {
	case m.looking <- struct{}{}:
		defer m.endLook(c)
	case <-ctx.Done():
	}
	c.result.Time = m.clock.Now()
	if ctx.Err() == nil {
		m.ask(c)
	}
	ended := ctx.Err()
	if ended == nil {
		m.decide(ctx, c)
	}
	if ended != nil && c.result.Outcome != Skipped {
		c.result.Outcome, c.result.Err = Failed, fmt.Errorf("heartbeat: not sent: %w", ended)
	}
	if !c.forgotten() {
		lines.setLevels(c)
	}
}

// forgotten reports whether a check makes no log line and no call of OnResult, and is
// not kept for Status: it is a peek whose look found nothing wrong.
func (c *check) forgotten() bool { return c.action == schedule.Peek && c.result.Outcome != Skipped }

// endLook lets the next look begin. It drops the references to the databases, so that
// a database that was removed can be garbage-collected. It settles attempts that will not
// be made. Otherwise their targets would never be pinged again.
func (m *Monitor) endLook(c *check) {
	if c.flight == nil && len(c.plan.Attempts) > 0 { // a method of ctx has panicked
		m.mu.Lock()
		for _, a := range c.plan.Attempts {
			m.schedule.Settle(c.now, a, schedule.Outcome{NotSent: true})
		}
		m.mu.Unlock()
	}
	clear(m.asked.sourced)
	m.asked.dbs = nil
	<-m.looking
}

// decide tells the schedule the verdict, and reserves the attempts that the schedule
// allows. Heartbeats and failure signals exclude each other, so that the last ping that
// reaches the service says what is true.
func (m *Monitor) decide(ctx context.Context, c *check) {
	v := schedule.Verdict{Healthy: c.healthy(), None: c.databases == 0}
	m.mu.Lock()
	if m.signals != nil {
		v.Lost = m.lost(c)
		v.Fresh = c.fresh
	}
	c.plan = m.schedule.Decide(c.now, v, c.action)
	if c.plan.Cut {
		cut := slices.DeleteFunc(slices.Clone(m.flights), func(f *flight) bool {
			return f.Signal == c.plan.Signal || f.ctx.Err() != nil // a flight that was cut before is not waited for again
		})
		m.mu.Unlock()
		hangUp(cut)
		now := m.nowOr(c.now)
		m.mu.Lock()
		if !c.healthy() || now.Sub(c.now) <= c.fresh { // otherwise a database has become stale meanwhile: send no heartbeat
			m.schedule.Reserve(now, &c.plan)
		}
	}
	m.mu.Unlock()
	if len(c.plan.Attempts) > 0 {
		c.flight = newFlight(ctx, c)
		m.mu.Lock()
		m.flights = append(m.flights, c.flight)
		m.mu.Unlock()
	}
}
