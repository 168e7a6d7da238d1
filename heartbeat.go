// Package heartbeat supervises replication. It watches when each database last
// synced. While all of them are fresh it pings a dead man's switch, such as
// Healthchecks.io, Cronitor, Better Stack, Dead Man's Snitch or any URL that takes
// a GET. When a database goes stale, the [Monitor] stops pinging. The service
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
// and there must be at least one. Then each target is pinged, unless an attempt on
// it that may have left began less than [MinInterval] ago.
//
// # When it checks
//
// [Monitor.Run] checks at once and then at every start + k·Interval. A heartbeat that
// was not sent is tried again until it is sent or the next one is due. If a database
// was unhealthy, or if the request never left, the next try begins ten seconds after
// the last one. Otherwise it begins MinInterval after the last one. Heartbeats that
// were missed while the machine slept are not made up for. A heartbeat is due at once
// when time has jumped by ten seconds or more: the machine slept, the process stood
// still, or the clock was set. With a FailPinger, Run also looks at the databases when
// the one that synced longest ago becomes stale.
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
	// attempts on one target, unless the first never left. Healthchecks.io may ignore
	// more than five pings a minute.
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
	// is used. If it is negative, New returns an error. It holds for all databases of
	// a Monitor. If databases need different ages, use a Monitor for each age, each
	// with a check of its own at the service. Never give two Monitors the same URL: the
	// heartbeats of one hide the silence of the other.
	MaxSyncAge time.Duration

	// Clock is the source of time. If it is nil, the system clock is used. If it is
	// set, Run waits for the pings of a check before it waits on the Clock: up to ten
	// seconds by the system's clock. So a test that sees Run wait knows that the check
	// is over.
	Clock Clock

	// Logger takes the log lines. If it is nil, the Monitor uses what slog.Default
	// returns when New is called. If a handler panics, its line is lost, and nothing
	// else happens. A handler that blocks holds up the check that it belongs to.
	Logger *slog.Logger

	// FailPinger is pinged once when databases are lost, so that the service can alert at
	// once. A database is lost when it is unhealthy now and all databases were healthy at
	// the check before, or when its last sync has become too old since the check before.
	// Run looks when a last sync becomes too old, and not only at the next heartbeat. A
	// last sync in the future is no loss. No database is lost at the first check of a Run,
	// or at the first check of that database. ResultFromContext gives the reason.
	//
	// A signal that fails is tried again as a heartbeat is, until it is sent or a check
	// finds all databases healthy. The next signal can follow only after a check has found
	// all databases healthy. Heartbeats and failure signals are never in flight together,
	// unless a Pinger ignores its ctx. If one of the two was cut short for the other, or
	// timed out less than MinInterval before the other began, the later one is sent once
	// more, MinInterval later. The service may have received them in either order.
	//
	// If FailPinger is nil, the service finds out by itself, after its period and grace.
	FailPinger Pinger

	// OnResult is called when a check has ended, for metrics. If it is nil, there are
	// no calls. Several calls may be made at once, and a slow ping can make the call
	// for its check come after those for newer checks: compare Result.Time. OnResult
	// may call any method of the Monitor. If it calls Beat, that check is reported too.
	// To stop endless recursion, a Beat is not reported if 100 calls have been made
	// since the last moment at which none was in progress. If OnResult panics, that is
	// logged, and nothing else happens.
	OnResult func(Result)

	// Source returns further databases, beside those given to New and Add. It is for
	// a daemon that keeps its set of databases elsewhere: return the set as it is now.
	// If Source is nil, there are no further databases. A database that Source no
	// longer returns is no longer checked. Paths need not be unique: each reporter is
	// checked.
	//
	// Source is called at each check and each Status, from several goroutines, and must not
	// block. The Monitor reads the slice right after the call, and does not keep it.
	// Another goroutine may call Source in the meantime. A nil in the slice, or a Source
	// that panics, counts as an unhealthy database with ReasonPanicked. Source must not
	// call Beat.
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

	// Whoever has put a value into looking makes a look, and owns these. A channel
	// and not a mutex, so that Beat can give up with its ctx, and so that the time of
	// a synctest bubble goes on.
	looking  chan struct{}
	asked    inquiry
	sourced  []database      // room for what source returns
	rooms    [2]look         // for the look before, and for the next
	slowLook *time.Timer     // has a line written about a slow look; nil: the next look makes one
	slowLine <-chan struct{} // closed when that has been written

	mu         sync.Mutex // guards what follows
	schedule   *schedule.Schedule
	added      map[string]uint64 // the numbers of the databases that were added, by path
	list       []database        // see databases
	count      uint64            // of additions and looks, which are numbered in one order
	before     *look             // the latest of this Run, or of Beats without one; nil: none yet
	flights    []*flight
	reports    int    // calls of onResult under way
	reported   int    // calls since none was under way
	last       Result // what the newest check to end came to
	lastLook   uint64 // its number
	lastSentAt time.Time
	sentLook   uint64 // the number of the check that lastSentAt is of
}

// A target is a pinger with its names.
type target struct {
	pinger  Pinger
	logName func() string // "" if it has none; a function, so that fmt finds no URL in a Monitor
	name    string        // for errors and results
}

