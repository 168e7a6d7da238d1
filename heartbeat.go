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
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

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

// An Outcome says what became of a check. The zero Outcome is that of the zero
// [Result], and of one from [ResultFromContext] whose ping is under way.
type Outcome int

// The outcomes of a check.
const (
	Sent    Outcome = iota + 1 // each target that was due has taken the ping
	Skipped                    // nothing was pinged; Result.Reason says why
	Failed                     // at least one ping failed; Result.Err says why
)

var outcomes = [...]string{Sent: "sent", Skipped: "skipped", Failed: "failed"}

// String returns "sent", "skipped" or "failed".
func (o Outcome) String() string {
	if o >= Sent && o <= Failed {
		return outcomes[o]
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// MarshalText returns the same text as String, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText sets o to the Outcome that String gives that text for. It returns
// an error for any other text.
func (o *Outcome) UnmarshalText(text []byte) error {
	for known := range Failed + 1 {
		if known.String() == string(text) {
			*o = known
			return nil
		}
	}
	return fmt.Errorf("heartbeat: %.20q is not an outcome; it must be sent, skipped or failed", text)
}

// A Result is what one check came to.
type Result struct {
	Time      time.Time        // when the check began, on the monitor's clock
	Outcome   Outcome          // what became of it
	Reason    Reason           // why it was skipped (the first unhealthy database's reason); empty otherwise
	Databases int              // how many were checked
	Unhealthy []DatabaseStatus // nil when all are healthy
	Err       error            // why it failed, the errors of several targets joined; nil otherwise
	Targets   []TargetResult   // what each target that was pinged came to; nil when none was
}

// A TargetResult is what one ping of one target came to.
type TargetResult struct {
	// Name is HTTPOptions.Name, or else the scheme and host of a URL, what a
	// fmt.Stringer returns, or "target" and its position.
	Name string
	Err  error // nil: it has arrived
}

type resultKey struct{}

// ResultFromContext returns the [Result] that a ping is about, from the ctx that a
// [Monitor] gives to Ping, and whether there is one. A failure signal's has the
// unhealthy databases. A heartbeat's has no Outcome yet.
func ResultFromContext(ctx context.Context) (Result, bool) {
	r, ok := ctx.Value(resultKey{}).(Result)
	return r.clone(), ok
}

// String returns the Result in one line, for people: for example
//
//	last sync too old: /data/app.db, last sync 2026-01-01T00:00:00Z (1 of 7 databases)
//
// A control character in a path or an error is shown as a space.
func (r Result) String() string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, r.text())
}

func (r Result) text() string {
	switch {
	case len(r.Unhealthy) > 0:
		text := fmt.Sprintf("%s: %s", r.Reason, r.Unhealthy[0].Path)
		if at := r.Unhealthy[0].LastSyncAt; !at.IsZero() {
			text += ", last sync " + at.UTC().Format(time.RFC3339)
		}
		return fmt.Sprintf("%s (%d of %s)", text, len(r.Unhealthy), r.databases())
	case r.Reason != "":
		return string(r.Reason)
	case r.Err != nil:
		return fmt.Sprintf("heartbeat failed: %v", r.Err)
	}
	return r.databases() + " in sync"
}

func (r Result) databases() string {
	if r.Databases == 1 {
		return "1 database"
	}
	return strconv.Itoa(r.Databases) + " databases"
}

// own gives r slices of its own: a caller may change those of its Result.
func (r *Result) own() {
	if r.Unhealthy != nil || r.Targets != nil {
		r.Unhealthy, r.Targets = slices.Clone(r.Unhealthy), slices.Clone(r.Targets)
	}
}

func (r Result) clone() Result {
	r.own()
	return r
}

// public returns r with errors that may be shown to strangers.
func (r Result) public() Result {
	if r.Err == nil {
		return r
	}
	var texts []string
	for i, t := range r.Targets {
		if t.Err != nil {
			r.Targets[i].Err = errors.New(publicText(t.Err))
			texts = append(texts, t.Name+": "+r.Targets[i].Err.Error())
		}
	}
	if texts == nil {
		texts = []string{publicText(r.Err)}
	}
	r.Err = errors.New(strings.Join(texts, "\n"))
	return r
}

