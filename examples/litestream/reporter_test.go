package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

// A bench is a reporter on a fake clock over a database that syncs when told to.
type bench struct {
	*reporter
	t     *testing.T
	clock *heartbeattest.Clock
}

func newBench(t *testing.T) *bench {
	t.Helper()
	clock := heartbeattest.NewClock(time.Now())
	b := &bench{newReporter(openDB(t), clock, slog.New(slog.DiscardHandler)), t, clock}
	b.every = time.Minute
	require.NoError(t, b.db.SyncAndWait(t.Context()))
	require.NoError(t, b.check(t.Context()))
	require.Equal(t, clock.Now(), b.LastSuccessfulSyncAt())
	return b
}

// checkLater checks when it is due, after Litestream has synced if it can.
func (b *bench) checkLater() error {
	b.clock.Advance(b.every)
	_ = b.db.SyncAndWait(b.t.Context())
	return b.check(b.t.Context())
}

func (b *bench) age() time.Duration { return b.clock.Now().Sub(b.LastSuccessfulSyncAt()) }

func (b *bench) replicaDir() string {
	return b.db.Replica.Client.(interface{ Path() string }).Path()
}

func TestReporter_idle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
}

func TestReporter_replicaGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.NoError(t, os.Rename(b.replicaDir(), b.replicaDir()+"-away"))
	before := b.db.LastSuccessfulSyncAt()
	require.NoError(t, b.checkLater(), "the first time, it may be on its way")
	require.EqualError(t, b.checkLater(), "replica is at transaction 0, the database at 1")
	assert.Equal(t, 2*time.Minute, b.age())
	assert.True(t, b.db.LastSuccessfulSyncAt().After(before), "Litestream has noticed: then this guard is not needed any more")

	require.NoError(t, os.Rename(b.replicaDir()+"-away", b.replicaDir()))
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
}

// After the next write, Litestream takes a destroyed replica for a good one.
func TestReporter_replicaDestroyedAndWrittenTo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.NoError(t, os.RemoveAll(b.replicaDir()))
	insert(t, b.Path())
	require.EqualError(t, b.checkLater(), "replica cannot be restored: transaction not available")
	assert.Equal(t, time.Minute, b.age())
	status, err := b.db.SyncStatus(t.Context())
	require.NoError(t, err)
	assert.True(t, status.InSync, "Litestream has noticed: then this guard is not needed any more")

	_, err = b.db.Snapshot(t.Context()) // the repair, which Litestream makes once a day
	require.NoError(t, err)
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
	assert.Equal(t, rows(t, b.Path()), rows(t, restoreCopy(t, b.replicaDir())))
}

// A file that was found to differ is not forgotten at the next listing, which shows
// no more than its size. The database counts again once the file is mended.
func TestReporter_differs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.every = 15 * time.Second
	insert(t, b.Path())
	require.NoError(t, b.checkLater())
	newest := filepath.Join(b.replicaDir(), "ltx", "0", "0000000000000002-0000000000000002.ltx")
	data, err := os.ReadFile(newest)
	require.NoError(t, err)
	sound := string(data)
	data[len(data)-1] ^= 0xff
	writeFile(t, newest, string(data))
	for i := range 12 {
		require.EqualError(t, b.checkLater(), "replica's file 0000000000000002-0000000000000002.ltx of level 0: it does not end as Litestream's own copy does")
		assert.Equal(t, time.Duration(i+1)*b.every, b.age())
	}

	writeFile(t, newest, sound)
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
}

func TestReporter_fileDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.NoError(t, os.Remove(b.Path()))
	require.ErrorIs(t, b.checkLater(), os.ErrNotExist)
	assert.Equal(t, time.Minute, b.age())
}

func TestReporter_fileReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	require.NoError(t, os.Rename(b.Path(), b.Path()+"-old"))
	writeFile(t, b.Path(), "")
	require.EqualError(t, b.checkLater(), "the database file is not the one that was opened; restart to replicate it")
	assert.Equal(t, time.Minute, b.age())
}

// The replica is at the database's position, but Litestream does not sync.
func TestReporter_litestreamStopped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for range 3 {
		b.clock.Advance(time.Minute)
		require.NoError(t, b.check(t.Context()))
	}
	assert.Equal(t, 3*time.Minute, b.age())
}

