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
//				// … replicate, and then:
//				db.Record(time.Now())
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
// time, also from an OnResult, a Source, a reporter or a pinger: no lock is held
// while one of those runs. (A reporter or a Source that calls Status or Beat is
// asked by them in turn. It must see to it that this ends.)
type Monitor struct {
	clock      Clock
	logger     *slog.Logger
	interval   time.Duration
	maxSyncAge time.Duration
	onResult   func(Result)
	source     func() []SyncReporter
	targets    []target
	signals    []target // of FailPinger

	running   atomic.Bool
	woken     chan struct{} // has a value when Run must look at the schedule again
	callbacks atomic.Int32  // calls of onResult under way

	mu         sync.Mutex // guards what follows
	schedule   *schedule.Schedule
	set        databaseSet
	sourced    []database // room for what source returns, while no check uses it
	verdict    Result     // what the newest check to be judged found, before its pings
	last       Result     // what the newest check to end came to
	lastLook   uint64     // its number
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
// pinger, which may be a [MultiPinger]. There may be no reporters yet. A nil opts
// means all defaults. New returns an error where a pinger or a reporter is nil (a
// nil pointer in a Pinger too), where two reporters have one path
// ([ErrDuplicatePath]), where MaxSyncAge is negative, and where FailPinger is the
// pinger itself or requests its URL: that would answer an outage with a heartbeat.
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
		targets: targets, signals: signals, woken: make(chan struct{}, 1),
		set: databaseSet{index: map[string]registration{}},
	}
	if m.clock == nil {
		m.clock = systemClock{}
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
	if m.source != nil && len(signals) > 0 {
		m.set.sourced = map[string]sourcing{}
	}
	m.schedule = schedule.New(m.interval, MinInterval, len(targets), len(signals))
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
	if !m.set.add(database{path, r}) {
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
// never waits for a ping in flight.
func (m *Monitor) Status() Status {
	dbs, failure := m.snapshot(false)
	defer m.release(dbs.sourced)
	c := checker{all: true}
	c.begin(m.clock.Now(), m.maxSyncAge)
	status := Status{Healthy: dbs.count > 0, Interval: m.interval, Databases: make([]DatabaseStatus, 0, dbs.count)}
	for _, f := range slices.Concat(failure, c.judge(dbs)) {
		status.Databases = append(status.Databases, f.DatabaseStatus)
		status.Healthy = status.Healthy && f.Healthy()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	status.LastResult, status.LastSentAt = m.last.clone(), m.lastSentAt
	return status
}

// Run checks and pings until ctx is done, and then returns nil. It returns
// [ErrRunning] if another Run has not returned yet. Once that has, Run may be
// called again. It uses the caller's goroutine, waits for the pings that it makes,
// and leaves nothing behind when it returns: so a pinger that ignores its ctx
// holds it up.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	start := m.clock.Now()
	m.mu.Lock()
	m.schedule.Start(start)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.schedule.Stop()
		m.mu.Unlock()
	}()
	r := &runner{Monitor: m}
	for ctx.Err() == nil {
		now := m.clock.Now()
		switch action, wake := m.next(now); action {
		case schedule.Check:
			m.check(ctx, schedule.ByRun, r)
			r.looked = true
		case schedule.Peek:
			m.check(ctx, schedule.ByPeek, r)
		case schedule.Wait:
			r.wait(ctx, now, wake)
		}
	}
	return nil
}

// next asks the schedule what is due.
func (m *Monitor) next(now time.Time) (schedule.Action, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.schedule.Next(now)
}

// A runner is what one Run knows beside the Monitor.
type runner struct {
	*Monitor
	timer   <-chan time.Time // nil: none is outstanding
	timerAt time.Time
	looked  bool // at least once
	said    skipped
}

// wait waits until wake, or until a Beat has changed what is due. It asks the clock
// for a second channel while one is outstanding only if that would come too late:
// some fake clocks count those that were given up.
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

// wakeRun makes Run look at the schedule again.
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
// done before the ping, it is Failed with the error of ctx.
func (m *Monitor) Beat(ctx context.Context) Result {
	return m.check(ctx, schedule.ByBeat, nil)
}

// maxCheckTime is how long a check may take for its verdict to hold when the ping
// goes out.
const maxCheckTime = time.Second

// A judgement is what a look at the databases found.
type judgement struct {
	began, ended time.Time
	number       uint64 // of the look
	count        int    // of the databases
	found        []finding
	fresh        time.Duration // how long the healthy ones stay so; wanted for the failure signal only
}

func (j *judgement) healthy() bool { return j.count > 0 && len(j.found) == 0 }

// judge asks the databases. Where that took long, because a reporter or a Source
// blocked or the machine slept, what was fresh when it began may be stale: then it
// asks once more, and judges all that was said by the time at the end.
func (m *Monitor) judge(j *judgement) {
	j.began = m.clock.Now()
	dbs, failure := m.snapshot(true)
	c := checker{watch: len(m.signals) > 0}
	c.begin(j.began, m.maxSyncAge)
	j.found = c.judge(dbs)
	j.ended = m.clock.Now()
	// The monotonic clock stands still while the machine sleeps. By the wall clock,
	// whole seconds will do.
	if j.ended.Sub(j.began) > maxCheckTime || j.ended.Unix()-j.began.Unix() > int64(2*maxCheckTime/time.Second) {
		c.all = true
		said := c.judge(dbs)
		j.ended = m.clock.Now()
		c.begin(j.ended, m.maxSyncAge)
		j.found = c.rejudge(said)
	}
	j.number, j.count = dbs.number, dbs.count
	if failure != nil {
		j.found, j.count = append(failure, j.found...), j.count+1
	}
	if c.watch {
		j.fresh = c.fresh() - max(0, j.ended.Sub(c.now), j.ended.Round(0).Sub(c.now.Round(0)))
	}
	if m.source != nil {
		m.release(dbs.sourced)
	}
}

// snapshot returns the databases, those of Source included, and a finding if that
// panicked.
func (m *Monitor) snapshot(remember bool) (dbs snapshot, failure []finding) {
	var sourced []database
	if m.source != nil {
		sourced, failure = m.askSource()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set.snapshot(sourced, remember && failure == nil && m.set.sourced != nil), failure
}

func (m *Monitor) askSource() (sourced []database, failure []finding) {
	m.mu.Lock()
	sourced, m.sourced = m.sourced[:0], nil
	m.mu.Unlock()
	returned := false
	defer func() {
		if !returned {
			failure = []finding{{DatabaseStatus{Path: "Options.Source", Reason: ReasonPanicked}, recover(), isSource}}
		}
	}()
	reporters := m.source()
	returned = true
	for _, r := range reporters {
		if r == nil {
			r = nilReporter{}
		}
		sourced = append(sourced, database{pathOf(r), r})
	}
	return sourced, nil
}

// release gives the room for what Source returns back, for the next check.
func (m *Monitor) release(sourced []database) {
	clear(sourced) // a database that is gone must not be kept alive
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sourced = sourced
}

// check makes one check: it judges, reserves the attempts, pings, settles, and only
// then tells. A log handler or a callback may block or panic, and so must not run
// between a verdict and its pings. r is Run's; nil for a Beat.
func (m *Monitor) check(ctx context.Context, by schedule.By, r *runner) Result {
	var j judgement
	m.judge(&j)
	result := Result{Time: j.began, Databases: j.count}
	if !j.healthy() {
		result.skipFor(j.found)
	}
	var plan schedule.Plan
	done := ctx.Err()
	if done == nil {
		plan = m.decide(&j, by, &result)
	}
	switch {
	case result.Outcome == Skipped:
		m.skip(ctx, plan, j.found, r.level(plan.Beat, &result), &result)
	case by == schedule.ByPeek:
		return result // no check, as it turns out
	case done != nil:
		result.Outcome, result.Err = Failed, fmt.Errorf("heartbeat: not sent: %w", done)
	default:
		m.beat(ctx, by, plan, &result)
	}
	m.mu.Lock()
	if j.number >= m.lastLook {
		m.last, m.lastLook = result, j.number
		m.last.own()
	}
	m.mu.Unlock()
	m.report(ctx, &result)
	return result
}

// skipFor makes r the Result of a check that found these databases unhealthy, or none.
func (r *Result) skipFor(found []finding) {
	r.Outcome, r.Reason = Skipped, ReasonNoDatabases
	if len(found) == 0 {
		return
	}
	r.Reason = found[0].Reason
	r.Unhealthy = make([]DatabaseStatus, len(found))
	for i := range found {
		r.Unhealthy[i] = found[i].DatabaseStatus
	}
}

// decide tells the schedule the verdict, and returns what to do. Where a newer
// check has found a database unhealthy, the result is what that one found.
func (m *Monitor) decide(j *judgement, by schedule.By, result *Result) schedule.Plan {
	m.mu.Lock()
	defer m.mu.Unlock()
	verdict := schedule.Verdict{Number: j.number, Healthy: j.healthy(), Fresh: j.fresh}
	if len(m.signals) > 0 {
		verdict.Unhealthy = m.set.numbers(j.found)
	}
	plan := m.schedule.Judged(j.ended, &verdict, by)
	switch {
	case plan.Overtaken:
		*result = m.verdict.clone()
		result.Time = j.began
	case plan.Newest && result.Outcome == Skipped:
		m.verdict = result.clone()
	}
	if plan.Lost && by == schedule.ByBeat {
		m.wakeRun()
	}
	return plan
}

// beat pings the targets, each with a log line when it has answered.
func (m *Monitor) beat(ctx context.Context, by schedule.By, plan schedule.Plan, result *Result) {
	if len(plan.Attempts) < len(m.targets) {
		defer m.logRateLimited(ctx, by, plan)
	}
	if len(plan.Attempts) == 0 {
		result.Outcome, result.Reason = Skipped, ReasonRateLimited
		return
	}
	attempts := m.ping(ctx, m.targets, plan, result, func(o *outcome) {
		m.logPing(ctx, o, "heartbeat sent", "heartbeat failed")
	})
	result.Outcome = Sent
	var errs []error
	for _, o := range attempts {
		result.Targets = append(result.Targets, TargetResult{o.target.name, o.err})
		if o.err == nil {
			continue
		}
		result.Outcome, result.Err = Failed, o.err
		if len(m.targets) > 1 {
			errs = append(errs, fmt.Errorf("%s: %w", o.target.name, o.err))
		}
	}
	if errs != nil {
		result.Err = errors.Join(errs...)
	}
}

// skip sends the failure signal if that is due, and tells why there is no
// heartbeat.
func (m *Monitor) skip(ctx context.Context, plan schedule.Plan, found []finding, level slog.Level, result *Result) {
	signals := m.ping(ctx, m.signals, plan, result, func(*outcome) {})
	m.logSkipped(ctx, level, found, result)
	for i := range signals {
		m.logPing(ctx, &signals[i], "heartbeat failure signal sent", "heartbeat failure signal failed")
	}
}

// An outcome is what became of one attempt.
type outcome struct {
	target       target
	err          error
	hint         string
	firstFailure bool
}

// ping makes the plan's attempts, all at once, and settles each of them as soon as
// it has ended. Then it calls settled, from the goroutine of that attempt.
func (m *Monitor) ping(ctx context.Context, targets []target, plan schedule.Plan, result *Result, settled func(*outcome)) []outcome {
	if len(plan.Attempts) == 0 {
		return nil
	}
	// The deadline is on the system's clock, as the network is: a fake one cannot
	// cut a real call short.
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, resultKey{}, result.clone()), plan.Timeout)
	defer cancel()
	outcomes := make([]outcome, len(plan.Attempts))
	pingAll(len(plan.Attempts), func(i int) {
		a, o := plan.Attempts[i], &outcomes[i]
		o.target = targets[a.Target]
		o.err = callPinger(ctx, o.target.pinger)
		var came schedule.Outcome
		came, o.hint = classify(o.err)
		o.firstFailure = m.settle(a, came)
		settled(o)
	})
	return outcomes
}

