package heartbeat

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// A SyncReporter reports when a database, or anything else that is replicated, last synced.
// [SyncTracker] implements it. *litestream.DB, from github.com/benbjohnson/litestream,
// implements it too. But a *litestream.DB still reports syncs after its replica is gone,
// even while the database is written to.
//
// Both methods may be called from several goroutines at once. They must not call
// Monitor.Beat. If a reporter panics, its database is unhealthy, and the other
// databases are judged all the same.
type SyncReporter interface {
	// Path names the database in log lines, in a [DatabaseStatus] and in [Monitor.Remove].
	// New and Add call it once, and the path must be unique among the databases that they
	// are given. Path is called at each check and each Status on the reporters that
	// Options.Source returns.
	Path() string

	// LastSuccessfulSyncAt returns when the database was last known to be in sync, or
	// the zero time if it never was. LastSuccessfulSyncAt is called at each check and
	// each Status, and must not block.
	LastSuccessfulSyncAt() time.Time
}

// A SyncTracker is a ready-made [SyncReporter] for daemons that have no reporter of their
// own: call [SyncTracker.Record] after each sync. Create a SyncTracker with
// [NewSyncTracker]. Its methods may be called from any goroutine, and never wait for one
// another.
type SyncTracker struct {
	path   string
	lastAt atomic.Pointer[time.Time]
}

// NewSyncTracker returns a SyncTracker, not yet synced, for the database that
// path names.
func NewSyncTracker(path string) *SyncTracker {
	return &SyncTracker{path: path}
}

// Record says that the replica holds what the database held at the given time. Give the
// time at which the sync began, and not the time at which it ended: the replica may lack
// what was written in between. If a sync takes only a moment, time.Now() is near enough.
// The latest call counts, even if it gives an earlier time. The zero time means that the
// database is no longer known to have synced.
func (t *SyncTracker) Record(at time.Time) { t.lastAt.Store(&at) }

// Path returns the path given to NewSyncTracker.
func (t *SyncTracker) Path() string { return t.path }

