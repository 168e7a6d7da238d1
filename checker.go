package heartbeat

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// A SyncReporter is one database, or any other thing that is kept in sync, and
// knows when it last was. [SyncTracker] is one for a daemon that has none.
// *litestream.DB, from github.com/benbjohnson/litestream, is one as it stands;
// but while it is idle it goes on reporting syncs after its replica is gone.
//
// Both methods may be called from several goroutines at once. A reporter that
// panics is judged unhealthy, and the others are judged all the same.
type SyncReporter interface {
	// Path names the database in log lines, in a [DatabaseStatus] and in
	// [Monitor.Remove]. New and Add ask for it once, and it must be unique among
	// the databases that they are given. Those of Options.Source are asked at
	// each check.
	Path() string

	// LastSuccessfulSyncAt returns when the database was last known to be in
	// sync; the zero time if it never was. It is called at every check and
	// must not block.
	LastSuccessfulSyncAt() time.Time
}

// A SyncTracker is a ready-made [SyncReporter] for daemons that have none: call
// [SyncTracker.Record] after each sync. Create one with [NewSyncTracker]. Its
// methods may be called from any goroutine, and never wait for one another.
type SyncTracker struct {
	path   string
	lastAt atomic.Pointer[time.Time]
}

// NewSyncTracker returns a SyncTracker, not yet synced, for the database that
// path names.
func NewSyncTracker(path string) *SyncTracker {
	return &SyncTracker{path: path}
}

// Record says that the replica holds what the database held at the given time. For
// a sync that takes a moment that is time.Now(). For a copy that takes 20 minutes
// it is the moment whose state was copied: when the copy began, not when it ended.
// The latest call counts, whatever time it gives. The zero time means that the
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
// text is what the log shows. The empty Reason means that there is nothing to
// explain.
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

// A database is a reporter with the path that it had when it was added. A nil
// reporter marks one that was removed.
type database struct {
	path     string
	reporter SyncReporter
}

// pathOf names r. One that cannot name itself, such as a nil pointer, is named by
// its type. It is reported at every check, rather than lost here.
func pathOf(r SyncReporter) (path string) {
	named := false
	defer func() {
		if !named {
			_ = recover()
			path = fmt.Sprintf("%T", r)
		}
	}()
	path = r.Path()
	named = true
	return path
}

// A nilReporter stands for a nil that Options.Source returned, since a nil in a
// set is a gap.
type nilReporter struct{}

func (nilReporter) Path() string                    { return "nil from Options.Source" }
func (nilReporter) LastSuccessfulSyncAt() time.Time { panic("sync reporter is nil") }

// A databaseSet is the databases of a Monitor, which guards it with its mutex. One
// sequence numbers databases and snapshots, so that it can be told which of them
// came first.
type databaseSet struct {
	list     []database // in the order they were added, with gaps; see remove
	index    map[string]registration
	sequence uint64
	shared   bool // whether a snapshot may still be read

	// Those of Options.Source, by path. Each has the number of the snapshot that
	// had it first, and of the latest that has it.
	sourced map[string]sourcing
}

// A registration says where in the list a path stands, and the database's number.
type registration struct {
	at     int
	number uint64
}

type sourcing struct{ first, latest uint64 }

// A snapshot is the databases at one moment, for reading only.
type snapshot struct {
	added   []database // with gaps
	sourced []database
	count   int // without the gaps
	number  uint64
}

// add adds a database, and reports whether its path was free.
func (s *databaseSet) add(db database) bool {
	if _, taken := s.index[db.path]; taken {
		return false
	}
	s.sequence++
	s.index[db.path] = registration{len(s.list), s.sequence}
	// A snapshot holds only the elements that there were. So appending to the array
	// that it shares is safe.
	s.list = append(s.list, db)
	return true
}

// remove removes a database, and reports whether there was one. It leaves a gap:
// to close it at once would make it quadratic to remove many.
func (s *databaseSet) remove(path string) bool {
	r, ok := s.index[path]
	if !ok {
		return false
	}
	delete(s.index, path)
	if s.shared {
		s.list = slices.Clone(s.list)
		s.shared = false
	}
	s.list[r.at] = database{}
	if len(s.list) > 2*len(s.index) {
		s.list = slices.DeleteFunc(s.list, func(db database) bool { return db.reporter == nil })
		for at, db := range s.list {
			s.index[db.path] = registration{at, s.index[db.path].number}
		}
	}
	return true
}

// snapshot returns the databases, with those that Options.Source named just
// before. With remember, numbers can tell which of these there were already.
func (s *databaseSet) snapshot(sourced []database, remember bool) snapshot {
	s.shared = true
	s.sequence++
	if remember {
		s.remember(sourced)
	}
	return snapshot{s.list, sourced, len(s.index) + len(sourced), s.sequence}
}

// remember takes note of what Options.Source named for the latest snapshot. A
// database that it named no more, and names again, is a new one.
func (s *databaseSet) remember(sourced []database) {
	distinct := 0
	for _, db := range sourced {
		known := s.sourced[db.path]
		if known.first == 0 {
			known.first = s.sequence
		}
		if known.latest != s.sequence {
			known.latest = s.sequence
			s.sourced[db.path] = known
			distinct++
		}
	}
	if distinct < len(s.sourced) {
		maps.DeleteFunc(s.sourced, func(_ string, known sourcing) bool { return known.latest != s.sequence })
	}
}