// A write comes before each check, so that none finds the replica up to date.
func TestReporter_underLoad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 5 {
		b.clock.Advance(time.Minute)
		require.NoError(t, b.db.SyncAndWait(t.Context()))
		insert(t, b.Path())
		require.NoError(t, b.check(t.Context()))
		if i > 0 {
			assert.Equal(t, time.Minute, b.age(), "all that was there at the check before is in the replica")
		}
	}
}

func TestReporter_neverOpened(t *testing.T) {
	t.Parallel()
	r := newReporter(litestream.NewDB("/nowhere/app.db"), heartbeattest.NewClock(time.Now()), slog.New(slog.DiscardHandler))
	require.Error(t, r.check(t.Context()))
	assert.True(t, r.LastSuccessfulSyncAt().IsZero())
}

func TestReporter_compare(t *testing.T) {
	t.Parallel()
	type step struct {
		local, remote, after ltx.TXID
		err                  string
		age                  int // of the last sync, in steps; -1: never synced
	}
	for name, steps := range map[string][]step{
		"nothing copied yet":         {{0, 0, 0, "", -1}, {0, 0, 0, "", -1}},
		"in step":                    {{1, 1, 1, "", 0}, {1, 1, 1, "", 0}},
		"uploaded while asking":      {{5, 6, 6, "", 0}},
		"another's replica":          {{5, 9, 6, "", -1}, {6, 9, 6, "replica is at transaction 9, the database at 6", -1}},
		"catches up":                 {{5, 3, 5, "", -1}, {7, 5, 7, "", 1}, {9, 7, 9, "", 1}, {9, 9, 9, "", 0}},
		"falls behind":               {{5, 5, 5, "", 0}, {7, 5, 7, "", 1}, {9, 6, 9, "replica is at transaction 6, the database at 9", 2}},
		"database began anew":        {{9, 7, 9, "", -1}, {1, 9, 1, "", -1}, {1, 9, 1, "replica is at transaction 9, the database at 1", -1}},
		"replica lost what it had":   {{5, 5, 5, "", 0}, {5, 0, 5, "", 1}, {5, 0, 5, "replica is at transaction 0, the database at 5", 2}},
		"behind, then lost it again": {{5, 3, 5, "", -1}, {7, 4, 7, "replica is at transaction 4, the database at 7", -1}, {7, 6, 7, "", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := heartbeattest.NewClock(time.Now())
			r := newReporter(litestream.NewDB("app.db"), clock, nil)
			for i, s := range steps {
				clock.Advance(time.Minute)
				r.syncedSeenAt = clock.Now()
				err := r.compare(clock.Now(), s.local, s.remote, s.after)
				if s.err == "" {
					require.NoError(t, err, i)
				} else {
					require.EqualError(t, err, s.err, i)
				}
				if s.age < 0 {
					require.True(t, r.LastSuccessfulSyncAt().IsZero(), i)
				} else {
					require.Equal(t, time.Duration(s.age)*time.Minute, clock.Now().Sub(r.LastSuccessfulSyncAt()), i)
				}
			}
		})
	}
}

// The first sync is proven soon after the start, also where checks are far apart.
func TestReporter_start(t *testing.T) {
	t.Parallel()
	clock := heartbeattest.NewClock(time.Now())
	r := newReporter(openDB(t), clock, slog.New(slog.DiscardHandler))
	r.every = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	for range 3 {
		require.NoError(t, clock.BlockUntil(t.Context(), 1))
		require.True(t, r.LastSuccessfulSyncAt().IsZero())
		clock.Advance(startEvery)
	}
	require.NoError(t, clock.BlockUntil(t.Context(), 1))
	require.NoError(t, r.db.SyncAndWait(t.Context()))
	clock.Advance(startEvery)
	require.NoError(t, clock.BlockUntil(t.Context(), 1))
	require.Equal(t, clock.Now(), r.LastSuccessfulSyncAt())
	cancel()
	<-done
	require.False(t, r.failing)
}

func TestReporter_runEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run(ctx)
	}()
	require.NoError(t, b.clock.BlockUntil(t.Context(), 1))
	cancel()
	<-done
}
