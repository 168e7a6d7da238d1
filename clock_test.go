package heartbeat_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// S4: grid points missed while late are dropped, and the grid stays.
func TestS4_Jump(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	for _, jump := range minutes(5, 23, 2, 5) {
		require.NoError(t, f.clock.Step(ctx, jump))
	}
	cancel()
	require.NoError(t, <-done)
	var at []time.Duration
	for _, ping := range f.pinger.Times() {
		at = append(at, ping.Sub(epoch))
	}
	require.Equal(t, minutes(0, 5, 28, 30, 35), at)
}

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
	clock, looks := &skewedClock{}, 0
	opts := heartbeat.Options{
		Interval: time.Minute, MaxSyncAge: 3 * time.Minute,
		Source: func() []heartbeat.SyncReporter { looks++; return nil },
	}
	_, signals := jumping(t, 8*time.Minute+2, 5*time.Minute, opts, clock,
		map[time.Duration]func(*heartbeat.Monitor){6*time.Minute + 15*time.Second: stepBy(clock, 8*time.Hour)})
	require.Equal(t, []time.Duration{8*time.Minute + 1}, signals)
	require.Equal(t, 7+7+1, looks, "one a minute, one in ten seconds of the last minute, and one for the loss")
}

// S7, F1: a jump that is seen late counts for MaxSyncAge from then on, and Run looks when
// that is over.
func TestS7_SeenLate(t *testing.T) {
	clock := &skewedClock{}
	_, signals := jumping(t, time.Hour-1, 25*time.Minute, heartbeat.Options{Interval: time.Hour, MaxSyncAge: 10 * time.Minute}, clock,
		map[time.Duration]func(*heartbeat.Monitor){
			21 * time.Minute: stepBy(clock, 15*time.Minute),
			30 * time.Minute: func(m *heartbeat.Monitor) { m.Beat(context.Background()) }, // sees it
		})
	require.Equal(t, []time.Duration{40*time.Minute + 1}, signals)
}

// S7, F1: a jump counts for MaxSyncAge, and the jumps after it are none of that time.
func TestS7_JumpAfterAJump(t *testing.T) {
	clock := &skewedClock{}
	_, signals := jumping(t, 20*time.Minute, 6*time.Minute, heartbeat.Options{Interval: time.Minute, MaxSyncAge: 10 * time.Minute}, clock,
		map[time.Duration]func(*heartbeat.Monitor){
			6*time.Minute + 15*time.Second:  stepBy(clock, 8*time.Hour),
			10*time.Minute + 15*time.Second: stepBy(clock, 3*time.Hour),
		})
	require.Equal(t, []time.Duration{16*time.Minute + 1}, signals)
}

// S7, F4: a database that was stale before a jump is not lost by it.
func TestS7_StaleBeforeAJump(t *testing.T) {
	clock := &skewedClock{}
	_, signals := jumping(t, 20*time.Minute, 20*time.Minute, heartbeat.Options{Interval: time.Minute}, clock, map[time.Duration]func(*heartbeat.Monitor){
		time.Minute: func(m *heartbeat.Monitor) {
			db := heartbeat.NewSyncTracker("/data/old.db")
			db.Record(clock.Now().Add(-time.Hour))
			require.NoError(t, m.Add(db))
		},
		5*time.Minute + 15*time.Second: stepBy(clock, 3*time.Hour),
	})
	require.Empty(t, signals)
}

// S7: a Run that ends and waits for a ping is not woken late. In the next, a loss is
// told when it would be without the wait.
func TestS7_EndOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var start time.Time
		var signals []time.Duration
		hangs := time.Hour
		db := heartbeat.NewSyncTracker("/data/app.db")
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			time.Sleep(hangs) // it ignores its ctx
			return nil
		}), []heartbeat.SyncReporter{db}, &heartbeat.Options{
			Logger: quiet,
			FailPinger: heartbeat.PingerFunc(func(context.Context) error {
				signals = append(signals, time.Since(start))
				return nil
			}),
		})
		require.NoError(t, err)
		for _, lasts := range minutes(1, 20) {
			start = time.Now()
			db.Record(start.Add(-time.Minute))
			ctx, cancel := context.WithTimeout(t.Context(), lasts)
			require.NoError(t, m.Run(ctx))
			cancel()
			hangs = 0
		}
		require.Equal(t, []time.Duration{4*time.Minute + 1}, signals)
	})
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

