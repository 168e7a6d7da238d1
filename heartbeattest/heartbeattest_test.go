package heartbeattest_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

var _ heartbeat.Clock = (*heartbeattest.Clock)(nil)

// In a synctest bubble a daemon's test needs no fake clock: the bubble's time
// jumps whenever every goroutine in it waits.
func TestStalledDatabase_Synctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := heartbeat.NewSyncTracker("/data/app.db")
		var pinger heartbeattest.Pinger
		monitor, err := heartbeat.New(&pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{Interval: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		db.Record(time.Now())
		go monitor.Run(t.Context())

		time.Sleep(time.Minute - 1)
		synctest.Wait()
		require.Len(t, pinger.Times(), 1)
		time.Sleep(10 * time.Minute) // the last sync counts for one minute
		synctest.Wait()
		require.Len(t, pinger.Times(), 2)
		require.Equal(t, heartbeat.ReasonStale, monitor.Status().LastResult.Reason)
	})
}

func TestClock_After(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	require.Equal(t, start, clock.Now())
	require.Equal(t, start, <-clock.After(0))
	require.Equal(t, start, <-clock.After(-time.Second))

	late, soon := clock.After(2*time.Minute), clock.After(time.Minute)
	require.NoError(t, clock.BlockUntil(t.Context(), 2))
	clock.Advance(time.Minute - 1)
	require.Empty(t, soon)
	clock.Advance(1)
	require.Equal(t, start.Add(time.Minute), <-soon)
	require.Empty(t, late)
	clock.Advance(-time.Hour)
	require.Empty(t, late)
	clock.Advance(3 * time.Hour)
	require.Equal(t, start.Add(2*time.Hour+time.Minute), <-late, "one jump")
	require.Equal(t, start.Add(2*time.Hour+time.Minute), clock.Now())
}

func TestClock_BlockUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := heartbeattest.NewClock(start)
		done := make(chan error, 1)
		go func() { done <- clock.BlockUntil(t.Context(), 2) }()
		clock.After(time.Minute)
		synctest.Wait()
		require.Empty(t, done)
		clock.After(time.Minute)
		synctest.Wait()
		require.NoError(t, <-done)

		clock.Advance(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, clock.BlockUntil(ctx, 1), context.DeadlineExceeded, "who was served waits no more")
	})
}

// Step waits for a waiter, moves the clock, and waits for the next one if that waiter
// was served. One that was given up for an earlier one does not count.
func TestClock_Step(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := heartbeattest.NewClock(start)
		done := make(chan error, 1)
		step := func(d time.Duration) { go func() { done <- clock.Step(t.Context(), d) }() }
		step(time.Minute)
		synctest.Wait()
		require.Equal(t, start, clock.Now(), "nobody waits yet")
		clock.After(2 * time.Minute)
		require.NoError(t, <-done, "who waits longer still waits")
		require.Equal(t, start.Add(time.Minute), clock.Now())

		clock.After(30 * time.Second) // in place of the other
		step(30 * time.Second)
		synctest.Wait()
		require.Empty(t, done, "nobody waits again")
		clock.After(time.Minute)
		require.NoError(t, <-done)
		require.NoError(t, clock.Step(t.Context(), 30*time.Second), "only the one that was given up is served")

		step(time.Hour)
		synctest.Wait()
		require.Empty(t, done)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, clock.Step(ctx, time.Hour), context.DeadlineExceeded)
		clock.After(time.Minute)
		require.NoError(t, <-done)
	})
}

func TestPinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := heartbeattest.NewClock(start)
		pinger := heartbeattest.NewPinger(clock)
		require.NoError(t, pinger.Ping(t.Context()))
		clock.Advance(time.Minute)
		lost := errors.New("lost")
		pinger.Fail(lost)
		require.ErrorIs(t, pinger.Ping(t.Context()), lost)
		pinger.Fail(nil)
		require.Equal(t, []time.Time{start, start.Add(time.Minute)}, pinger.Times())

		release := pinger.Block()
		done := make(chan error, 1)
		go func() { done <- pinger.Ping(t.Context()) }()
		require.NoError(t, pinger.BlockUntil(t.Context(), 3))
		synctest.Wait()
		require.Empty(t, done)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, pinger.Ping(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, pinger.BlockUntil(ctx, 5), context.DeadlineExceeded)
		release()
		release()
		require.NoError(t, <-done)
		require.NoError(t, pinger.Ping(t.Context()))

		first, second := pinger.Block(), pinger.Block()
		first()
		go func() { done <- pinger.Ping(t.Context()) }()
		synctest.Wait()
		require.Empty(t, done, "each Block is released by its own function")
		second()
		require.NoError(t, <-done)
	})
}

func TestPinger_ZeroValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pinger heartbeattest.Pinger
		require.NoError(t, pinger.Ping(t.Context()))
		require.Equal(t, []time.Time{time.Now()}, pinger.Times())
	})
}

func TestReporter(t *testing.T) {
	reporter := heartbeattest.NewReporter("/data/app.db")
	require.Equal(t, "/data/app.db", reporter.Path())
	require.Zero(t, reporter.LastSuccessfulSyncAt())
	reporter.Set(start)
	require.Equal(t, start, reporter.LastSuccessfulSyncAt())
}
