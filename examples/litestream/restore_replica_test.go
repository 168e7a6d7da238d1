package main

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

// A hookClient is a replica that something happens to while it is read.
type hookClient struct {
	litestream.ReplicaClient
	open func(level int, minTXID, maxTXID ltx.TXID) error // before a file is opened as a whole
}

func (c *hookClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	if size == 0 {
		if err := c.open(level, minTXID, maxTXID); err != nil {
			return nil, err
		}
	}
	return c.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
}

// hook makes something happen when a restore opens a file of level 0 that is there.
func (r *restoreBench) hook(open func()) {
	client := r.db.Replica.Client
	busy := make(chan struct{}, 1)
	r.db.Replica.Client = &hookClient{client, func(level int, minTXID, maxTXID ltx.TXID) error {
		if level != 0 {
			return nil
		}
		busy <- struct{}{}
		defer func() { <-busy }()
		rc, err := client.OpenLTXFile(r.t.Context(), level, minTXID, maxTXID, 0, 1)
		if err == nil {
			_ = rc.Close()
			open()
		}
		return nil
	}}
}

// moveAway does what compaction and retention do: of all files of level 0 it makes
// one of level 1.
func (r *restoreBench) moveAway() {
	_, err := r.db.Compact(r.t.Context(), 1)
	require.NoError(r.t, err)
	infos, err := files(r.t.Context(), r.db.Replica.Client, 0)
	require.NoError(r.t, err)
	require.NoError(r.t, r.db.Replica.Client.DeleteLTXFiles(r.t.Context(), infos[:len(infos)-1]))
}

// Retention during a restore is no fault of the replica.
func testRestoreMovedAway(t *testing.T, newBench func(t *testing.T) (*bench, replicaStore)) {
	for name, test := range map[string]struct {
		writes   bool // whether the database goes on, so that the transaction wanted is whole no more
		times    int
		finished bool
	}{
		"once, idle":         {false, 1, true},
		"once, written to":   {true, 1, true},
		"always, written to": {true, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := newBench(t)
			r := newRestoreBench(b)
			r.write(2)
			moved := 0
			r.hook(func() {
				if moved >= test.times {
					return
				}
				moved++
				if test.writes {
					for range 2 {
						insert(t, r.db.Path())
						require.NoError(t, r.db.SyncAndWait(t.Context()))
					}
				}
				r.moveAway()
				if test.times > 1 {
					insert(t, r.db.Path())
					require.NoError(t, r.db.SyncAndWait(t.Context()))
				}
			})
			pause := r.checkRestore()
			assert.NotZero(t, moved)
			assert.True(t, r.good(), r.log)
			assert.Zero(t, r.losses)
			assert.Equal(t, test.finished, r.log.has(`msg="restore check passed"`), r.log)
			if !test.finished {
				assert.True(t, r.log.has("level=INFO", `msg="restore check not finished"`, errMoved.Error()), r.log)
				assert.Equal(t, time.Hour, pause)
				assert.Zero(t, r.last().took)
			}
		})
	}
}

// A file that is listed, and is not there however often it is asked for, is a fault.
func TestRestore_listedButGone(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	r.write(2)
	client := r.db.Replica.Client
	r.db.Replica.Client = &hookClient{client, func(_ int, _, maxTXID ltx.TXID) error {
		if maxTXID == 2 {
			return os.ErrNotExist
		}
		return nil
	}}
	assert.Equal(t, time.Hour, r.checkRestore())
	assert.False(t, r.good())
	assert.True(t, r.log.has("level=WARN", `msg="restore check failed"`, "restore failed at file 0000000000000002-0000000000000002.ltx of level 0: ", "file does not exist"), r.log)
}

func TestRestore_movedAway(t *testing.T) {
	t.Parallel()
	testRestoreMovedAway(t, newFileBench)
}

func TestRestore_whileWrittenTo(t *testing.T) {
	t.Parallel()
	testRestoreWhileWrittenTo(t, newFileBench)
}

// A database that is written to and synced all the while is restored each time.
func testRestoreWhileWrittenTo(t *testing.T, newBench func(t *testing.T) (*bench, replicaStore)) {
	b, _ := newBench(t)
	r := newRestoreBench(b)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(insertRow(r.db.Path()), r.db.SyncAndWait(context.Background())); err != nil {
				stopped <- err
				return
			}
		}
	}()
	position := func() ltx.TXID {
		at, err := r.db.Pos()
		assert.NoError(t, err)
		return at.TXID
	}
	for range 10 {
		from := position()
		eventually(t, func() bool { return position() > from }, "nothing is written")
		r.bench.clock.Advance(r.bench.every)
		_ = r.bench.check(t.Context()) // it may find the replica behind, which is not what this is about
		require.Zero(t, r.checkRestore(), r.log)
		require.True(t, r.good(), r.log)
	}
	assert.Greater(t, r.proven.Load(), uint64(1))
	close(stop)
	require.NoError(t, <-stopped)
	assert.Zero(t, r.losses, r.log)
}

// Files that are sound, and another database's, are told by what they hold.
func TestRestore_anothersReplica(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"page count": `INSERT INTO attachment VALUES (randomblob(50000));`,
		"page size":  `PRAGMA journal_mode = delete; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = wal;`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRestoreBench(newBench(t))
			path := filepath.Join(t.TempDir(), "another.db")
			require.NoError(t, createDB(t.Context(), path))
			db, err := sql.Open("sqlite", "file:"+path)
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), change)
			require.NoError(t, errors.Join(err, db.Close()))
			another := openReplicated(t, path, "file://"+filepath.Join(filepath.Dir(path), "replica"))
			require.NoError(t, another.SyncAndWait(t.Context()))
			data, err := os.ReadFile(ltxFiles(t, filepath.Join(filepath.Dir(path), "replica"))[0])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(ltxFiles(t, r.replicaDir())[0], data, 0o600))

			_ = r.checkRestore()
			assert.False(t, r.good())
			assert.True(t, r.log.has("level=WARN", `error="restored copy has transaction 1, `, "; the database has transaction 1, "), r.log)
		})
	}
}