// S7: a jump of ten seconds is seen as one, in both directions, and a shorter one is not.
func TestS7_TenSeconds(t *testing.T) {
	for by, want := range map[time.Duration][]time.Duration{
		10 * time.Second: {0, time.Minute, time.Hour}, 10*time.Second - 1: {0, time.Hour},
		-10 * time.Second: {0, time.Minute, time.Hour}, 1 - 10*time.Second: {0, time.Hour},
	} {
		clock := &skewedClock{}
		pings, _ := jumping(t, 61*time.Minute, 61*time.Minute, heartbeat.Options{Interval: time.Hour, MaxSyncAge: 2 * time.Hour}, clock,
			map[time.Duration]func(*heartbeat.Monitor){
				30 * time.Second: func(m *heartbeat.Monitor) {
					clock.step(by)
					m.Beat(context.Background()) // sees it
				},
			})
		require.Equal(t, want, pings, "%v", by)
	}
}

// withMonotonic returns wall with that monotonic reading, which package time
// offers no way to choose. The fields are those of time.Time.
func withMonotonic(wall time.Time, reading time.Duration) time.Time {
	const secondsTo1885 = 59453308800 - 62135596800 // from 1970
	bits := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&wall))
	bits.wall, bits.ext = 1<<63|uint64(wall.Unix()-secondsTo1885)<<30|uint64(wall.Nanosecond()), int64(reading)
	return wall
}

// A skewedClock is a Clock for a bubble, whose wall clock can be set apart from
// the monotonic one. That is what it looks like when someone sets the clock, and
// also when the machine was suspended.
type skewedClock struct {
	start time.Time     // of the bubble
	late  time.Duration // by which timers fire late
	bare  bool          // no monotonic reading
	skew  atomic.Int64
}

func (c *skewedClock) Now() time.Time {
	elapsed := time.Since(c.start)
	wall := epoch.Add(elapsed + time.Duration(c.skew.Load()))
	if c.bare {
		return wall
	}
	return withMonotonic(wall, time.Second+elapsed)
}

func (c *skewedClock) After(d time.Duration) <-chan time.Time { return time.After(d + c.late) }

func (c *skewedClock) step(d time.Duration) { c.skew.Add(int64(d)) }

func TestFault_WithMonotonic(t *testing.T) {
	at := withMonotonic(epoch.Add(time.Hour), 3*time.Second)
	require.True(t, at.Round(0).Equal(epoch.Add(time.Hour)))
	require.Equal(t, 2*time.Second, at.Sub(withMonotonic(epoch, time.Second)))
}

// skewed runs a Monitor in a bubble on clock for d. A database syncs each
// minute, at half past. It returns when pings began, by the bubble's time; steps
// are done at their time.
func skewed(t *testing.T, d, interval time.Duration, clock *skewedClock, steps map[time.Duration]func()) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		clock.start = time.Now()
		tracker := heartbeat.NewSyncTracker("/data/app.db")
		tracker.Record(clock.Now())
		monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(clock.start))
			return nil
		}), []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Interval: interval, Clock: clock, Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan error)
		go func() { done <- monitor.Run(ctx) }()
		for time.Sleep(30 * time.Second); ctx.Err() == nil; time.Sleep(30 * time.Second) {
			if step := steps[time.Since(clock.start)]; step != nil {
				step()
			}
			if time.Since(clock.start)%time.Minute != 0 {
				tracker.Record(clock.Now())
			}
		}
		require.NoError(t, <-done)
	})
	return at
}

