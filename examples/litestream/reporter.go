package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat"
	"github.com/superfly/ltx"
)

// A *litestream.DB is a SyncReporter as it stands. It is not used as one here,
// since its LastSuccessfulSyncAt goes on advancing when the replica was deleted.
// While the database is idle there is nothing to copy, so nothing fails. When it
// is written to, the replica's folder is made anew and takes each new file; but
// without those before them nothing can be restored. It also goes on advancing
// when the database's file was deleted.
var (
	_ heartbeat.SyncReporter = (*litestream.DB)(nil)
	_ heartbeat.SyncReporter = (*reporter)(nil)
)

// checksPerBeat is how often a reporter checks in the time between two
// heartbeats, which is also how old a sync may get. Under load a check proves
// what the one before saw: so a sync may be two checks old, and with four to a
// beat, one check that fails costs no heartbeat. More would cost more.
const checksPerBeat = 4

// startEvery is the pause between two checks, if that is shorter, until the first
// sync is proven: so that the first heartbeat need not wait for the second check.
const startEvery = 10 * time.Second

// A check's questions to the database and to the replica may take until the next
// one is due, within these bounds, and a restore plan twice as long. They are on
// the system's clock, as the network is.
const (
	minCheckTimeout = 10 * time.Second
	maxCheckTimeout = time.Minute
)

// A reporter records a sync only when it has seen for itself that the replica
// holds all that the database held: Litestream must go on syncing, the file
// must still be the one it opened, and the replica must be at the database's
// position, with a chain of files that leads there without a gap.
type reporter struct {
	*heartbeat.SyncTracker
	db      *litestream.DB
	replica replica
	clock   heartbeat.Clock
	every   time.Duration // between two checks, on clock; zero: no heartbeat counts on this database
	logger  *slog.Logger

	syncedAt     time.Time // what Litestream says, on the system's clock
	syncedSeenAt time.Time // when that was seen to have changed, on clock
	goal         position
	failing      bool
	proven       atomic.Uint64 // the newest transaction that the replica was proven to hold
}

// A position is one that the database was at, and that the replica is to reach.
type position struct {
	txID ltx.TXID
	at   time.Time
}

func newReporter(db *litestream.DB, clock heartbeat.Clock, logger *slog.Logger) *reporter {
	return &reporter{
		SyncTracker: heartbeat.NewSyncTracker(db.Path()),
		db:          db,
		replica:     replica{db: db},
		clock:       clock,
		logger:      logger,
	}
}

// run checks until ctx is done. It has a goroutine of its own, since a check asks
// the replica, and the monitor must never wait for that.
func (r *reporter) run(ctx context.Context) {
	for ctx.Err() == nil {
		began := r.clock.Now()
		err := r.check(ctx)
		if err != nil && ctx.Err() == nil && !r.failing { // cut short, it says nothing
			r.logger.Warn("replica check failed", "db", r.Path(), "error", err)
			r.failing = true
		}
		pause := r.every
		if err == nil && r.LastSuccessfulSyncAt().IsZero() {
			pause = min(pause, startEvery)
		}
		pause -= max(0, r.clock.Now().Sub(began))
		if pause <= 0 {
			continue // it took until the next one was due
		}
		select {
		case <-ctx.Done():
		case <-r.clock.After(pause):
		}
	}
}

// check records a sync if it can prove one. It returns nil also while writes
// are on their way to the replica, which is no fault.
func (r *reporter) check(ctx context.Context) error {
	at := r.clock.Now()
	timeout := min(max(r.every, minCheckTimeout), maxCheckTimeout)
	planCtx, cancelPlan := context.WithTimeout(ctx, 3*timeout)
	defer cancelPlan()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	local, err := r.localPosition(ctx)
	if err != nil {
		return err
	}
	wanted := local
	if r.goal.txID > 0 {
		wanted = min(wanted, r.goal.txID)
	}
	remote, sound, err := r.replica.position(ctx, at, wanted)
	if err != nil {
		return err
	}
	if remote > 0 && !sound {
		if err := r.replica.plan(planCtx, at); err != nil {
			return err
		}
	}
	if err := r.judge(at, local, remote); err != nil {
		return err
	}
	// The hourly plan comes after the verdict, so that it may take its time.
	if remote > 0 && r.replica.planDue(at) {
		return r.replica.plan(planCtx, at)
	}
	return nil
}

// localPosition returns the transaction that the database is at.
func (r *reporter) localPosition(ctx context.Context) (ltx.TXID, error) {
	// Without this, a database whose own sync loop is broken would seem not to
	// have changed.
	if err := r.db.Sync(ctx); err != nil {
		return 0, fmt.Errorf("sync of the database: %w", err)
	}
	info, err := os.Stat(r.Path())
	if err != nil {
		return 0, err
	}
	// FileInfo is of when Litestream opened the file. Litestream, which holds it
	// open, would not notice.
	if opened := r.db.FileInfo(); opened == nil || !os.SameFile(opened, info) {
		return 0, errors.New("the database file is not the one that was opened; restart to replicate it")
	}
	position, err := r.db.Pos()
	if err != nil {
		return 0, fmt.Errorf("local position: %w", err)
	}
	return position.TXID, nil
}

// judge looks at Litestream once more, and records the sync that is proven.
func (r *reporter) judge(at time.Time, local, remote ltx.TXID) error {
	// What is committed and copied meanwhile moves the database on, too.
	after, err := r.db.Pos()
	if err != nil {
		return fmt.Errorf("local position: %w", err)
	}
	// Times of Litestream are on the system's clock, and cannot be compared with
	// this one's: what counts is when they change.
	if syncedAt := r.db.LastSuccessfulSyncAt(); !syncedAt.Equal(r.syncedAt) {
		r.syncedAt, r.syncedSeenAt = syncedAt, at
	}
	return r.compare(at, local, remote, after.TXID)
}

// compare records the sync that these positions prove: of the database at that
// time, of the replica, and of the database after it.
func (r *reporter) compare(at time.Time, local, remote, after ltx.TXID) error {
	goal := r.goal
	switch {
	case local > 0 && remote >= local && remote <= after:
		r.goal = position{}
		r.record(position{local, at})
		return nil
	case goal.txID == 0 || goal.txID > local: // the first behind, or Litestream began anew
		r.goal = position{local, at}
		return nil
	case remote >= goal.txID && remote <= after:
		// A database under load is always ahead of its replica, which yet has all
		// that the database had at an earlier check.
		r.goal = position{local, at}
		r.record(goal)
		return nil
	case remote < goal.txID && at.Sub(goal.at) < r.every:
		return nil // at the start, when checks are closer
	}
	return fmt.Errorf("replica is at transaction %d, the database at %d", remote, local)
}

// record records a sync of a position, at its time, or when Litestream was last
// seen to sync, if that is earlier.
func (r *reporter) record(p position) {
	at := p.at
	if r.syncedSeenAt.Before(at) {
		at = r.syncedSeenAt
	}
	r.proven.Store(uint64(p.txID))
	if r.failing {
		r.logger.Info("replica check passed again", "db", r.Path())
		r.failing = false
	}
	r.Record(at)
}
