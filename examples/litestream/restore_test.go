package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

// A restoreBench is a restore check on a fake clock, of a database that syncs when
// told to.
type restoreBench struct {
	*restoreCheck
	*bench
	log    *buffer
	losses int // how often it was told that the replica turned bad
}

func newRestoreBench(b *bench) *restoreBench {
	r := &restoreBench{bench: b, log: &buffer{}}
	r.restoreCheck = &restoreCheck{
		reporter: b.reporter, every: 24 * time.Hour, dir: b.t.TempDir(), timeout: patience, slot: make(chan struct{}, 1),
		freeSpace: freeSpace, clock: b.clock, lost: func(context.Context) { r.losses++ },
		logger: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	r.verdict.since = b.clock.Now()
	return r
}

// checkRestore makes a restore check, and sees to it that it leaves nothing behind.
func (r *restoreBench) checkRestore() (pause time.Duration) {
	r.t.Helper()
	pause = r.check(r.t.Context())
	r.nothingLeft()
	return pause
}

func (r *restoreBench) nothingLeft() {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	require.NoError(r.t, err)
	require.Empty(r.t, entries, "a scratch file was left behind")
}

// good reports whether the database counts.
func (r *restoreBench) good() bool {
	return r.restoreCheck.LastSuccessfulSyncAt().Equal(r.bench.clock.Now())
}

// write writes to the database and syncs it, a few times.
func (r *restoreBench) write(times int) {
	r.t.Helper()
	for range times {
		insert(r.t, r.db.Path())
		require.NoError(r.t, r.db.SyncAndWait(r.t.Context()))
	}
	r.bench.clock.Advance(r.bench.every)
	require.NoError(r.t, r.bench.check(r.t.Context()))
}

// A replicaStore is where the files of a replica are.
type replicaStore interface {
	keys(level int) []string
	change(key string, change func([]byte) []byte)
	remove(key string)
}

// A folder is a replicaStore on a disk.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) keys(level int) []string {
	keys, err := filepath.Glob(filepath.Join(f.dir, "ltx", strconv.Itoa(level), "*.ltx"))
	require.NoError(f.t, err)
	return keys
}

func (f folder) change(key string, change func([]byte) []byte) {
	data, err := os.ReadFile(key)
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(key, change(data), 0o600))
}

func (f folder) remove(key string) { require.NoError(f.t, os.Remove(key)) }

// flipMiddle changes a byte in the middle of a file, or the next from which another
// page comes: where a page compresses well, some say the same when they are changed.
func flipMiddle(data []byte) []byte {
	for at := len(data) / 2; ; at++ {
		changed := slices.Clone(data)
		changed[at] ^= 0x40
		if err, _ := verify(changed, true); err != nil {
			return changed
		}
	}
}

func cutEnd(data []byte) []byte { return data[:len(data)-20] }