// New returns a Monitor that watches the databases of reporters and pings pinger,
// which may be a [MultiPinger]. There may be no reporters yet. If opts is nil, all
// defaults are used. New returns an error if a pinger or a reporter is nil (a nil
// pointer in a Pinger too), if two reporters have the same path ([ErrDuplicatePath]),
// if MaxSyncAge is negative, and if FailPinger is the pinger itself or requests its
// URL: that would answer an outage with a heartbeat.
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

// Format prints how much the Monitor watches, and none of its state, for every
// verb of package fmt.
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
	if len(m.list) > 2*len(m.added) { // else a set that nobody looks at would grow for ever
		m.databases()
	}
	m.count++
	m.added[path], m.list = m.count, append(m.list, database{path, r, m.count})
	return nil
}

// Remove removes the database with that path, from the next check on, and reports
// whether there was one. A database that was added leaves only by Remove. One that
// was closed stays, goes stale and is reported.
func (m *Monitor) Remove(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.added[path]
	delete(m.added, path)
	return ok
}

// Status judges the databases now. It also returns the Result of the newest check that has
// ended. It never waits for a check or a ping.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	added := m.databases()
	m.mu.Unlock()
	q := inquiry{asking: new(atomic.Pointer[string])}
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
// [ErrRunning] if another Run has not returned yet. When that has returned, Run may
// be called again. So a daemon that leads only for a time calls Run once for each
// term, with a ctx that ends with the term.
//
// Run blocks, and checks in its caller's goroutine. It pings in goroutines of their
// own. When ctx is done, Run waits for these and leaves nothing behind. So a pinger,
// a log handler or an OnResult that hangs then keeps Run from returning.
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
	r := &runner{Monitor: m, unfinished: make(chan struct{}, maxUnfinished)}
	defer r.checks.Wait()
	defer func() {
		// Stop comes before the wait for the pings, because that wait would look like a
		// late wake-up.
		m.mu.Lock()
		m.schedule.Stop()
		m.before = nil
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

// A beat takes this way. Run asks the schedule what is due, and calls check. That calls
// look, which asks and judges the databases (ask, in checker.go), and has the schedule
// reserve the attempts (decide). Beside the loop, finish calls ping (both in delivery.go).
// For each attempt, ping calls deliver, which calls the pinger (callPinger, in pinger.go)
// and tells the schedule what became of it (settle). Then ping has the line written
// (logDelivery, in log.go).

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
	// A test moves its clock when it sees that Run waits on it. By then the check
	// must be over.
	select {
	case <-done:
	case <-time.After(patience):
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
		if r.timerAt.Sub(r.clock.Now()) >= schedule.RetryPause {
			r.mu.Lock()
			r.schedule.OweNow()
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
// flight, and for as long as a Retry-After asks. An attempt of Run counts as one of
// Beat does.
//
// One check at a time asks the databases. Beat waits for its turn until ctx is done.
func (m *Monitor) Beat(ctx context.Context) Result {
	c := check{action: schedule.Beat}
	m.look(ctx, &c, &runLines{looked: true})
	m.wakeRun() // it may have something to do earlier
	return m.finish(ctx, &c)
}

// A check is a look with what follows from it.
type check struct {
	verdict
	action   schedule.Action // why it is made
	number   uint64          // of the look
	plan     schedule.Plan
	flight   *flight // nil: nothing is pinged
	result   Result
	slowLine <-chan struct{} // closed when the line about a slow look has been written; nil: it was not slow

	// The levels of the lines of a skipped check: of the first, and of the panic of each
	// unhealthy database.
	skipLevel   slog.Level
	panicLevels []slog.Level
}

// look asks the databases, judges them, and reserves the attempts. Looks are made
// one at a time, so that their verdicts are told in the order in which they were
// made. It writes no log line: a handler may block, and all looks with it.
func (m *Monitor) look(ctx context.Context, c *check, lines *runLines) {
	select {
	case m.looking <- struct{}{}:
		defer m.endLook()
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

// forgotten reports whether nothing is told of a check: it is a peek that finds none
// unhealthy.
func (c *check) forgotten() bool { return c.action == schedule.Peek && c.result.Outcome != Skipped }

// endLook lets the next look begin. A database that is gone must not be kept alive.
func (m *Monitor) endLook() {
	clear(m.sourced)
	m.asked.dbs = nil
	<-m.looking
}

// decide tells the schedule the verdict, and reserves the attempts that it allows.
// Heartbeats and failure signals exclude each other, so that the last word at the
// service is the true one.
func (m *Monitor) decide(ctx context.Context, c *check) {
	v := schedule.Verdict{Healthy: c.healthy(), None: c.databases == 0}
	m.mu.Lock()
	if len(m.signals) > 0 {
		v.Lost = m.lost(c)
		v.Fresh = c.fresh
	}
	c.plan = m.schedule.Decide(c.now, v, c.action)
	if c.plan.Cut {
		cut := slices.DeleteFunc(slices.Clone(m.flights), func(f *flight) bool {
			return f.Signal == c.plan.Signal || f.ctx.Err() != nil // one that was cut before is not waited for again
		})
		m.mu.Unlock()
		hangUp(cut)
		now := m.nowOr(c.now)
		m.mu.Lock()
		if !c.healthy() || now.Sub(c.now) <= c.fresh { // else a last sync has run out meanwhile
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