func TestFault_Clocks(t *testing.T) {
	const interval = 5 * time.Minute
	onTime := minutes(0, 5, 10, 15, 20, 25)
	for _, hour := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(fmt.Sprint("the wall clock is set by ", hour), func(t *testing.T) {
			clock := &skewedClock{}
			require.Equal(t, onTime, skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				12 * time.Minute: func() { clock.step(hour) },
			}))
		})
		t.Run(fmt.Sprintf("the wall clock is set by %v just before a beat", hour), func(t *testing.T) {
			// The last sync is an hour away by the wall clock, so there is no beat
			// until the next, half a minute after the grid point, and a look after it.
			clock := &skewedClock{}
			at := skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				10*time.Minute - 30*time.Second: func() { time.AfterFunc(29*time.Second, func() { clock.step(hour) }) },
			})
			require.GreaterOrEqual(t, at[2], 630*time.Second)
			require.LessOrEqual(t, at[2], 640*time.Second)
			at[2] = 10 * time.Minute
			require.Equal(t, onTime, at)
		})
		t.Run(fmt.Sprintf("a clock without a monotonic reading is set by %v", hour), func(t *testing.T) {
			// There is nothing to keep the grid by, but a beat comes within a minute
			// of the wake-up that was due.
			clock := &skewedClock{bare: true}
			at := skewed(t, 29*time.Minute, interval, clock, map[time.Duration]func(){
				12 * time.Minute: func() { clock.step(hour) },
			})
			for i := 1; i < len(at); i++ {
				require.LessOrEqual(t, at[i]-at[i-1], interval+time.Minute, "%v", at)
				require.GreaterOrEqual(t, at[i]-at[i-1], time.Minute, "%v", at)
			}
			require.GreaterOrEqual(t, at[len(at)-1], 24*time.Minute, "%v", at)
		})
	}
	t.Run("back an hour, every minute", func(t *testing.T) {
		clock := &skewedClock{bare: true}
		at := skewed(t, 20*time.Minute, time.Minute, clock, map[time.Duration]func(){
			10 * time.Minute: func() { clock.step(-time.Hour) },
		})
		for i := 1; i < len(at); i++ {
			require.LessOrEqual(t, at[i]-at[i-1], 2*time.Minute, "%v", at)
		}
	})
	t.Run("timers are late", func(t *testing.T) {
		const late = 17 * time.Second
		require.Equal(t, []time.Duration{0, 5*time.Minute + late, 10*time.Minute + late, 15*time.Minute + late},
			skewed(t, 19*time.Minute, interval, &skewedClock{late: late}, nil), "the grid does not move")
	})
	t.Run("timers are later than the interval", func(t *testing.T) {
		require.Equal(t, minutes(0, 12, 22), // due at 5 and at 15
			skewed(t, 29*time.Minute, interval, &skewedClock{late: 7 * time.Minute}, nil), "beats are dropped, not replayed")
	})
	t.Run("suspend", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			clock := &skewedClock{start: time.Now()}
			tracker := heartbeat.NewSyncTracker("/data/app.db")
			tracker.Record(clock.Now())
			pinger := heartbeattest.NewPinger(clock)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Clock: clock, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { _ = monitor.Run(ctx) }()
			time.Sleep(time.Minute)
			clock.step(8 * time.Hour)
			status := monitor.Status()
			require.False(t, status.Healthy, "one minute by the monotonic clock is 8 hours in truth")
			require.Equal(t, heartbeat.ReasonStale, status.Databases[0].Reason)
			time.Sleep(4*time.Minute + time.Second)
			require.Len(t, pinger.Times(), 1)
			tracker.Record(clock.Now())
			time.Sleep(time.Minute)
			require.Len(t, pinger.Times(), 2, "tried again a minute later")
		})
	})
	t.Run("a clock that stands still", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			clock := heartbeattest.NewClock(epoch)
			reporter := heartbeattest.NewReporter("/data/app.db")
			reporter.Set(epoch)
			pinger := heartbeattest.NewPinger(clock)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: funcClock{clock.Now, time.After}, Logger: quiet})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), day)
			defer cancel()
			require.NoError(t, monitor.Run(ctx))
			require.Len(t, pinger.Times(), 1)
		})
	})
	t.Run("a jump over several grid points", func(t *testing.T) {
		f := newFixture(t, heartbeat.Options{Logger: quiet})
		stop := run(t, f.Monitor)
		defer stop()
		require.NoError(t, f.clock.BlockUntil(t.Context(), 1))
		for _, jump := range minutes(17, 3, 5) {
			f.reporter.Set(f.clock.Now().Add(jump))
			require.NoError(t, f.clock.Step(t.Context(), jump))
		}
		var at []time.Duration
		for _, ping := range f.pinger.Times() {
			at = append(at, ping.Sub(epoch))
		}
		require.Equal(t, minutes(0, 17, 20, 25), at)
	})
}

