// Package heartbeat supervises replication: it watches when each database last
// synced, and while all of them are fresh it pings a dead man's switch, such as
// Healthchecks.io, Cronitor, Better Stack, Dead Man's Snitch or any URL that
// takes a GET. When one goes stale the [Monitor] stays silent, the service
// misses a beat, and somebody is told.
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
//		db := heartbeat.NewSyncTracker("/data/app.db") // or a *litestream.DB
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
// must be at least one; then each target is pinged unless an attempt on it
// started less than [MinInterval] ago.
//
// # When it checks
//
// [Monitor.Run] checks at once and then at every start + k·Interval. A beat that
// did not get out is tried again one MinInterval later, until it is out or the
// next beat is due. Beats that were missed while the machine slept are dropped.
//
// # What a heartbeat does not prove
//
// It says that each SyncReporter reported a sync in time. Whether what was synced
// can be restored, only a restore proves.
package heartbeat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
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
	// returns when New is called.
	Logger *slog.Logger

	// FailPinger is told once when databases that were healthy turn unhealthy, so
	// that the service can alert at once. An attempt that fails is made again at
	// the following checks, until one is out or those databases have recovered or
	// been removed. A database counts once it took part in a check that found all
	// healthy: not at start-up, nor one that is added and does not sync yet.
	// nil: the service finds out by itself, after its period and grace.
	FailPinger Pinger

	// OnResult is called after each check, for metrics, by the goroutine that
	// made it: so several calls may be under way at once, and Run waits for its
	// own. It may call any method of the Monitor; a Beat in it is reported to
	// OnResult in turn. Since that would never end where each call makes one, a
	// check that ends while 100 calls are under way is not reported. A panic in
	// it is logged, and nothing else happens. nil: no calls.
	OnResult func(Result)
}

// maxCallbacks is how many calls of OnResult may be under way.
const maxCallbacks = 100

// An Outcome says what became of a check. The zero Outcome is that of the zero
// [Result], which no check has.
type Outcome int

// The outcomes of a check.
const (
	Sent    Outcome = iota + 1 // each target that was due has taken the ping
	Skipped                    // nothing was pinged; Result.Reason says why
	Failed                     // at least one ping failed; Result.Err says why
)

// String returns "sent", "skipped" or "failed".
func (o Outcome) String() string {
	switch o {
	case Sent:
		return "sent"
	case Skipped:
		return "skipped"
	case Failed:
		return "failed"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// MarshalText returns the same text as String, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// A Result is what one check came to.
type Result struct {
	Time      time.Time        // when the check began, on the monitor's clock
	Outcome   Outcome          // what became of it
	Reason    Reason           // why it was skipped (the first unhealthy database's reason); empty otherwise
	Databases int              // how many were checked
	Unhealthy []DatabaseStatus // nil when all are healthy
	Err       error            // why it failed, the errors of several targets joined; nil otherwise
}

// MarshalJSON returns an object with lower-case keys, that leaves out what is
// empty and gives the error as text.
func (r Result) MarshalJSON() ([]byte, error) {
	var text string
	if r.Err != nil {
		text = r.Err.Error()
	}
	return json.Marshal(struct {
		Time      time.Time        `json:"time"`
		Outcome   Outcome          `json:"outcome"`
		Reason    Reason           `json:"reason,omitempty"`
		Databases int              `json:"databases"`
		Unhealthy []DatabaseStatus `json:"unhealthy,omitempty"`
		Err       string           `json:"error,omitempty"`
	}{r.Time, r.Outcome, r.Reason, r.Databases, r.Unhealthy, text})
}

// LogValue makes a Result a group in a log/slog line.
func (r Result) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", r.Outcome.String()), slog.Int("databases", r.Databases)}
	if r.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(r.Reason)), slog.Int("unhealthy", len(r.Unhealthy)))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	return slog.GroupValue(attrs...)
}

// Status is what a [Monitor] knows now.
type Status struct {
	Healthy    bool             `json:"healthy"`               // whether there are databases and all are healthy
	LastResult Result           `json:"last_result,omitzero"`  // of the latest check to end; zero: none has
	LastSentAt time.Time        `json:"last_sent_at,omitzero"` // when the latest ping that succeeded began; zero: none has
	Databases  []DatabaseStatus `json:"databases"`             // all of them, in the order they were added
}

