package heartbeat

import (
	"sync/atomic"
	"time"
)

// A SyncReporter is one database (or any other thing that is kept in sync):
// it knows when it last was. *litestream.DB, from
// github.com/benbjohnson/litestream, is one as it stands; [SyncTracker] is one
// for a daemon that has none.
//
// Both methods may be called from several goroutines at once. A reporter that
// panics is judged unhealthy, and the others are judged all the same.
type SyncReporter interface {
	// Path names the database in log lines, in a [DatabaseStatus] and in
	// [Monitor.Remove]. It is asked for once, when the reporter is given to a
	// Monitor, and must be unique within that.
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

// Record says that the database was in sync at the given time, time.Now() as a
// rule. The latest call counts, whatever time it gives; the zero time means
// that the database is no longer known to have synced.
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

// A database is a reporter with the path it had when it was added. A nil
// reporter marks one that was removed.
type database struct {
	path     string
	reporter SyncReporter
}

// A finding is a verdict worth telling, and what the reporter panicked with.
type finding struct {
	DatabaseStatus
	panicValue any
}

// A checker judges databases at one moment. It is pure: it reads no clock and
// writes no log.
type checker struct {
	now                    time.Time
	oldest, newest         time.Time // bounds of a fresh sync, with now's monotonic reading
	wallOldest, wallNewest time.Time // the same without it
	maxAge                 uint64    // nanoseconds
	all                    bool      // whether healthy databases are findings too

	// Seconds that lie within the wall clock's bounds as a whole: the first,
	// and how many there are.
	firstSecond int64
	seconds     uint64
}

func newChecker(now time.Time, maxAge time.Duration) checker {
	c := checker{now: now, oldest: now.Add(-maxAge), newest: now.Add(maxAge), maxAge: uint64(maxAge)}
	c.wallOldest, c.wallNewest = c.oldest.Round(0), c.newest.Round(0)
	// The zero time is never in them, even on a clock that starts there, as a
	// fake one may.
	c.firstSecond = max(c.wallOldest.Unix(), time.Time{}.Unix()) + 1
	c.seconds = uint64(max(0, c.wallNewest.Unix()-c.firstSecond))
	return c
}

// check judges each database. It returns the unhealthy ones (or, with c.all, all
// of them) in the order of dbs; nil when there are none.
func (c *checker) check(dbs []database) (found []finding) {
	for next := 0; next < len(dbs); {
		next = c.checkUntilPanic(dbs, next, &found)
	}
	return found
}

// checkUntilPanic judges dbs[next:], up to and including the first whose
// reporter panics, and returns the index after the last one judged. One deferred
// call guards the whole run: a deferred call for each database would cost more
// than the verdict.
func (c *checker) checkUntilPanic(dbs []database, from int, found *[]finding) (next int) {
	next = from
	defer func() {
		if v := recover(); v != nil {
			*found = append(*found, finding{DatabaseStatus{Path: dbs[next].path, Reason: ReasonPanicked}, v})
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
		if uint64(at.Unix()-c.firstSecond) < c.seconds &&
			uint64(c.now.Sub(at))+c.maxAge <= 2*c.maxAge && !c.all {
			continue
		}
		if reason := c.reason(at); reason != "" || c.all {
			*found = append(*found, finding{DatabaseStatus: DatabaseStatus{db.path, at, reason}})
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
	case at.Before(c.oldest), at.Before(c.wallOldest):
		return ReasonStale
	case at.After(c.newest), at.After(c.wallNewest):
		return ReasonFuture
	}
	return ""
}