// settle records what became of an attempt, and reports whether it is the first
// failure of its beat.
func (m *Monitor) settle(a schedule.Attempt, o schedule.Outcome) bool {
	now := m.nowOr(a.Began)
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.Sent && !a.Signal && a.Look >= m.sentLook {
		m.lastSentAt, m.sentLook = a.Began, a.Look
	}
	if a.By == schedule.ByBeat {
		m.wakeRun()
	}
	return m.schedule.Settle(now, a, o)
}

// nowOr returns the time, or the given one where the clock panics: an attempt must
// be settled all the same.
func (m *Monitor) nowOr(fallback time.Time) (now time.Time) {
	read := false
	defer func() {
		if !read {
			_ = recover()
			now = fallback
		}
	}()
	now = m.clock.Now()
	read = true
	return now
}

// maxCallbacks is how many calls of OnResult may be under way.
const maxCallbacks = 100

// report calls OnResult.
func (m *Monitor) report(ctx context.Context, result *Result) {
	if m.onResult == nil {
		return
	}
	defer m.callbacks.Add(-1)
	if m.callbacks.Add(1) > maxCallbacks {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			m.log(ctx, slog.LevelError, "heartbeat callback panicked", slog.String("panic", fmt.Sprint(v)))
		}
	}()
	m.onResult(result.clone())
}
