package heartbeattest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// The README's test of a daemon.
func TestReadmeStep(t *testing.T) {
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	pinger := heartbeattest.NewPinger(clock)
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{Clock: clock})
	require.NoError(t, err)
	go monitor.Run(t.Context())

	require.NoError(t, clock.Step(t.Context(), 5*time.Minute)) // the last sync is as old as it may be
	require.Len(t, pinger.Times(), 2)
	require.NoError(t, clock.Step(t.Context(), 5*time.Minute)) // and now it is too old
	require.Len(t, pinger.Times(), 2)
}