// S7: a clock without a monotonic reading that is set back rate-limits no Beat for
// longer than before, whether Run runs or not.
func TestS7_SetBackWithoutRun(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: 24 * time.Hour})
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
	f.clock.Advance(30*time.Second - 5*time.Hour)
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(time.Minute - 1)
	require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason)
	f.clock.Advance(1)
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
	require.Equal(t, f.clock.Now(), f.Status().LastSentAt)
}

// S7: whatever a clock without a monotonic reading does, a beat comes within the
// interval and a minute, retries included.
func TestS7_SetBackInALongInterval(t *testing.T) {
	const interval = 24 * time.Hour
	for _, row := range []struct{ after, step time.Duration }{
		{30 * time.Second, -11 * time.Hour}, {30 * time.Second, -30 * time.Second}, {30 * time.Second, 11 * time.Hour},
		{12 * time.Hour, -11 * time.Hour}, {12 * time.Hour, -11*time.Hour - 59*time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			clock := &skewedClock{bare: true, start: time.Now()}
			var at []time.Duration
			m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
				if at = append(at, time.Since(clock.start)); len(at) == 1 {
					return errLost
				}
				return nil
			}), []heartbeat.SyncReporter{reporterFunc{"/data/app.db", clock.Now}}, &heartbeat.Options{Interval: interval, Clock: clock, Logger: quiet})
			require.NoError(t, err)
			time.AfterFunc(row.after, func() { clock.step(row.step) })
			ctx, cancel := context.WithTimeout(t.Context(), 3*interval)
			defer cancel()
			require.NoError(t, m.Run(ctx))
			require.LessOrEqual(t, at[1], 2*time.Minute, "%v", at)
			for i := 2; i < len(at); i++ {
				require.LessOrEqual(t, at[i]-at[i-1], interval+time.Minute, "%v", at)
			}
		})
	}
}

// S7: a timer that fires ten seconds early says that the clock was set back.
func TestS7_EarlyTimer(t *testing.T) {
	for back, late := range map[time.Duration]time.Duration{10 * time.Second: 0, 10*time.Second - 1: 10*time.Second - 1} {
		clock := &skewedClock{bare: true}
		pings, _ := jumping(t, 61*time.Minute, 61*time.Minute, heartbeat.Options{Interval: time.Hour, MaxSyncAge: 2 * time.Hour}, clock,
			map[time.Duration]func(*heartbeat.Monitor){30 * time.Minute: stepBy(clock, -back)})
		require.Equal(t, []time.Duration{0, time.Hour + late}, pings[:2])
	}
}

// S7: a clock that jumps by more than a Duration can hold makes nothing spin.
func TestS7_Centuries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, from := range []time.Time{{}, epoch} {
			checks := 0
			clock := &skewedClock{start: time.Now(), bare: true}
			centuries := atomic.Int32{}
			now := func() time.Time { return clock.Now().AddDate(100*int(centuries.Load()), 0, 0) }
			m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{"/data/app.db", now}},
				&heartbeat.Options{Clock: funcClock{now, clock.After}, Logger: quiet, OnResult: func(heartbeat.Result) { checks++ }})
			require.NoError(t, err)
			clock.step(from.Sub(epoch))
			stop := run(t, m)
			time.Sleep(time.Minute)
			centuries.Store(10)
			time.Sleep(10 * time.Minute)
			stop()
			require.Equal(t, 3, checks, "at 0, at 5m, where a new grid begins, and at 10m")
		}
	})
}