// Faults that no listing shows, and some that it does: each is found, named, and
// gone when the replica is mended.
func testRestoreFaults(t *testing.T, newBench func(t *testing.T) (*bench, replicaStore)) {
	for name, test := range map[string]struct {
		fault func(*restoreBench, replicaStore)
		want  string // the error
	}{
		"byte changed in the newest file": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(0)[3], flipMiddle)
		}, "restore failed at file 0000000000000004-0000000000000004.ltx of level 0: "},
		"byte changed in the snapshot": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(litestream.SnapshotLevel)[0], flipMiddle)
		}, "restore failed at file 0000000000000001-0000000000000002.ltx of level 9: "},
		"byte changed in the checksum": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(0)[2], func(data []byte) []byte { data[len(data)-1] ^= 1; return data })
		}, "restore failed at file 0000000000000003-0000000000000003.ltx of level 0: "},
		"file cut": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(0)[3], cutEnd)
		}, "restore failed at file 0000000000000004-0000000000000004.ltx of level 0: "},
		"snapshot cut": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(litestream.SnapshotLevel)[0], cutEnd)
		}, "restore failed at file 0000000000000001-0000000000000002.ltx of level 9: "},
		"snapshot missing": {func(_ *restoreBench, s replicaStore) {
			for _, key := range append(s.keys(litestream.SnapshotLevel), s.keys(0)[:2]...) {
				s.remove(key)
			}
		}, "replica cannot be restored: transaction not available"},
		"newest file missing": {func(_ *restoreBench, s replicaStore) {
			s.remove(s.keys(0)[3])
		}, "replica cannot be restored: its files lead to transaction 3, and it had 4"},
		"file in between missing": {func(_ *restoreBench, s replicaStore) {
			s.remove(s.keys(0)[2])
		}, "replica cannot be restored: non-contiguous ltx files"},
		"another's newest file": {func(_ *restoreBench, s replicaStore) {
			s.change(s.keys(0)[3], func([]byte) (other []byte) {
				s.change(s.keys(0)[2], func(data []byte) []byte { other = slices.Clone(data); return data })
				return other
			})
		}, "non-contiguous transaction ids in input files"},
		"disk full": {func(r *restoreBench, _ replicaStore) {
			r.freeSpace = func(string) (uint64, error) { return 3 << 20, nil }
		}, "a restore needs 65 MiB of free space in "},
		"no scratch folder": {func(r *restoreBench, _ replicaStore) {
			require.NoError(r.t, os.Remove(r.dir))
			r.t.Cleanup(func() { _ = os.MkdirAll(r.dir, 0o700) })
		}, "free space: statfs "},
		"the query's answer is no": {func(r *restoreBench, _ replicaStore) {
			r.query = "SELECT count(*) > 4 FROM event"
		}, "restore-check-query: the restored copy does not answer with a true value"},
		"the query fails": {func(r *restoreBench, _ replicaStore) {
			r.query = "SELECT count(*) FROM missing"
		}, "restore-check-query: SQL logic error: no such table: missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, s := newBench(t)
			r := newRestoreBench(b)
			r.write(1)
			_, err := r.db.Snapshot(t.Context())
			require.NoError(t, err)
			r.write(2)
			require.Len(t, s.keys(0), 4)
			require.Zero(t, r.checkRestore(), "as usual")
			require.True(t, r.good(), r.log)
			passed := r.last().passed

			saved := map[string][]byte{}
			for _, level := range []int{0, litestream.SnapshotLevel} {
				for _, key := range s.keys(level) {
					s.change(key, func(data []byte) []byte { saved[key] = slices.Clone(data); return data })
				}
			}
			before := *r.clone()
			test.fault(r, s)
			r.bench.clock.Advance(time.Hour)
			for range 3 {
				_ = r.check(t.Context())
				require.False(t, r.good())
			}
			assert.True(t, r.log.has("level=WARN", `msg="restore check failed" db=`+r.db.Path(), test.want), r.log)
			assert.Equal(t, 1, strings.Count(r.log.String(), "level=WARN"), r.log)
			assert.Equal(t, 1, r.losses)
			assert.Equal(t, passed, r.last().passed)

			require.NoError(t, os.MkdirAll(r.dir, 0o700))
			r.nothingLeft()
			r.query, r.freeSpace = before.query, before.freeSpace
			for key, data := range saved {
				r.restoreFile(s, key, data)
			}
			require.Zero(t, r.checkRestore(), r.log)
			assert.True(t, r.good(), r.log)
			assert.True(t, r.log.has("level=INFO", `msg="restore check passed again" db=`+r.db.Path()), r.log)
			assert.Equal(t, r.bench.clock.Now(), r.last().passed)
		})
	}
}

// clone returns the settings of a restore check.
func (c *restoreCheck) clone() *restoreCheck {
	return &restoreCheck{query: c.query, freeSpace: c.freeSpace}
}

// restoreFile brings a file back as it was.
func (r *restoreBench) restoreFile(s replicaStore, key string, data []byte) {
	if f, ok := s.(folder); ok {
		require.NoError(f.t, os.WriteFile(key, data, 0o600))
		return
	}
	s.(interface{ put(string, []byte) }).put(key, data)
}

func newFileBench(t *testing.T) (*bench, replicaStore) {
	b := newBench(t)
	return b, folder{t, b.replicaDir()}
}

func TestRestore_faults(t *testing.T) {
	t.Parallel()
	testRestoreFaults(t, newFileBench)
}

func TestRestore_query(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	for query, want := range map[string]bool{
		"":                                 true,
		"SELECT 1":                         true,
		"SELECT 0":                         false,
		"SELECT -0.5;":                     true,
		"SELECT 0.0":                       false,
		"SELECT NULL":                      false,
		"SELECT '1x'":                      true,
		"SELECT 'x'":                       false,
		"SELECT at FROM event WHERE false": false,
		"SELECT max(at) > datetime('now', '-1 day') FROM event": true,
		"PRAGMA user_version":                    false,
		"WITH n AS (SELECT 3 x) SELECT x FROM n": true,
		"SELECT 1, 1":                            false,
		"/* a */ values(1)":                      true,
		"WITH n AS (SELECT 3 x) DELETE FROM event RETURNING 1": false,
	} {
		require.NoError(t, checkQuery(query), query)
		r.query = query
		err := r.restoreInTime(t.Context())
		assert.Equal(t, want, err == nil, "%s: %v", query, err)
	}
	for _, query := range []string{"SELECT ';'", `SELECT "a;b"`, "SELECT [;] -- and; more\n FROM x;", "SELECT /* ; */ 1; -- done", "SELECT 'it''s; so'", "SELECT 1 - 1;;"} {
		require.NoError(t, checkQuery(query), query)
	}
	for _, query := range []string{"SELECT 1; SELECT 1", "SELECT 1;ATTACH 'x' AS x", "SELECT 'x'; -- a\nDELETE FROM event", "SELECT 1 -- '\n; DELETE FROM event -- '"} {
		require.EqualError(t, checkQuery(query), "more than one SQL statement; write one", query)
	}
	for _, query := range []string{"DELETE FROM event RETURNING 1", "VACUUM INTO 'x'", "/* SELECT */ ATTACH 'x' AS y", "begin"} {
		require.EqualError(t, checkQuery(query), "not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA", query)
	}
	for _, query := range []string{"SELEKT 1", "SELECT (1", "SELECT count(* FROM event", "SELECT 'x"} {
		require.EqualError(t, checkQuery(query), "not an SQL statement such as SELECT count(*) > 0 FROM users")
	}
}

