//go:build backends

package main

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRestore_s3Faults(t *testing.T) {
	t.Parallel()
	testRestoreFaults(t, newS3RestoreBench)
}

func TestRestore_s3MovedAway(t *testing.T) {
	t.Parallel()
	testRestoreMovedAway(t, newS3RestoreBench)
}

func TestRestore_s3WhileWrittenTo(t *testing.T) {
	t.Parallel()
	testRestoreWhileWrittenTo(t, newS3RestoreBench)
}

func newS3RestoreBench(t *testing.T) (*bench, replicaStore) { return newS3Bench(t, time.Minute) }

// What a restore check costs: a listing of each level, and each file of the plan once.
func TestRestore_requests(t *testing.T) {
	t.Parallel()
	b, s := newS3Bench(t, time.Minute)
	r := newRestoreBench(b)
	r.write(5)
	_, err := r.db.Compact(t.Context(), 1)
	require.NoError(t, err)
	r.write(2)
	s.taken()
	require.Zero(t, r.checkRestore())
	require.True(t, r.good(), r.log)
	assert.Equal(t, map[string]int{"LIST": 10, "GET": 1 + 2}, s.taken(), "one file of level 1, and two of level 0")
}

// A server that does not answer ends neither the daemon nor what it has to do else.
func TestRestore_s3Hangs(t *testing.T) {
	t.Parallel()
	b, s := newS3Bench(t, time.Minute)
	r := newRestoreBench(b)
	r.timeout = 100 * time.Millisecond
	s.stall("GET", true)
	assert.Equal(t, time.Hour, r.checkRestore())
	assert.False(t, r.good())
	assert.True(t, r.log.has("level=WARN", `msg="restore check failed"`, "it was given up after "), r.log)
	assert.False(t, r.hanging.Load(), "it heeds its context")

	// Told to stop, it says nothing of the replica.
	before := r.log.String()
	r.timeout = patience
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	s.taken()
	go func() {
		defer close(done)
		r.check(ctx)
	}()
	eventually(t, func() bool { return s.asked("GET") > 0 }, "no request")
	cancel()
	<-done
	r.nothingLeft()
	assert.Equal(t, before, r.log.String())

	s.stall("GET", false)
	require.Zero(t, r.checkRestore())
	assert.True(t, r.good())
}
