package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// A Replica is a heartbeat.SyncReporter of a PostgreSQL standby. It is asked for
// its positions in the write-ahead log by [Replica.Poll], and never by a check,
// which must not wait for a database. Create one with [NewReplica].
//
// Its last sync is the latest time for which it is proved that the standby has
// replayed all that the primary had written by then. So an idle primary's standby
// is as fresh as a busy one's; one that lags is as old as it lags, and one that is
// disconnected, gone or deaf is not fresh for long. The columns that seem to say
// this do not: replay_lag stays at its last value, or NULL, once a primary is
// idle, and pg_last_xact_replay_timestamp stands still and is on another clock.
type Replica struct {
	*heartbeat.SyncTracker
	db      *sql.DB
	standby string // empty: db is the standby
	now     func() time.Time
	ask     func(context.Context) (answer, error)

	behind   *Behind   // how far, at the latest answer; nil: nothing is known to be missing
	polledAt time.Time // the latest answer of a standby
	latest   answer    // of which the end has not gone back
	targets  []target  // positions still to be replayed, in order
}

// A target is a position that the primary was at, at some time.
type target struct {
	at  time.Time
	lsn int64
}

// An answer is what a server knows. Positions are in bytes.
type answer struct {
	connection int       // of the one to the other: its process
	end        int64     // of what the primary has written
	replayed   int64     // by the standby
	heard      time.Time // when the one last heard of the other, on a server's clock
}

// Behind is how far a standby is behind its primary.
type Behind struct {
	Since time.Time // it lacks something that the primary had written by then
	Bytes int64     // of the write-ahead log, to be replayed still
}

// maxTargets bounds the memory that a standby takes which lags for days: it is
// almost 3 hours of polls at one in 10 seconds.
const maxTargets = 1000

// NewReplica returns a Replica that watches the standby with that application_name
// if db is the primary. That is the name by which the standby connects: what its
// primary_conninfo says, else its cluster_name, else walreceiver; the primary lists
// it in pg_stat_replication. With no name, db is the standby itself. The clock is the one of the
// Monitor; nil: the system clock.
//
// A logical subscription shows there too, but is no standby: its replay_lsn goes
// on while the first copy of a table fails, which would be a false green.
//
// The role needs to be a member of pg_monitor. The servers must not be told never
// to talk while idle: wal_receiver_status_interval and wal_receiver_timeout must
// not be 0, and are best left far below MaxSyncAge.
func NewReplica(path string, db *sql.DB, standby string, clock heartbeat.Clock) *Replica {
	r := &Replica{SyncTracker: heartbeat.NewSyncTracker(path), db: db, standby: standby, now: time.Now}
	if r.ask = r.askPrimary; standby == "" {
		r.ask = r.askStandby
	}
	if clock != nil {
		r.now = clock.Now
	}
	return r
}

// Poll asks for the standby's position once, and records a sync if there was one.
// While it returns errors nothing is recorded: so the standby goes stale. It is
// to be called by one goroutine at a time; the methods of SyncReporter by any.
func (r *Replica) Poll(ctx context.Context) error {
	at := r.now() // before the question, so that the answer is no older
	got, err := r.ask(ctx)
	r.behind = nil
	if err != nil {
		return err
	}
	defer r.measure(got)
	if last := r.polledAt; r.standby == "" {
		r.polledAt, at = at, last // what a standby knows of its primary came since the last poll
	}
	// A connection whose other end has lost power looks well for a minute, or for
	// ever where timeouts are off. Only a message that was not there at the last
	// poll proves that there is someone: so the first poll proves nothing.
	last := r.latest
	r.latest = got
	switch {
	case last.heard.IsZero() || last.heard.Equal(got.heard):
		r.latest.end = max(last.end, got.end)
		return nil
	case got.end < last.end && got.connection == last.connection:
		// A primary that sends more than a line can carry tells in a keepalive
		// how far it has sent, which is not how far it is.
		r.latest.end = last.end
		return nil
	case got.end < last.end: // another primary, or one that was restored: start anew
		r.targets = nil
		return nil
	}
	if n := len(r.targets); n == maxTargets {
		r.targets = r.targets[:n-1] // the later target, which comes next, implies it
	}
	r.targets = append(r.targets, target{at, got.end})
	for len(r.targets) > 0 && r.targets[0].lsn <= got.replayed {
		r.Record(r.targets[0].at)
		r.targets = r.targets[1:]
	}
	return nil
}

// Behind returns how far the standby is behind, by the latest Poll; nil if it has
// replayed all, or if that Poll returned an error. Call it where Poll is called.
func (r *Replica) Behind() *Behind { return r.behind }

// measure keeps how far the standby is behind, by an answer that has been taken in.
func (r *Replica) measure(got answer) {
	if n := len(r.targets); n > 0 && r.targets[n-1].lsn > got.replayed {
		r.behind = &Behind{Since: r.targets[0].at, Bytes: r.targets[n-1].lsn - got.replayed}
	}
}

// askPrimary asks the primary, which knows when the standby last answered.
func (r *Replica) askPrimary(ctx context.Context) (got answer, err error) {
	rows, err := r.db.QueryContext(ctx, `
		SELECT pid, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), pg_wal_lsn_diff(coalesce(replay_lsn, '0/0'), '0/0'), reply_time
		FROM pg_stat_replication WHERE application_name = $1 AND reply_time IS NOT NULL`, r.standby)
	if err != nil {
		return answer{}, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		if err := rows.Scan(&got.connection, &got.end, &got.replayed, &got.heard); err != nil {
			return answer{}, err
		}
	}
	switch {
	case rows.Err() != nil:
		return answer{}, rows.Err()
	case n == 0:
		return answer{}, fmt.Errorf("no standby named %q is connected to this server (%s), or the role is not in pg_monitor", r.standby, r.connected(ctx))
	case n > 1: // one that is fresh must not stand in for one that is not
		return answer{}, fmt.Errorf("%d standbys are named %q; give each an application_name of its own", n, r.standby)
	}
	return got, nil
}

// connected says which application_names there are, since the one that was asked for
// is none of them.
func (r *Replica) connected(ctx context.Context) string {
	var names string
	err := r.db.QueryRowContext(ctx, `SELECT coalesce(string_agg(DISTINCT application_name, ', '), '') FROM pg_stat_replication`).Scan(&names)
	if err != nil || names == "" {
		return "none is"
	}
	return "connected: " + names
}

// askStandby asks the standby, which knows what its primary last said of itself.
// (The documentation has latest_end_lsn the other way round.)
func (r *Replica) askStandby(ctx context.Context) (got answer, err error) {
	err = r.db.QueryRowContext(ctx, `
		SELECT pid, pg_wal_lsn_diff(latest_end_lsn, '0/0'), pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0'), last_msg_receipt_time
		FROM pg_stat_wal_receiver WHERE status = 'streaming' AND pg_is_in_recovery()
		AND latest_end_lsn IS NOT NULL AND last_msg_receipt_time IS NOT NULL`).Scan(&got.connection, &got.end, &got.replayed, &got.heard)
	if errors.Is(err, sql.ErrNoRows) {
		err = errors.New("not a standby that streams from its primary, or the role is not in pg_monitor")
	}
	return got, err
}