// What hangs is given up, and does not begin anew while it is still there.
func TestRestore_hangs(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	r.timeout = 50 * time.Millisecond
	release := make(chan struct{})
	r.db.Replica.Client = &hookClient{r.db.Replica.Client, func(int, ltx.TXID, ltx.TXID) error {
		<-release // it does not heed its context, as a file system that is gone
		return errors.New("stale file handle")
	}}
	_ = r.check(t.Context())
	assert.False(t, r.good())
	assert.True(t, r.log.has("level=WARN", `msg="restore check failed"`, "it was given up after "), r.log)
	select {
	case r.slot <- struct{}{}: // the restores of others go on
		<-r.slot
	default:
		t.Fatal("the slot is still taken")
	}
	require.EqualError(t, r.restoreInTime(t.Context()), "the restore that was given up before still hangs")
	close(release)
	eventually(t, func() bool { return !r.hanging.Load() }, "it does not end")
	r.nothingLeft()
}

func TestRestore_panics(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	r.freeSpace = func(string) (uint64, error) { panic("no disk") }
	_ = r.checkRestore()
	assert.True(t, r.log.has("level=WARN", "it ended in a panic: no disk"), r.log)
	assert.False(t, r.good())
}

// A check that was cut short says nothing.
func TestRestore_cutShort(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	ctx, cancel := context.WithCancel(t.Context())
	r.db.Replica.Client = &hookClient{r.db.Replica.Client, func(int, ltx.TXID, ltx.TXID) error {
		cancel()
		return nil
	}}
	assert.Zero(t, r.check(ctx))
	r.nothingLeft()
	assert.True(t, r.good())
	assert.Empty(t, r.log.String())
	assert.Zero(t, r.last().took)
}

// A restore may take the longer the more there is to restore.
func TestRestore_timeLimit(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	db, err := sql.Open("sqlite", "file:"+r.db.Path()+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `INSERT INTO attachment VALUES (zeroblob(?));`, 5*restoreRate)
	require.NoError(t, errors.Join(err, db.Close()))
	r.write(1)
	r.timeout = time.Minute
	var limits []time.Duration
	require.NoError(t, r.restore(t.Context(), func(limit time.Duration) { limits = append(limits, limit) }))
	assert.Equal(t, []time.Duration{time.Minute, time.Minute + 5*time.Second}, limits, "before and after its size is known")
}

// After a failure it is tried again soon, and then less and less often.
func TestRestore_pauses(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	r.query = "SELECT 0"
	for _, want := range []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour} {
		assert.Equal(t, want, r.checkRestore())
	}
	r.query = ""
	assert.Zero(t, r.checkRestore())
	r.query = "SELECT 0"
	assert.Equal(t, time.Hour, r.checkRestore())
}

// Checks are spread by the path, and come at the same moments whenever the program
// was started.
func TestRestore_next(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hours := map[int]int{}
	for i := range 1000 {
		c := &restoreCheck{reporter: newReporter(litestream.NewDB("/data/"+strconv.Itoa(i)+".db"), systemClock{}, nil), every: 24 * time.Hour}
		due := c.next(start)
		require.True(t, due.After(start) && !due.After(start.Add(c.every)))
		require.Equal(t, due, c.next(due.Add(-1)))
		require.Equal(t, due.Add(c.every), c.next(due))
		hours[due.Hour()]++
	}
	for hour := range 24 {
		assert.InDelta(t, 1000/24, hours[hour], 25, hour)
	}
}

// A check that cannot be made in time is told once, and the database does not count.
func TestRestore_overdue(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	r.slot <- struct{}{} // another's restore is under way
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	for age := time.Duration(0); age <= 48*time.Hour; age += time.Hour {
		require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
		require.True(t, r.good(), age)
		r.bench.clock.Advance(time.Hour)
	}
	require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
	require.False(t, r.good())
	eventually(t, func() bool { return r.log.has("level=WARN", `msg="restore check overdue"`) }, "not told")
	<-r.slot
	eventually(t, func() bool { return r.log.has("level=INFO", `msg="restore check passed again"`) }, "not made")
	require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
	require.True(t, r.good())
	cancel()
	<-done
	assert.Equal(t, 1, r.losses)
	assert.Equal(t, 1, strings.Count(r.log.String(), "level=WARN"), r.log)
	r.nothingLeft()
}

// Nothing is restored before a sync was proven.
func TestRestore_notProvenYet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.proven.Store(0)
	r := newRestoreBench(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	for range 25 * 12 {
		require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
		r.bench.clock.Advance(restoreNap)
	}
	require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
	require.Zero(t, r.last().took)
	b.proven.Store(1)
	r.bench.clock.Advance(restoreNap)
	require.NoError(t, r.bench.clock.BlockUntil(t.Context(), 1))
	require.Equal(t, r.bench.clock.Now(), r.last().passed)
	cancel()
	<-done
	r.nothingLeft()
}