// S7, F1: a jump that has expired excuses nothing again, however the clock is set later.
func TestS7_OldJumpAfterACorrection(t *testing.T) {
	clock := &skewedClock{}
	_, signals := jumping(t, 3*time.Hour, 20*time.Minute, heartbeat.Options{Interval: time.Minute, MaxSyncAge: 5 * time.Minute}, clock,
		map[time.Duration]func(*heartbeat.Monitor){
			time.Minute + 15*time.Second:    stepBy(clock, 3*time.Hour),  // a nap
			15*time.Minute + 15*time.Second: stepBy(clock, -2*time.Hour), // the wall clock is corrected
			22*time.Minute + 15*time.Second: stepBy(clock, 3*time.Hour),  // another nap
		})
	require.Equal(t, []time.Duration{25*time.Minute + 1}, signals)
}

// S7, F4: a Run that begins with a stale database does not signal it when the clock is
// set back and right again.
func TestS7_StaleBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &skewedClock{start: time.Now()}
		var signals []time.Duration
		dead := heartbeat.NewSyncTracker("/data/dead.db")
		dead.Record(clock.Now())
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{dead}, &heartbeat.Options{
			Interval: time.Minute, Clock: clock, Logger: quiet,
			FailPinger: heartbeat.PingerFunc(func(context.Context) error {
				signals = append(signals, time.Since(clock.start))
				return nil
			}),
		})
		require.NoError(t, err)
		time.AfterFunc(30*time.Second, func() { clock.step(3 * time.Hour) })      // a nap
		time.AfterFunc(245*time.Second, func() { clock.step(-10 * time.Minute) }) // somebody sets the clock
		time.AfterFunc(265*time.Second, func() { clock.step(10 * time.Minute) })  // and sets it right
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			require.NoError(t, m.Run(ctx))
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		require.NoError(t, m.Run(ctx))
		require.Equal(t, []time.Duration{time.Minute + 1}, signals, "that of the first Run")
	})
}

// S7: a long jump counts for MaxSyncAge, however many short ones come after it.
func TestS7_BigJumpBeforeManySmall(t *testing.T) {
	clock := &skewedClock{}
	steps := map[time.Duration]func(*heartbeat.Monitor){
		time.Hour + 15*time.Second: stepBy(clock, 60*time.Hour), // a weekend
	}
	for n := range 1100 { // and then a machine that stalls for ten seconds every 60
		steps[time.Hour+45*time.Second+time.Duration(n)*time.Minute] = stepBy(clock, 10*time.Second)
	}
	_, signals := jumping(t, 24*time.Hour, time.Minute, heartbeat.Options{Interval: time.Minute, MaxSyncAge: 26 * time.Hour}, clock, steps)
	require.Empty(t, signals, "23 hours awake without a sync, and 26 are allowed")
}

// S7, F1: where several jumps were seen that were none, Run looks when the first of them
// counts no longer.
func TestS7_NewerJumpEndsFirst(t *testing.T) {
	clock := &skewedClock{}
	m := time.Minute
	beat := func(by time.Duration) func(m *heartbeat.Monitor) {
		return func(m *heartbeat.Monitor) { clock.step(by); go m.Beat(context.Background()) }
	}
	_, signals := jumping(t, 3*time.Hour-time.Second, 20*m, heartbeat.Options{Interval: 3 * time.Hour, MaxSyncAge: 10 * m}, clock,
		map[time.Duration]func(*heartbeat.Monitor){
			21 * m: beat(time.Hour), 21*m + 20*time.Second: beat(-time.Hour),
			22 * m: beat(time.Hour), 22*m + 20*time.Second: beat(-time.Hour),
		})
	require.NotEmpty(t, signals)
	require.LessOrEqual(t, signals[0], 33*m, "ten minutes after the latest jump")
}

// S7: a check allocates nothing, also after a jump.
func TestS7_AllocatesAfterAJump(t *testing.T) {
	clock := &stillClock{withMonotonic(epoch, time.Second)}
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.now)
	m, err := heartbeat.New(sent, []heartbeat.SyncReporter{db}, &heartbeat.Options{Logger: quiet, Clock: clock, FailPinger: &heartbeattest.Pinger{}})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.now = withMonotonic(epoch.Add(time.Minute), 2*time.Second) // one suspend of a minute
	m.Beat(t.Context())
	clock.now = withMonotonic(epoch.Add(30*24*time.Hour), 2*time.Second+30*24*time.Hour-time.Minute) // a month later
	db.Set(clock.now)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Beat(t.Context()) }))
}
