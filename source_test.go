package heartbeat_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// H4: a Source's databases are judged beside those that were added, and are in "all"
// for as long as it names them.
func TestH4_Source(t *testing.T) {
	second := heartbeattest.NewReporter("/data/users.db")
	second.Set(epoch)
	var named []heartbeat.SyncReporter
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { return named }})
	beat := func() heartbeat.Result {
		f.clock.Advance(time.Minute)
		return f.Beat(t.Context())
	}
	require.Equal(t, 1, beat().Databases)
	named = []heartbeat.SyncReporter{second}
	result := beat()
	require.Equal(t, 2, result.Databases)
	require.Equal(t, heartbeat.Sent, result.Outcome)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch}, {Path: "/data/users.db", LastSyncAt: epoch}}, f.Status().Databases)

	stale := heartbeattest.NewReporter("/data/app.db") // the path of one that was added
	named = []heartbeat.SyncReporter{second, stale, stale}
	result = beat()
	require.Equal(t, 4, result.Databases, "two with one path are both judged")
	require.Len(t, result.Unhealthy, 2)

	require.True(t, f.Remove("/data/app.db"))
	require.False(t, f.Remove("/data/users.db"), "it is not the Monitor's to remove")
	named = nil
	require.Equal(t, heartbeat.ReasonNoDatabases, beat().Reason)
	require.False(t, f.Status().Healthy)
}

// H4, H5: a Source that panics, or returns a nil, is an unhealthy check. The log says
// which it was, and what was added is judged all the same.
func TestH4_SourceMisbehaves(t *testing.T) {
	source := func() []heartbeat.SyncReporter { panic("closed") }
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { return source() }})
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "Options.Source", Reason: heartbeat.ReasonPanicked}}, result.Unhealthy)
	require.Equal(t, "level=ERROR msg=\"sync reporter panicked\" db=Options.Source panic=closed\n"+
		"level=WARN msg=\"heartbeat skipped\" reason=\"sync reporter panicked\" db=Options.Source\n", f.log.take())
	status := f.Status()
	require.False(t, status.Healthy)
	require.Len(t, status.Databases, 2)

	for _, bad := range []heartbeat.SyncReporter{nil, (*panicReporter)(nil)} {
		source = func() []heartbeat.SyncReporter { return []heartbeat.SyncReporter{f.reporter, bad} }
		result = f.Beat(t.Context())
		require.Equal(t, 3, result.Databases)
		require.Len(t, result.Unhealthy, 1)
		require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	}
	require.Empty(t, f.pinger.Times())
}

// A Source may call back, and may block without holding up anything but its check.
func TestH4_SourceCallsBack(t *testing.T) {
	var m *heartbeat.Monitor
	calls := 0
	source := func() []heartbeat.SyncReporter {
		if calls++; calls == 1 {
			m.Status()
			require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/new.db")))
			require.True(t, m.Remove("/data/new.db"))
		}
		return []heartbeat.SyncReporter{alwaysFresh{}}
	}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet, Source: source})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)

	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), nil, &heartbeat.Options{Logger: quiet, Interval: time.Minute, Source: func() []heartbeat.SyncReporter {
			time.Sleep(40 * time.Second)
			return []heartbeat.SyncReporter{alwaysFresh{}}
		}})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(20 * time.Second)
		require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/new.db")))
		require.True(t, m.Remove("/data/new.db"))
		require.Equal(t, 20*time.Second, time.Since(start))
		time.Sleep(4 * time.Minute)
		stop()
		require.Equal(t, seconds(40, 140, 240), at[:3], "the minute counts from when a ping went out")
	})
}

// A set that changes at every check, from a hundred goroutines, is judged as it was at
// one moment.
func TestH4_SourceUnderLoad(t *testing.T) {
	var mu sync.Mutex
	enabled := map[string]heartbeat.SyncReporter{}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet, FailPinger: heartbeattest.NewPinger(&stillClock{}), Source: func() []heartbeat.SyncReporter {
		mu.Lock()
		defer mu.Unlock()
		var named []heartbeat.SyncReporter
		for _, r := range enabled {
			named = append(named, r)
		}
		return named
	}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 100 {
		wg.Go(func() {
			path := fmt.Sprint("/data/", i)
			for range 20 {
				mu.Lock()
				enabled[path] = reporterFunc{path, time.Now}
				mu.Unlock()
				if m.Beat(t.Context()).Unhealthy != nil {
					wrong.Add(1)
				}
				mu.Lock()
				delete(enabled, path)
				mu.Unlock()
				m.Status()
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
	require.Empty(t, m.Status().Databases)
}

// A Source costs no allocation beyond its own.
func TestH4_SourceAllocates(t *testing.T) {
	named := make([]heartbeat.SyncReporter, 100)
	for i := range named {
		reporter := heartbeattest.NewReporter(fmt.Sprint("/data/", i))
		reporter.Set(epoch)
		named[i] = reporter
	}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{
		Logger: quiet, Clock: &stillClock{epoch}, FailPinger: &heartbeattest.Pinger{},
		Source: func() []heartbeat.SyncReporter { return named },
	})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Beat(t.Context()) }))
}