// The JSON forms of Result and TargetResult. Errors are texts.
type (
	resultJSON struct {
		Time      time.Time        `json:"time"`
		Outcome   Outcome          `json:"outcome"`
		Reason    Reason           `json:"reason,omitempty"`
		Databases int              `json:"databases"`
		Unhealthy []DatabaseStatus `json:"unhealthy,omitempty"`
		Err       string           `json:"error,omitempty"`
		Targets   []targetJSON     `json:"targets,omitempty"`
	}
	targetJSON struct {
		Name string `json:"name"`
		Err  string `json:"error,omitempty"`
	}
)

// MarshalJSON returns an object with lower-case keys, that leaves out what is
// empty and gives errors as texts.
func (r Result) MarshalJSON() ([]byte, error) {
	var targets []targetJSON
	for _, t := range r.Targets {
		targets = append(targets, targetJSON{t.Name, textOf(t.Err)})
	}
	return json.Marshal(resultJSON{r.Time, r.Outcome, r.Reason, r.Databases, r.Unhealthy, textOf(r.Err), targets})
}

// UnmarshalJSON reads what MarshalJSON wrote. The errors have their texts only.
func (r *Result) UnmarshalJSON(data []byte) error {
	var form resultJSON
	if err := json.Unmarshal(data, &form); err != nil {
		return fmt.Errorf("heartbeat: not the JSON form of a Result: %w", err)
	}
	*r = Result{form.Time, form.Outcome, form.Reason, form.Databases, form.Unhealthy, errorOf(form.Err), nil}
	for _, t := range form.Targets {
		r.Targets = append(r.Targets, TargetResult{t.Name, errorOf(t.Err)})
	}
	return nil
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func errorOf(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
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
	Interval   time.Duration    `json:"interval"`              // between two heartbeats: the one that counts, in JSON in nanoseconds
	LastResult Result           `json:"last_result,omitzero"`  // of the newest check that has ended; zero: none has
	LastSentAt time.Time        `json:"last_sent_at,omitzero"` // when the latest ping that succeeded began; zero: none has
	Databases  []DatabaseStatus `json:"databases"`             // all of them: those that were added, in that order, then those of Source
}

// Config is what an operator writes; a daemon inlines it in its own
// configuration. The field tags are those of the usual YAML packages.
//
// Ping URLs are credentials. So a Config prints as the keys that are set, without
// their values: with package fmt, log/slog and JSON. A struct that embeds a Config
// inherits that; give it methods of its own to print otherwise.
type Config struct {
	URL      string        `yaml:"heartbeat-url"`       // the service to ping; empty: none
	URLs     []string      `yaml:"heartbeat-urls"`      // further services, pinged alongside
	Interval time.Duration `yaml:"heartbeat-interval"`  // zero: Options.Interval, and so DefaultInterval
	FailURL  string        `yaml:"heartbeat-fail-url"`  // pinged once when databases turn unhealthy; empty: none
	FailBody string        `yaml:"heartbeat-fail-body"` // what FailURL is sent, by POST; "{reason}" in it stands for the reason; empty: a GET

	// HTTP is the daemon's own settings of the pingers of all these URLs, such as
	// the client and the timeout; FailBody takes the place of its Body. nil: all
	// defaults.
	HTTP *HTTPOptions `yaml:"-"`
}

// A ConfigError says what is wrong with one key of a [Config]. Find it with
// errors.As, as a *ConfigError. It holds no URL.
type ConfigError struct {
	Key string // such as heartbeat-url, or heartbeat-urls[1]
	Err error  // what is wrong, and what would be right
}

func (e *ConfigError) Error() string { return "heartbeat: " + e.Key + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error { return e.Err }

// Enabled reports whether there is a URL to ping.
func (c Config) Enabled() bool {
	return c.URL != "" || slices.ContainsFunc(c.URLs, func(u string) bool { return u != "" })
}

// Validate returns what is wrong with the keys that are set: a [*ConfigError] for
// each of them, joined. It is nil where NewMonitor would not complain of them, and
// where nothing is set: heartbeats are off then.
func (c Config) Validate() error {
	_, _, err := c.pingers()
	return err
}

// NewMonitor returns a [Monitor] with an [HTTPPinger] for each of the URLs. What
// c sets takes the place of the like in opts, which is not modified and may be
// nil. Its errors are those of Validate and of [New], and one where c is not
// Enabled.
func (c Config) NewMonitor(reporters []SyncReporter, opts *Options) (*Monitor, error) {
	pingers, fail, err := c.pingers()
	if err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return nil, errors.New("heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Interval = cmp.Or(c.Interval, o.Interval)
	if fail != nil {
		o.FailPinger = fail
	}
	return New(MultiPinger(pingers...), reporters, &o)
}

// A setting is a key of a Config with its URL.
type setting struct {
	key, url string
	body     string
}

// pingers makes a pinger for each URL, and returns all that is wrong with c.
func (c Config) pingers() (pingers []Pinger, fail Pinger, err error) {
	errs := c.problems()
	settings := c.settings()
	for i, s := range settings {
		var opts HTTPOptions
		if c.HTTP != nil {
			opts = *c.HTTP
		}
		opts.Body = cmp.Or(s.body, opts.Body)
		p, err := newHTTPPinger(s.url, &opts)
		first := slices.IndexFunc(settings, func(o setting) bool { return o.url == s.url })
		switch {
		case err != nil:
			errs = append(errs, &ConfigError{s.key, err})
		case first < i:
			// A service that is pinged twice a minute may ignore both, and a failure
			// signal to a success URL would be a false green.
			errs = append(errs, &ConfigError{s.key, fmt.Errorf("the same URL as %s; leave one of them out", settings[first].key)})
		case s.key == failURLKey:
			fail = p
		default:
			pingers = append(pingers, p)
		}
	}
	return pingers, fail, errors.Join(errs...)
}

const failURLKey = "heartbeat-fail-url"

func (c Config) settings() (settings []setting) {
	if c.URL != "" {
		settings = append(settings, setting{key: "heartbeat-url", url: c.URL})
	}
	for i, u := range c.URLs {
		settings = append(settings, setting{key: fmt.Sprintf("heartbeat-urls[%d]", i), url: u})
	}
	if c.FailURL != "" {
		settings = append(settings, setting{failURLKey, c.FailURL, c.FailBody})
	}
	return settings
}

// problems returns what is wrong with c beside its URLs.
func (c Config) problems() (errs []error) {
	wrong := func(key, text string) { errs = append(errs, &ConfigError{key, errors.New(text)}) }
	switch {
	case c.Interval < 0:
		wrong("heartbeat-interval", fmt.Sprintf("%v is negative; use a positive one such as 5m", c.Interval))
	case c.Interval > 0 && c.Interval < time.Millisecond:
		wrong("heartbeat-interval", fmt.Sprintf("%v is too short: the unit may be missing; write 5m for five minutes", c.Interval))
	}
	if c.FailURL != "" && !c.Enabled() {
		wrong(failURLKey, "set without a URL to ping; set heartbeat-url too")
	}
	if c.FailBody != "" && c.FailURL == "" {
		wrong("heartbeat-fail-body", "set without heartbeat-fail-url, which it would be sent to; set that too")
	}
	return errs
}

// shown is what may be printed of c: the keys that are set.
func (c Config) shown() string {
	var keys []string
	for _, s := range c.settings() {
		keys = append(keys, s.key)
	}
	if c.FailBody != "" {
		keys = append(keys, "heartbeat-fail-body")
	}
	if c.Interval != 0 {
		keys = append(keys, fmt.Sprintf("heartbeat-interval: %v", c.Interval))
	}
	return "heartbeat.Config{" + strings.Join(keys, ", ") + "}"
}

// Format prints the keys that are set without their values, for all verbs of fmt.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.shown()) }

// LogValue is the same for log/slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.shown()) }

// MarshalJSON is the same for encoding/json.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

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

// ServeHTTP answers a GET or HEAD with Status as JSON: 200 when the databases are
// healthy, and 503 when they are not. The answer is for strangers: it holds no ping
// URL, and of an error that is not from an [HTTPPinger] only what is known to be
// harmless. It does hold the paths of the databases.
func (m *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	status := m.Status()
	status.LastResult = status.LastResult.public()
	body, err := json.Marshal(status)
	if err != nil { // a time that JSON cannot hold
		http.Error(w, "the status cannot be shown as JSON", http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", "application/json")
	if !status.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // net/http drops it for HEAD
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

// A skipped is what a WARN line about a skipped beat says.
type skipped struct {
	beat      uint64
	reason    Reason
	path      string // of the first unhealthy database
	unhealthy int
}

// level returns the level of the line about a skipped beat. A Beat's is WARN. Run's
// further looks for one beat are DEBUG, unless what they say has changed; and so is
// its first look at databases that have not synced yet, since daemons start so.
func (r *runner) level(beat uint64, result *Result) slog.Level {
	if r == nil {
		return slog.LevelWarn
	}
	says := skipped{beat, result.Reason, "", len(result.Unhealthy)}
	if len(result.Unhealthy) > 0 {
		says.path = result.Unhealthy[0].Path
	}
	starting := !r.looked && says.unhealthy > 0 && !slices.ContainsFunc(result.Unhealthy, func(s DatabaseStatus) bool { return s.Reason != ReasonNotSynced })
	if starting || says == r.said {
		return slog.LevelDebug
	}
	r.said = says
	return slog.LevelWarn
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
		verdict := classify(o.err)
		o.hint = verdict.hint
		o.firstFailure = m.settle(a, schedule.Outcome{Sent: o.err == nil, NotSent: verdict.notSent, RetryAfter: verdict.retryAfter})
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

// log writes a line. A handler is foreign: where it panics, its line is lost, and
// nothing else.
func (m *Monitor) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	m.logger.LogAttrs(ctx, level, message, attrs...)
}

func (m *Monitor) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }()
	return m.logger.Enabled(ctx, level)
}

// logPing tells what became of a ping. The first failure of a beat is an ERROR, so
// that an outage is one a beat. A ping that was cut short by its caller's ctx says
// nothing of the target.
func (m *Monitor) logPing(ctx context.Context, o *outcome, sent, failed string) {
	if o.err == nil {
		m.log(ctx, slog.LevelInfo, sent, o.target.withURL()...)
		return
	}
	if ctx.Err() != nil {
		return
	}
	attrs := append(o.target.withURL(), slog.Any("error", o.err))
	if o.hint != "" {
		attrs = append(attrs, slog.String("hint", o.hint))
	}
	level := slog.LevelDebug
	if o.firstFailure {
		level = slog.LevelError
	}
	m.log(ctx, level, failed, attrs...)
}

// logSkipped tells why there is no heartbeat: a line about the first unhealthy
// database at the given level, and one about each other at DEBUG. A panic has an
// ERROR line of its own.
func (m *Monitor) logSkipped(ctx context.Context, level slog.Level, found []finding, result *Result) {
	if len(result.Unhealthy) == 0 {
		m.log(ctx, level, "heartbeat skipped", slog.String("reason", string(result.Reason)))
		return
	}
	for i, db := range result.Unhealthy {
		if db.Reason == ReasonPanicked && i < len(found) {
			m.log(ctx, slog.LevelError, "sync reporter panicked",
				slog.String("db", db.Path), slog.String("panic", fmt.Sprint(found[i].panicValue)))
		}
		if m.enabled(ctx, level) {
			m.log(ctx, level, "heartbeat skipped", result.skipAttrs(i)...)
		}
		level = slog.LevelDebug
	}
}

// skipAttrs returns what a line about the i-th unhealthy database says.
func (r *Result) skipAttrs(i int) []slog.Attr {
	db := r.Unhealthy[i]
	attrs := []slog.Attr{slog.String("reason", string(db.Reason)), slog.String("db", db.Path)}
	if !db.LastSyncAt.IsZero() {
		attrs = append(attrs, slog.Time("last_sync", db.LastSyncAt))
	}
	if i == 0 && len(r.Unhealthy) > 1 {
		attrs = append(attrs, slog.Int("unhealthy", len(r.Unhealthy)), slog.Int("databases", r.Databases))
	}
	return attrs
}

// logRateLimited names the targets that were not pinged though that was asked for,
// or owed.
func (m *Monitor) logRateLimited(ctx context.Context, by schedule.By, plan schedule.Plan) {
	if !m.enabled(ctx, slog.LevelDebug) {
		return
	}
	var limited []target
	m.mu.Lock()
	for i, t := range m.targets {
		pinged := slices.ContainsFunc(plan.Attempts, func(a schedule.Attempt) bool { return a.Target == i })
		if !pinged && (by == schedule.ByBeat || m.schedule.Owed(i)) {
			limited = append(limited, t)
		}
	}
	m.mu.Unlock()
	for _, t := range limited {
		m.log(ctx, slog.LevelDebug, "heartbeat skipped", t.withURL(slog.String("reason", string(ReasonRateLimited)))...)
	}
}

// withURL returns attrs and what the target calls itself.
func (t target) withURL(attrs ...slog.Attr) []slog.Attr {
	if t.url != "" {
		attrs = append(attrs, slog.String("url", t.url))
	}
	return attrs
}
