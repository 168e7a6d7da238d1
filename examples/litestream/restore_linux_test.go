package main

import (
	"database/sql"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A disk that fills up while it is restored to is a failed check, and nothing is
// left. That takes a disk which is small enough.
func TestRestore_diskFills(t *testing.T) {
	t.Parallel()
	r := newRestoreBench(newBench(t))
	if err := syscall.Mount("tmpfs", r.dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skip("no file system can be mounted: ", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(r.dir, 0)) })
	db, err := sql.Open("sqlite", "file:"+r.db.Path()+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `CREATE TABLE large (x); INSERT INTO large VALUES (zeroblob(1000000));`)
	require.NoError(t, errors.Join(err, db.Close()))
	r.write(1)

	assert.Equal(t, time.Hour, r.checkRestore())
	assert.True(t, r.log.has("level=WARN", `msg="restore check failed"`, "a restore needs 66 MiB of free space in "+r.dir+", and there are 0"), r.log)
	r.freeSpace = func(string) (uint64, error) { return 1 << 40, nil } // another took it in the meantime
	r.verdict.failed = false
	assert.Equal(t, 2*time.Hour, r.checkRestore())
	assert.False(t, r.good())
	assert.True(t, r.log.has("level=WARN", `msg="restore check failed"`, "no space left on device"), r.log)
}
