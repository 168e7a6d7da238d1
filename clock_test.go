package heartbeat_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

// jumping runs a Monitor with a FailPinger in a bubble on a skewedClock. Its database
// syncs every half minute until the given time. steps are done at their times. It
// returns when pings and signals began, by the bubble's time, which is the monotonic
// clock's.
func jumping(t *testing.T, d, until time.Duration, opts heartbeat.Options, clock *skewedClock, steps map[time.Duration]func(m *heartbeat.Monitor)) (pings, signals []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock.start = time.Now()
		db := heartbeat.NewSyncTracker("/data/app.db")
		db.Record(clock.Now())
		since := func(at *[]time.Duration) heartbeat.Pinger {
			return heartbeat.PingerFunc(func(context.Context) error {
				*at = append(*at, time.Since(clock.start))
				return nil
			})
		}
		opts.Clock, opts.Logger, opts.FailPinger = clock, quiet, since(&signals)
		m, err := heartbeat.New(since(&pings), []heartbeat.SyncReporter{db}, &opts)
		require.NoError(t, err)
		for at, step := range steps {
			time.AfterFunc(at, func() { step(m) })
		}
		for at := 30 * time.Second; at <= until; at += 30 * time.Second {
			time.AfterFunc(at, func() { db.Record(clock.Now()) })
		}
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		require.NoError(t, m.Run(ctx))
	})
	return pings, signals
}

func stepBy(clock *skewedClock, d time.Duration) func(*heartbeat.Monitor) {
	return func(*heartbeat.Monitor) { clock.step(d) }
}

// S7, F1: a clock that is stepped is no outage. The beat is back when the database has
// synced by the new time.
func TestS7_Stepped(t *testing.T) {
	for _, by := range []time.Duration{3 * time.Hour, -3 * time.Hour, 75 * time.Second} {
		clock := &skewedClock{}
		pings, signals := jumping(t, 20*time.Minute, 20*time.Minute, heartbeat.Options{Interval: time.Minute}, clock,
			map[time.Duration]func(*heartbeat.Monitor){5*time.Minute + 15*time.Second: stepBy(clock, by)})
		require.Empty(t, signals, "%v", by)
		require.GreaterOrEqual(t, len(pings), 19)
		for i := 1; i < len(pings); i++ {
			require.LessOrEqual(t, pings[i]-pings[i-1], 70*time.Second, "%v: %v", by, pings)
		}
	}
}

// S7, F1: a database that does not sync after a jump is signalled when it would have
// been without the jump.
func TestS7_LostAcrossAJump(t *testing.T) {
	clock := &skewedClock{}
	_, signals := jumping(t, 20*time.Minute, 5*time.Minute, heartbeat.Options{Interval: time.Minute, MaxSyncAge: 3 * time.Minute}, clock,
		map[time.Duration]func(*heartbeat.Monitor){6*time.Minute + 15*time.Second: stepBy(clock, 8*time.Hour)})
	require.Equal(t, []time.Duration{8*time.Minute + 1}, signals)
}

// S7, F1: jumps that come again and again mute nothing.
func TestS7_ManyJumps(t *testing.T) {
	clock := &skewedClock{}
	steps := map[time.Duration]func(*heartbeat.Monitor){}
	for at := 40 * time.Second; at < 2*time.Hour; at += 50 * time.Second {
		steps[at] = stepBy(clock, time.Minute)
	}
	pings, signals := jumping(t, 2*time.Hour, time.Hour, heartbeat.Options{Interval: time.Minute, MaxSyncAge: 3 * time.Minute}, clock, steps)
	require.Equal(t, []time.Duration{63*time.Minute + 1}, signals)
	require.Greater(t, len(pings), 50)
}

// S7, F4: a clock without monotonic readings that is set back loses no database, and
// not one that was added five minutes before and has not synced.
func TestS7_AddedBeforeSetBack(t *testing.T) {
	clock := &skewedClock{bare: true}
	_, signals := jumping(t, time.Hour, time.Hour, heartbeat.Options{}, clock, map[time.Duration]func(*heartbeat.Monitor){
		10 * time.Minute: func(m *heartbeat.Monitor) {
			db := heartbeat.NewSyncTracker("/data/new.db")
			db.Record(clock.Now().Add(-time.Hour))
			require.NoError(t, m.Add(db))
		},
		15 * time.Minute: stepBy(clock, -2*time.Hour),
	})
	require.Empty(t, signals)
}

// S7: a jump owes a beat at once, also an hourly one. On the system's clock Run wakes
// every five minutes to see it; here a Beat that is rate-limited does.
func TestS7_Nap(t *testing.T) {
	clock := &skewedClock{}
	pings, signals := jumping(t, 90*time.Minute, 90*time.Minute, heartbeat.Options{Interval: time.Hour, MaxSyncAge: 2 * time.Hour}, clock,
		map[time.Duration]func(*heartbeat.Monitor){
			30 * time.Second: func(m *heartbeat.Monitor) {
				clock.step(40 * time.Minute)
				m.Beat(context.Background())
			},
		})
	require.Empty(t, signals)
	require.Equal(t, []time.Duration{0, time.Minute, time.Hour}, pings)
}