// LastSuccessfulSyncAt returns the time last given to Record, or the zero time.
func (t *SyncTracker) LastSuccessfulSyncAt() time.Time {
	if at := t.lastAt.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// A Reason says why a heartbeat was skipped, or why a database is unhealthy. Its
// text is what the log shows. The Reason is empty if nothing was skipped and nothing
// is unhealthy.
type Reason string

// The reasons there are.
const (
	ReasonNotSynced   Reason = "database not synced"
	ReasonStale       Reason = "last sync too old"
	ReasonFuture      Reason = "last sync in the future"
	ReasonPanicked    Reason = "sync reporter panicked"
	ReasonNoDatabases Reason = "no databases"
	ReasonRateLimited Reason = "rate limited"
)

// DatabaseStatus is the verdict on one database.
type DatabaseStatus struct {
	Path       string    `json:"path"`
	LastSyncAt time.Time `json:"last_sync_at,omitzero"` // zero: never, or not known
	Reason     Reason    `json:"reason,omitempty"`      // why it is unhealthy; empty when healthy
}

// Healthy reports whether the database has synced recently enough.
func (s DatabaseStatus) Healthy() bool { return s.Reason == "" }

// A database is a reporter with the path that it had when it was added.
type database struct {
	path     string
	reporter SyncReporter
	// The number of the database in the order of additions and looks. It is fromSource if
	// Options.Source returned the database, and 0 if the database stands for Source itself.
	since uint64
}

const fromSource = math.MaxUint64

// pathOf names r. If Path panics, as on a nil pointer, r is named by its type. So the
// database is kept, and each check reports it.
func pathOf(r SyncReporter) (path string) {
	if _, panicked := try(func() { path = r.Path() }); panicked {
		path = fmt.Sprintf("%T", r)
	}
	return path
}

// A brokenReporter stands for a nil that Options.Source returned, or for a Source that
// panicked.
type brokenReporter struct {
	path  string
	value any // what it panics with
}

func (r brokenReporter) Path() string                    { return r.path }
func (r brokenReporter) LastSuccessfulSyncAt() time.Time { panic(r.value) }

var sourcePath = "Options.Source" // a variable, because its address is needed

// databases returns the databases that were added, in that order. The caller holds mu. A look
// reads the list without mu, so a list that was returned is never changed. Add appends behind
// its end. A database that was removed is missing only from the next list. To copy the list at
// each removal was rejected: to remove ten thousand databases took seconds.
func (m *Monitor) databases() []database {
	if len(m.list) > len(m.added) {
		m.list = slices.DeleteFunc(slices.Clone(m.list), func(db database) bool { return m.added[db.path] != db.since })
	}
	return m.list
}

// An inquiry is what databases said when they were asked for their last sync. The next look
// uses its memory again.
type inquiry struct {
	dbs     []database
	sourced []database              // memory for dbs if there is a Source
	syncs   []time.Time             // the zero time for a database that panicked
	panics  map[int]any             // what the databases at these indexes panicked with
	asking  *atomic.Pointer[string] // the path of the database that is being asked; nil: no database is
}

// list sets the databases to those that were added, followed by those of source, if it is not
// nil. A source that panics counts as a database that panics.
func (q *inquiry) list(added []database, source func() []SyncReporter) {
	q.dbs = added
	if source == nil {
		return
	}
	q.asking.Store(&sourcePath)
	all := append(q.sourced[:0], added...)
	value, panicked := try(func() {
		for _, r := range source() {
			if r == nil {
				r = brokenReporter{"nil from " + sourcePath, "sync reporter is nil"}
			}
			all = append(all, database{pathOf(r), r, fromSource})
		}
	})
	if panicked {
		all = append(all[:len(added)], database{sourcePath, brokenReporter{sourcePath, value}, 0}) // 0: asked by every look, since each calls Source
	}
	q.dbs, q.sourced = all, all
}

// ask asks each database, one after the other. To ask them at once was rejected: a reporter
// usually only reads a field, which takes nanoseconds, and a goroutine for each would cost a
// hundred times as much. A reporter must not block. If one does, it holds up the look, and a
// log line names its database.
func (q *inquiry) ask() {
	q.panics = nil
	q.syncs = slices.Grow(q.syncs[:0], len(q.dbs))
	for len(q.syncs) < len(q.dbs) {
		if value, panicked := try(q.askUntilPanic); panicked {
			if q.panics == nil {
				q.panics = map[int]any{}
			}
			q.panics[len(q.syncs)] = value
			q.syncs = append(q.syncs, time.Time{})
		}
	}
}

// askUntilPanic asks the databases that are left, up to the first that panics. Its caller
// guards it with one deferred call: a deferred call for each database would cost more than the
// verdict.
func (q *inquiry) askUntilPanic() {
	for i := len(q.syncs); i < len(q.dbs); i++ {
		q.asking.Store(&q.dbs[i].path)
		q.syncs = append(q.syncs, q.dbs[i].reporter.LastSuccessfulSyncAt())
	}
}

// A verdict says which databases are healthy at one moment.
type verdict struct {
	now       time.Time
	maxAge    time.Duration
	databases int
	unhealthy []DatabaseStatus // in the order in which they were asked
	at        []int            // the index in the inquiry of each unhealthy database
	panics    map[int]any
	fresh     time.Duration // the time until the first healthy database becomes stale if no database syncs
}

func (v *verdict) healthy() bool { return v.databases > 0 && len(v.unhealthy) == 0 }

// judge judges what the databases said, at one moment. It is pure: it reads no
// clock and writes no log.
func (q *inquiry) judge(now time.Time, maxAge time.Duration) verdict {
	v := verdict{now: now, maxAge: maxAge, databases: len(q.syncs), panics: q.panics}
	oldest := time.Duration(0)
	// A time that is further away than the longest Duration is never fresh, whatever maxAge
	// is. Sub returns the longest Duration for such a time. If maxAge were the longest
	// Duration too, the time would count as fresh.
	maxAge = min(maxAge, math.MaxInt64-1)
	// The zero time is never fresh, even on a clock that starts there.
	newborn := now.Sub(time.Time{}) <= maxAge // false: a zero time is too old anyway, and IsZero need not be called
	nowSec, nowNsec := now.Unix(), int64(now.Nanosecond())
	for i := range q.syncs {
		at := &q.syncs[i]
		older := now.Sub(*at)
		newer := older
		// To subtract seconds as integers costs a fraction of what time.Sub costs, and this is done
		// for each database. It is exact for differences of up to 68 years, because their seconds
		// fit into 32 bits.
		if sec := nowSec - at.Unix(); sec == int64(int32(sec)) {
			wall := time.Duration(sec*int64(time.Second) + nowNsec - int64(at.Nanosecond()))
			older, newer = max(older, wall), min(newer, wall)
		} else {
			older, newer = schedule.Age(now, *at), -schedule.Age(*at, now)
		}
		if older <= maxAge && newer >= -maxAge && (!newborn || !at.IsZero()) {
			oldest = max(oldest, older)
			continue
		}
		reason := ReasonFuture
		switch _, panicked := q.panics[i]; {
		case panicked:
			reason = ReasonPanicked
		case at.IsZero():
			reason = ReasonNotSynced
		case older > maxAge:
			reason = ReasonStale
		}
		v.unhealthy = append(v.unhealthy, DatabaseStatus{q.dbs[i].path, *at, reason})
		v.at = append(v.at, i)
	}
	v.fresh = maxAge - oldest
	return v
}

// A look is what is kept of a look to compare the next look with: which databases it asked,
// and which of them were well. Well means healthy, or stale only because of a jump in time.
type look struct {
	number  uint64
	ended   time.Time
	well    bool            // all databases were well
	unwell  map[string]bool // the paths of the databases that were not well
	sourced []string        // the paths of the databases of Options.Source
	index   map[string]bool // the set of these paths; nil until the method asked needs it
}

// asked reports whether the look l asked db.
func (l *look) asked(db *database) bool {
	if db.since != fromSource {
		return db.since < l.number
	}
	if l.index == nil {
		l.index = make(map[string]bool, len(l.sourced))
		for _, path := range l.sourced {
			l.index[path] = true
		}
	}
	return l.index[db.path]
}

// judgeLoss reports whether a database was lost since the previous look. before is that
// look, or nil if there was none. The parameter this is the look to compare the next look
// with; judgeLoss completes it. It asks the schedule how much time there was to sync.
//
// To remember the state of each database over more than one look was rejected: the memory
// would have to be kept right for each database that comes, goes or panics.
func (v *verdict) judgeLoss(dbs []database, before, this *look, s *schedule.Schedule) (lost bool) {
	ended := v.now
	if before != nil {
		ended = before.ended
	}
	since, _ := s.Elapsed(v.now, ended)
	for n, i := range v.at {
		reason, overdue := v.unhealthy[n].Reason, time.Duration(0)
		if reason == ReasonStale {
			age, known := s.Elapsed(v.now, v.unhealthy[n].LastSyncAt)
			if overdue = age - v.maxAge; overdue <= 0 && known < math.MaxInt64 { // it is stale only because of jumps
				v.fresh = min(v.fresh, -overdue, known)
				continue
			}
		}
		if this.well {
			this.well, this.unwell = false, map[string]bool{}
		}
		this.unwell[dbs[i].path] = true
		lost = lost || before != nil && reason != ReasonFuture && before.lost(&dbs[i], reason, overdue, since)
	}
	return lost
}

// lost reports whether db, which is unhealthy now, was lost since the look l.
//
// If all databases were well at l, any reason counts. If not, only a stale database counts:
// it has become stale since l, or its last sync has gone back. Its last sync has gone back if
// it was well at l, although with the last sync that it reports now it would have been stale.
//
// If not all databases were well at l, a database that panics or has not synced is not lost.
// Otherwise a daemon that starts, and opens its databases one after the other, would cause a
// signal for each.
func (l *look) lost(db *database, reason Reason, overdue, since time.Duration) bool {
	return (l.well || reason == ReasonStale && (overdue <= since || !l.unwell[db.path])) && l.asked(db)
}

// ask asks the databases and then judges what they said, so that the verdict is as
// old as the last answer.
func (m *Monitor) ask(c *check) {
	if m.slowLook == nil {
		asking := new(atomic.Pointer[string])
		m.asked.asking = asking
		m.slowLook, m.slowLine = watch(patience, func() { m.warnOfSlowLook(asking) })
	} else { // the timer is used again, so that a Beat that finds all healthy and sends nothing allocates nothing
		m.slowLook.Reset(patience)
	}
	defer func() { // also if a reporter ends this goroutine
		m.asked.asking.Store(nil)
		if !m.slowLook.Stop() {
			c.slowLine, m.slowLook = m.slowLine, nil
			m.asked.sourced = nil // the line may still read a path in it
		}
	}()
	m.mu.Lock()
	m.count++
	c.number = m.count
	added := m.databases()
	m.mu.Unlock()
	m.asked.list(added, m.source)
	m.asked.ask()
	c.verdict = m.asked.judge(m.clock.Now(), m.maxSyncAge)
	c.result.Databases = c.databases
	if !c.healthy() {
		c.result.skipFor(c.unhealthy)
	}
}

// lost reports whether a database was lost since the previous look. It keeps this look to
// compare the next look with, unless a reporter or Source panicked in this look: such a look
// did not see all databases. The caller holds mu, which guards m.before and m.schedule.
func (m *Monitor) lost(c *check) bool {
	this := &m.rooms[0]
	if this == m.before {
		this = &m.rooms[1]
	}
	*this = look{number: c.number, ended: c.now, well: c.databases > 0, sourced: this.sourced[:0]}
	if m.source != nil {
		for i := range m.asked.dbs {
			if db := &m.asked.dbs[i]; db.since == fromSource {
				this.sourced = append(this.sourced, db.path)
			}
		}
	}
	before := m.before
	if before != nil && before.number <= m.started {
		before = nil // it is of another Run, or began before this one
	}
	lost := c.judgeLoss(m.asked.dbs, before, this, m.schedule)
	if c.panics == nil {
		m.before = this
	}
	return lost
}

// try calls f, and reports whether f panicked and with what. If f ends its goroutine, try
// does not stop that. A nil from recover does not prove that there was no panic, because
// GODEBUG may allow panic(nil).
func try(f func()) (value any, panicked bool) {
	panicked = true
	defer func() {
		if panicked {
			value = recover()
		}
	}()
	f()
	return nil, false
}