// numbers returns the numbers of the databases that were found, but for those that
// have been removed since. A Source that panicked has the number zero: it was
// there before every database.
func (s *databaseSet) numbers(found []finding) []uint64 {
	numbers := make([]uint64, 0, len(found))
	for i := range found {
		number, ok := uint64(0), true
		switch found[i].origin {
		case wasAdded:
			var r registration
			r, ok = s.index[found[i].Path]
			number = r.number
		case wasSourced:
			var known sourcing
			known, ok = s.sourced[found[i].Path]
			number = known.first
		}
		if ok {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// A finding is a verdict worth telling, what the reporter panicked with, and where
// it came from.
type finding struct {
	DatabaseStatus
	panicValue any
	origin     origin
}

type origin int

const (
	wasAdded origin = iota
	wasSourced
	isSource // Options.Source itself
)

// A checker judges databases at one moment. It is pure: it reads no clock and
// writes no log.
type checker struct {
	now            time.Time
	oldest, newest time.Time // bounds of a fresh sync
	maxAge, twice  uint64    // nanoseconds, and twice as many

	// What it returns beside the unhealthy databases, at a price.
	quick  bool // neither of the next two
	all    bool // the healthy ones are findings too
	watch  bool // the oldest sync of a healthy one is wanted, by either clock
	oldAge time.Duration
	oldAt  time.Time

	// Seconds that lie within the wall clock's bounds as a whole: the first, and
	// how many there are.
	firstSecond int64
	seconds     uint64
}

// begin sets the moment. It fills c in place: a copy would cost as much as the
// verdict on ten databases.
func (c *checker) begin(now time.Time, maxAge time.Duration) {
	c.now, c.maxAge, c.twice = now, uint64(maxAge), 2*uint64(maxAge)
	c.oldest, c.newest = now.Add(-maxAge), now.Add(maxAge)
	// The zero time is never in them, even on a clock that starts there, as a
	// fake one may.
	c.firstSecond = max(c.oldest.Unix(), time.Time{}.Unix()) + 1
	c.seconds = uint64(max(0, c.newest.Unix()-c.firstSecond))
	c.oldAge, c.oldAt = 0, now
}

// judge judges each database. It returns the unhealthy ones (or, with c.all, all
// of them) in the order of the snapshot; nil when there are none.
func (c *checker) judge(dbs snapshot) (found []finding) {
	c.quick = !c.all && !c.watch
	for next := 0; next < len(dbs.added); {
		next = c.judgeUntilPanic(dbs.added, next, wasAdded, &found)
	}
	for next := 0; next < len(dbs.sourced); {
		next = c.judgeUntilPanic(dbs.sourced, next, wasSourced, &found)
	}
	return found
}

// judgeUntilPanic judges dbs[from:], up to and including the first whose reporter
// panics, and returns the index after the last one judged. One deferred call
// guards the whole run: a deferred call for each database would cost more than
// the verdict. That recover returns nil proves nothing, since panic(nil) may be
// allowed.
func (c *checker) judgeUntilPanic(dbs []database, from int, origin origin, found *[]finding) (next int) {
	next = from
	defer func() {
		if next < len(dbs) {
			*found = append(*found, finding{DatabaseStatus{Path: dbs[next].path, Reason: ReasonPanicked}, recover(), origin})
			next++
		}
	}()
	for ; next < len(dbs); next++ {
		db := &dbs[next]
		if db.reporter == nil {
			continue
		}
		at := db.reporter.LastSuccessfulSyncAt()
		// What reason decides, for all but the first and last second of the
		// bounds, at a fraction of what its comparisons cost.
		surely := uint64(at.Unix()-c.firstSecond) < c.seconds && uint64(c.now.Sub(at))+c.maxAge <= c.twice
		if surely && c.quick {
			continue
		}
		if surely && !c.all {
			c.note(at)
		} else if reason := c.reason(at); reason != "" || c.all {
			*found = append(*found, finding{DatabaseStatus{db.path, at, reason}, nil, origin})
		} else if c.watch {
			c.note(at)
		}
	}
	return next
}

// reason judges one last sync: it must lie at most maxAge away from now, by the
// monotonic clock (where both times have a reading) and by the wall clock. The
// first stands still while the machine sleeps, the second can be set.
func (c *checker) reason(at time.Time) Reason {
	switch {
	case at.IsZero():
		return ReasonNotSynced
	case at.Before(c.oldest), at.Before(c.oldest.Round(0)):
		return ReasonStale
	case at.After(c.newest), at.After(c.newest.Round(0)):
		return ReasonFuture
	}
	return ""
}

// rejudge judges again, at c's moment, what another checker found with all set.
func (c *checker) rejudge(all []finding) (found []finding) {
	for _, f := range all {
		if f.Reason != ReasonPanicked {
			f.Reason = c.reason(f.LastSyncAt)
		}
		if f.Reason != "" {
			found = append(found, f)
		} else if c.watch {
			c.note(f.LastSyncAt)
		}
	}
	return found
}

// note takes a healthy database's last sync into account.
func (c *checker) note(at time.Time) {
	if age := c.now.Sub(at); age > c.oldAge {
		c.oldAge = age
	}
	if at.Unix() < c.oldAt.Unix() || at.Unix() == c.oldAt.Unix() && at.Nanosecond() < c.oldAt.Nanosecond() {
		c.oldAt = at
	}
}

// fresh returns how long the healthy databases stay so by both clocks, if none syncs.
func (c *checker) fresh() time.Duration {
	return time.Duration(c.maxAge) - max(c.oldAge, c.now.Round(0).Sub(c.oldAt.Round(0)))
}

// try calls f, which runs code that is not ours, and recovers its panic.
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