// Config is what an operator writes; a daemon inlines it in its own
// configuration. The field tags are those of the usual YAML packages.
type Config struct {
	URL      string        `yaml:"heartbeat-url"`      // the service to ping; empty: none
	URLs     []string      `yaml:"heartbeat-urls"`     // further services, pinged alongside
	Interval time.Duration `yaml:"heartbeat-interval"` // zero: Options.Interval, and so DefaultInterval
	FailURL  string        `yaml:"heartbeat-fail-url"` // pinged once when databases turn unhealthy; empty: none
}

// Enabled reports whether there is a URL to ping.
func (c Config) Enabled() bool {
	return c.URL != "" || slices.ContainsFunc(c.URLs, func(u string) bool { return u != "" })
}

// NewMonitor returns a [Monitor] with an [HTTPPinger] for each of the URLs. What
// c sets takes the place of the like in opts, which is not modified and may be
// nil. Its errors name the key they are about and hold no URL; a Config that is
// not Enabled is one, and so is a URL that is given twice, since a service that
// is pinged twice a minute may ignore both, and a failure signal to a success
// URL would be a false green.
func (c Config) NewMonitor(reporters []SyncReporter, opts *Options) (*Monitor, error) {
	if !c.Enabled() {
		return nil, errors.New("heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off")
	}
	type setting struct{ key, url string }
	var settings []setting
	if c.URL != "" {
		settings = append(settings, setting{"heartbeat-url", c.URL})
	}
	for i, u := range c.URLs {
		settings = append(settings, setting{fmt.Sprintf("heartbeat-urls[%d]", i), u})
	}
	targets := len(settings)
	if c.FailURL != "" {
		settings = append(settings, setting{"heartbeat-fail-url", c.FailURL})
	}
	var pingers []Pinger
	for i, s := range settings {
		if first := slices.IndexFunc(settings, func(o setting) bool { return o.url == s.url }); first < i {
			return nil, fmt.Errorf("heartbeat: %s is the same URL as %s", s.key, settings[first].key)
		}
		p, err := newHTTPPinger(s.url, nil)
		if err != nil {
			return nil, fmt.Errorf("heartbeat: %s: %w", s.key, err)
		}
		pingers = append(pingers, p)
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if c.Interval != 0 {
		o.Interval = c.Interval
	}
	if c.FailURL != "" {
		o.FailPinger = pingers[targets]
	}
	return New(MultiPinger(pingers[:targets]...), reporters, &o)
}

// A Monitor checks its databases and pings its targets. Create one with [New] or
// [Config.NewMonitor]. All its methods may be called from any goroutine at any
// time, also from an OnResult, a reporter or a pinger: no lock is held while one
// of those runs. (A reporter that calls Status or Beat is asked by them in turn:
// it must see to it that this ends.)
type Monitor struct {
	clock      Clock
	logger     *slog.Logger
	interval   time.Duration
	maxSyncAge time.Duration
	onResult   func(Result)

	running   atomic.Bool
	callbacks atomic.Int32 // calls of onResult under way

	mu          sync.Mutex // guards what follows, and what the targets hold
	databases   []database // in the order they were added; see Remove for the gaps
	added       map[string]registration
	addedCount  uint64
	shared      bool // whether a check may still be reading the array of databases
	targets     []*target
	failTargets []*target
	lastResult  Result
	lastSentAt  time.Time

	// The failure signal is about databases that took part in a check that found
	// all healthy: those added up to healthyCount.
	healthyCount uint64
	lost         bool      // whether one of them is unhealthy, and so the signal due or out
	lostAt       time.Time // when the check began that found so
}

// A registration tells where in Monitor.databases a path stands, and how many
// had been added when it was.
type registration struct {
	index int
	count uint64
}

// A target is a pinger with the state of its beats.
type target struct {
	pinger  Pinger
	logName string // "" if it has none
	errName string // "" if it is the only one

	ready     time.Time // earliest time of the next attempt; zero: any
	notBefore time.Time // the same, as a Retry-After asked for
	pinging   bool
	missed    bool // whether the current beat, or failure signal, is still to get out
}

// New returns a Monitor of the databases that reporters report on, which may be
// none yet, and that pings pinger, which may be a [MultiPinger]. A nil opts means
// all defaults. It is an error if the pinger or a reporter is nil, if two
// reporters have one path ([ErrDuplicatePath]), or if MaxSyncAge is negative.
func New(pinger Pinger, reporters []SyncReporter, opts *Options) (*Monitor, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MaxSyncAge < 0 {
		return nil, fmt.Errorf("heartbeat: MaxSyncAge is negative (%v); use a positive one, or zero for the interval", o.MaxSyncAge)
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	m := &Monitor{
		clock:    o.Clock,
		logger:   o.Logger,
		interval: o.Interval,
		onResult: o.OnResult,
		added:    make(map[string]registration, len(reporters)),
	}
	var err error
	if m.targets, err = newTargets(pinger); err != nil {
		return nil, err
	}
	if o.FailPinger != nil {
		if m.failTargets, err = newTargets(o.FailPinger); err != nil {
			return nil, err
		}
	}
	for _, r := range reporters {
		if err := m.Add(r); err != nil {
			return nil, err
		}
	}
	switch {
	case m.interval == 0:
		m.interval = DefaultInterval
	case m.interval < MinInterval:
		m.logger.Warn("heartbeat interval raised to the minimum", "interval", m.interval, "minimum", MinInterval)
		m.interval = MinInterval
	}
	m.maxSyncAge = o.MaxSyncAge
	if m.maxSyncAge == 0 {
		m.maxSyncAge = m.interval
	}
	return m, nil
}

func newTargets(pinger Pinger) ([]*target, error) {
	pingers := flatten([]Pinger{pinger})
	if len(pingers) == 0 {
		return nil, errors.New("heartbeat: MultiPinger has no pingers; give it at least one")
	}
	targets := make([]*target, len(pingers))
	for i, p := range pingers {
		if p == nil {
			return nil, errors.New("heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc")
		}
		targets[i] = &target{pinger: p, logName: logName(p)}
		if len(pingers) > 1 {
			targets[i].errName = errorName(p, i)
		}
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
	m.addedCount++
	m.added[path] = registration{len(m.databases), m.addedCount}
	// A check in progress reads only the elements it has seen, so appending to
	// the array it shares is safe.
	m.databases = append(m.databases, database{path, r})
	return nil
}

// pathOf names r. One that cannot name itself, such as a nil pointer, is named
// by its type: it is reported at every check, rather than lost here.
func pathOf(r SyncReporter) (path string) {
	defer func() {
		if recover() != nil {
			path = fmt.Sprintf("%T", r)
		}
	}()
	return r.Path()
}

// Remove removes the database with that path, from the next check on, and
// reports whether there was one. It is the only way for a database to leave: one
// that was closed stays, goes stale and is reported.
func (m *Monitor) Remove(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.added[path]
	if !ok {
		return false
	}
	delete(m.added, path)
	if m.shared {
		m.databases = slices.Clone(m.databases)
		m.shared = false
	}
	m.databases[r.index] = database{}
	// Closing the gap at once would make it quadratic to remove many.
	if len(m.databases) > 2*len(m.added) {
		m.databases = slices.DeleteFunc(m.databases, func(db database) bool { return db.reporter == nil })
		for i, db := range m.databases {
			m.added[db.path] = registration{i, m.added[db.path].count}
		}
	}
	return true
}

// snapshot returns the databases, gaps included, for reading only; how many
// there are; and how many had ever been added.
func (m *Monitor) snapshot() (dbs []database, count int, addedCount uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shared = true
	return m.databases, len(m.added), m.addedCount
}

// Status judges the databases now, and tells what the latest check came to. It
// never waits for a ping in flight.
func (m *Monitor) Status() Status {
	c := newChecker(m.clock.Now(), m.maxSyncAge)
	c.all = true
	dbs, count, _ := m.snapshot()
	status := Status{Healthy: count > 0, Databases: make([]DatabaseStatus, 0, count)}
	for _, f := range c.check(dbs) {
		status.Databases = append(status.Databases, f.DatabaseStatus)
		status.Healthy = status.Healthy && f.Healthy()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	status.LastResult, status.LastSentAt = m.lastResult, m.lastSentAt
	status.LastResult.Unhealthy = slices.Clone(m.lastResult.Unhealthy)
	return status
}

// Run checks and pings until ctx is done, and then returns nil. It returns
// [ErrRunning] if another Run has not returned yet; once it has, Run may be
// called again. It uses the caller's goroutine, and nothing that it started
// outlives it: a pinger that ignores its ctx holds it up.
func (m *Monitor) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	defer m.closeIdleConnections()

	start := m.clock.Now()
	point := start // the grid point whose beat is current
	m.newBeat(start)
	for ctx.Err() == nil {
		result, judgedAt := m.check(ctx, true)
		for {
			now := m.clock.Now()
			if now.Before(point) {
				// The clock has no monotonic reading and was set back: the old
				// grid may be hours away.
				start, point = now, now
				m.newBeat(now)
			}
			wake := m.nextCheck(point.Add(m.interval), judgedAt, result.healthy())
			if now.Before(wake) {
				select {
				case <-ctx.Done():
				case <-m.clock.After(wake.Sub(now)):
				}
				if ctx.Err() != nil {
					return nil
				}
				continue // to look at the clock, and whether a Beat came between
			}
			if latest := start.Add(now.Sub(start).Truncate(m.interval)); latest.After(point) {
				point = latest
				m.newBeat(now)
			}
			break
		}
	}
	return nil
}

func (m *Monitor) closeIdleConnections() {
	for _, t := range slices.Concat(m.targets, m.failTargets) {
		if p, ok := t.pinger.(*HTTPPinger); ok && p != nil && p.endpoint != nil {
			p.CloseIdleConnections()
		}
	}
}

// newBeat makes every target owe a beat. One that is ready later than a minute
// from now was pinged before the clock was set back.
func (m *Monitor) newBeat(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.targets {
		t.missed = true
	}
	for _, t := range slices.Concat(m.targets, m.failTargets) {
		t.ready = earlier(t.ready, now.Add(MinInterval))
		t.notBefore = earlier(t.notBefore, now.Add(maxRetryAfter))
	}
}

// nextCheck returns when Run checks next, after a check that found the databases
// healthy or not at judgedAt: at the next grid point, or before it where a beat
// is to be tried again; but not while no target is ready for an attempt.
func (m *Monitor) nextCheck(next, judgedAt time.Time, healthy bool) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	retry := judgedAt.Add(MinInterval)
	missed := func(t *target) bool { return t.missed }
	if !healthy {
		if !slices.ContainsFunc(m.targets, missed) && !slices.ContainsFunc(m.failTargets, missed) {
			return next // a Beat got it out meanwhile
		}
		wake := earlier(next, retry)
		for _, t := range m.failTargets {
			if t.missed && !t.pinging {
				wake = later(wake, t.ready)
			}
		}
		return wake
	}
	// Run waits for the targets it retries. That must not cost the others their
	// next beat, so one that could still hang then, for as long as a ping may take
	// by default, is left to that beat.
	lastRetry := next
	if len(m.targets) > 1 {
		lastRetry = next.Add(-defaultTimeout)
	}
	var wake time.Time
	for i, t := range m.targets {
		ready := t.ready
		if t.pinging { // by a Beat, for longer than it may
			ready = later(ready, retry)
		}
		at := later(next, ready)
		if again := later(ready, t.notBefore); t.missed && again.Before(lastRetry) {
			at = again
		}
		if i == 0 || at.Before(wake) {
			wake = at
		}
	}
	return wake
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

// Beat makes one check now, and pings each target that is not rate-limited if
// all databases are healthy. It blocks until the pings are done. A target is
// rate-limited for [MinInterval] after the start of an attempt, whoever asked for
// that, while a ping is in flight, and for as long as a Retry-After asks; when
// all are, the Result is Skipped with [ReasonRateLimited]. When ctx is done
// before the ping, it is Failed with the error of ctx.
func (m *Monitor) Beat(ctx context.Context) Result {
	result, _ := m.check(ctx, false)
	return result
}

// maxCheckTime is how long a check may take for its verdict to hold when the ping
// goes out.
const maxCheckTime = time.Second

// check makes one check: it judges, and pings the targets that are ready or,
// with missedOnly, those of them that owe a beat. It also returns when the
// judgement was done, which is when attempts begin.
func (m *Monitor) check(ctx context.Context, missedOnly bool) (result Result, judgedAt time.Time) {
	result.Time = m.clock.Now()
	c := newChecker(result.Time, m.maxSyncAge)
	dbs, count, addedCount := m.snapshot()
	found := c.check(dbs)
	result.Databases = count
	judgedAt = m.clock.Now()
	if slow := judgedAt.Round(0).Sub(result.Time.Round(0)); slow > maxCheckTime || judgedAt.Sub(result.Time) > maxCheckTime {
		// A reporter blocked, or the machine slept: what was fresh may be stale.
		c = newChecker(judgedAt, m.maxSyncAge)
		found = c.check(dbs)
		judgedAt = m.clock.Now()
	}
	if count > 0 && len(found) == 0 {
		m.endOutage(result.Time, addedCount)
		m.beat(ctx, judgedAt, missedOnly, &result)
	} else {
		m.skip(ctx, found, &result)
		m.signal(ctx, judgedAt, &result)
	}
	m.mu.Lock()
	m.lastResult = result
	m.mu.Unlock()
	m.report(ctx, result)
	return result, judgedAt
}

// healthy reports whether the check found all databases healthy.
func (r *Result) healthy() bool {
	return r.Outcome != Skipped || r.Reason == ReasonRateLimited
}

// report calls OnResult.
func (m *Monitor) report(ctx context.Context, result Result) {
	if m.onResult == nil {
		return
	}
	defer m.callbacks.Add(-1)
	if m.callbacks.Add(1) > maxCallbacks {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			m.logger.LogAttrs(ctx, slog.LevelError, "heartbeat callback panicked", slog.String("panic", fmt.Sprint(v)))
		}
	}()
	m.onResult(result)
}

// beat pings the targets that are due, after a check that found all healthy.
func (m *Monitor) beat(ctx context.Context, now time.Time, missedOnly bool, result *Result) {
	if ctx.Err() != nil {
		result.Outcome, result.Err = Failed, fmt.Errorf("heartbeat: not sent: %w", ctx.Err())
		return
	}
	due, limited := m.reserve(m.targets, now, missedOnly)
	for _, t := range limited {
		m.logger.LogAttrs(ctx, slog.LevelDebug, "heartbeat skipped",
			t.withURL(slog.String("reason", string(ReasonRateLimited)))...)
	}
	if len(due) == 0 {
		result.Outcome, result.Reason = Skipped, ReasonRateLimited
		return
	}
	result.Outcome = Sent
	if err := m.ping(ctx, due, "heartbeat sent", "heartbeat failed"); err != nil {
		result.Outcome, result.Err = Failed, err
	}
}

// reserve records an attempt on each target that may be pinged now, before any
// request goes out: so no two are closer than MinInterval, whoever asks, and a
// failing endpoint is not hammered.
func (m *Monitor) reserve(targets []*target, now time.Time, missedOnly bool) (due, limited []*target) {
	debug := m.logger.Enabled(context.Background(), slog.LevelDebug)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range targets {
		switch {
		case missedOnly && !t.missed:
		case t.pinging || now.Before(t.ready) || now.Before(t.notBefore):
			if debug { // or nothing would read it
				limited = append(limited, t)
			}
		default:
			t.ready, t.pinging = now.Add(MinInterval), true
			due = append(due, t)
		}
	}
	return due, limited
}

// ping pings the targets at once, each with an outcome and a log line of its
// own, and joins what failed.
func (m *Monitor) ping(ctx context.Context, targets []*target, sent, failed string) error {
	// A pinger that hangs must not cost the next beat. The deadline is on the
	// system's clock, as the network is: a fake one cannot cut a real call short.
	pingCtx, cancel := context.WithTimeout(ctx, MinInterval)
	defer cancel()
	errs := make([]error, len(targets))
	pingAll(targets, func(i int, t *target) {
		pingOnce(pingCtx, t.pinger, func(err error) {
			wait, operator := advice(err)
			m.settle(t, err, wait)
			if err != nil && t.errName != "" {
				errs[i] = fmt.Errorf("%s: %w", t.errName, err)
			} else {
				errs[i] = err
			}
			m.logPing(ctx, t, err, operator, sent, failed)
		})
	})
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// settle records what became of an attempt.
func (m *Monitor) settle(t *target, err error, wait time.Duration) {
	now := m.clock.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	t.pinging = false
	if err != nil {
		if wait > 0 {
			t.notBefore = now.Add(wait)
		}
		return
	}
	t.missed = false
	if slices.Contains(m.targets, t) {
		m.lastSentAt = later(m.lastSentAt, t.ready.Add(-MinInterval))
	}
}

func (m *Monitor) logPing(ctx context.Context, t *target, err error, operator bool, sent, failed string) {
	switch {
	case err == nil:
		m.logger.LogAttrs(ctx, slog.LevelInfo, sent, t.withURL()...)
	case ctx.Err() != nil: // cut short, which says nothing of the target
	default:
		attrs := t.withURL()
		attrs = append(attrs, slog.Any("error", err))
		if operator {
			attrs = append(attrs, slog.String("hint", "will not mend itself: check the ping URL, and the check it names at the service"))
		}
		m.logger.LogAttrs(ctx, slog.LevelError, failed, attrs...)
	}
}

// withURL returns attrs and what the target calls itself.
func (t *target) withURL(attrs ...slog.Attr) []slog.Attr {
	if t.logName != "" {
		attrs = append(attrs, slog.String("url", t.logName))
	}
	return attrs
}

// skip tells why there is no heartbeat, after a check that did not find all
// healthy.
func (m *Monitor) skip(ctx context.Context, found []finding, result *Result) {
	result.Outcome, result.Reason = Skipped, ReasonNoDatabases
	if len(found) == 0 {
		m.logger.LogAttrs(ctx, slog.LevelWarn, "heartbeat skipped", slog.String("reason", string(ReasonNoDatabases)))
		return
	}
	result.Reason = found[0].Reason
	result.Unhealthy = make([]DatabaseStatus, len(found))
	for i, f := range found {
		result.Unhealthy[i] = f.DatabaseStatus
		if f.Reason == ReasonPanicked {
			m.logger.LogAttrs(ctx, slog.LevelError, "sync reporter panicked",
				slog.String("db", f.Path), slog.String("panic", fmt.Sprint(f.panicValue)))
		}
		level := slog.LevelDebug
		if i == 0 {
			level = slog.LevelWarn
		}
		if !m.logger.Enabled(ctx, level) {
			continue
		}
		attrs := []slog.Attr{slog.String("reason", string(f.Reason)), slog.String("db", f.Path)}
		if !f.LastSyncAt.IsZero() {
			attrs = append(attrs, slog.Time("last_sync", f.LastSyncAt))
		}
		if i == 0 && len(found) > 1 {
			attrs = append(attrs, slog.Int("unhealthy", len(found)), slog.Int("databases", result.Databases))
		}
		m.logger.LogAttrs(ctx, level, "heartbeat skipped", attrs...)
	}
}

// endOutage records that a check that began then found all databases healthy, of
// the first addedCount ever added.
func (m *Monitor) endOutage(began time.Time, addedCount uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.healthyCount = max(m.healthyCount, addedCount)
	if !began.Before(m.lostAt) { // else an unhealthy check overtook this one
		m.setLost(false)
	}
}

// signal sends the failure signal if it is due, after a check that did not find
// all healthy. Its outcome is told in the log
// only, since the Result is about the heartbeat.
func (m *Monitor) signal(ctx context.Context, now time.Time, result *Result) {
	m.mu.Lock()
	lost := slices.ContainsFunc(result.Unhealthy, m.wasHealthy)
	if lost {
		m.lostAt = later(m.lostAt, result.Time)
	}
	m.setLost(lost)
	m.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if due, _ := m.reserve(m.failTargets, now, true); len(due) > 0 {
		_ = m.ping(ctx, due, "heartbeat failure signal sent", "heartbeat failure signal failed")
	}
}

// setLost makes the failure signal due when databases are lost, and no longer due
// when they are not. It is called with m.mu held.
func (m *Monitor) setLost(lost bool) {
	if lost == m.lost {
		return
	}
	m.lost = lost
	for _, t := range m.failTargets {
		t.missed = lost
	}
}

// wasHealthy reports whether the database took part in a check that found all
// healthy. It is called with m.mu held.
func (m *Monitor) wasHealthy(s DatabaseStatus) bool {
	r, ok := m.added[s.Path]
	return ok && r.count <= m.healthyCount
}
