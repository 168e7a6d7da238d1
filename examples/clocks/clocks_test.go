package clocks

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	benbjohnson "github.com/benbjohnson/clock"
	"github.com/jonboulle/clockwork"
	juju "github.com/juju/clock"
	jujutest "github.com/juju/clock/testclock"
	"github.com/stretchr/testify/require"
	k8s "k8s.io/utils/clock"
	k8stest "k8s.io/utils/clock/testing"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// The interfaces of all four, and so their real clocks too, are heartbeat.Clocks.
var (
	_ heartbeat.Clock = clockwork.Clock(nil)
	_ heartbeat.Clock = (*clockwork.FakeClock)(nil)
	_ heartbeat.Clock = clockwork.NewRealClock()

	_ heartbeat.Clock = benbjohnson.Clock(nil)
	_ heartbeat.Clock = (*benbjohnson.Mock)(nil)
	_ heartbeat.Clock = benbjohnson.New()

	_ heartbeat.Clock = k8s.Clock(nil)
	_ heartbeat.Clock = (*k8stest.FakeClock)(nil)
	_ heartbeat.Clock = k8s.RealClock{}

	_ heartbeat.Clock = juju.Clock(nil)
	_ heartbeat.Clock = (*jujutest.Clock)(nil)
	_ heartbeat.Clock = juju.WallClock
)

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// patience is how long a test waits for a goroutine before it fails. No time is
// spent where all is well.
const patience = 30 * time.Second

// A driver is a fake clock with its own way of waiting for a waiter.
type driver struct {
	clock heartbeat.Clock
	wait  func(ctx context.Context) error // until Run waits on the clock
	step  func(d time.Duration)
}

var drivers = []struct {
	name   string
	bubble bool // whether the test has to run in a synctest bubble
	make   func() driver
}{
	{name: "jonboulle/clockwork", make: func() driver {
		c := clockwork.NewFakeClockAt(start)
		return driver{
			clock: c,
			wait:  func(ctx context.Context) error { return c.BlockUntilContext(ctx, 1) },
			step:  c.Advance,
		}
	}},
	{name: "k8s.io/utils/clock/testing", make: func() driver {
		c := k8stest.NewFakeClock(start)
		return driver{
			clock: c,
			wait: func(ctx context.Context) error {
				for !c.HasWaiters() {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					runtime.Gosched()
				}
				return nil
			},
			step: c.Step,
		}
	}},
	{name: "juju/clock/testclock", make: func() driver {
		c := jujutest.NewClock(start)
		return driver{
			clock: c,
			// One value arrives for each call of After. WaitAdvance, which polls,
			// would do as well.
			wait: func(ctx context.Context) error {
				select {
				case <-c.Alarms():
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
			step: c.Advance,
		}
	}},
	// This one cannot tell whether anyone waits on it. In a bubble
	// synctest.Wait can: it returns once every other goroutine is blocked.
	{name: "benbjohnson/clock", bubble: true, make: func() driver {
		c := benbjohnson.NewMock()
		c.Set(start)
		return driver{
			clock: c,
			wait: func(context.Context) error {
				synctest.Wait()
				return nil
			},
			step: c.Add,
		}
	}},
}

func TestFakeClocksDriveRun(t *testing.T) {
	for _, tt := range drivers {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bubble {
				synctest.Test(t, func(t *testing.T) { drive(t, tt.make()) })
				return
			}
			t.Parallel()
			drive(t, tt.make())
		})
	}
}

// drive takes a Monitor through 35 minutes of good and bad luck.
func drive(t *testing.T, d driver) {
	reporter := heartbeattest.NewReporter("/data/app.db")
	pinger := heartbeattest.NewPinger(d.clock)
	var outcomes []heartbeat.Outcome // written by Run's goroutine, read while that waits
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{
		Clock:    d.clock,
		Logger:   slog.New(slog.DiscardHandler),
		OnResult: func(r heartbeat.Result) { outcomes = append(outcomes, r.Outcome) },
	})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	wait := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, d.wait(ctx), "Run does not wait on the clock")
	}

	reporter.Set(d.clock.Now())
	go func() { done <- monitor.Run(ctx) }()
	wait()

	var want []time.Time
	check := func(what string, outcome heartbeat.Outcome, pings ...time.Duration) {
		t.Helper()
		for _, after := range pings {
			want = append(want, start.Add(after))
		}
		require.Equal(t, outcome, outcomes[len(outcomes)-1], what)
		require.Len(t, pinger.Times(), len(want), what)
		for i, at := range pinger.Times() {
			require.True(t, at.Equal(want[i]), "%s: ping %d began at %v, want %v", what, i+1, at, want[i])
		}
	}
	step := func(by time.Duration) {
		t.Helper()
		d.step(by)
		wait()
	}
	sync := func() { reporter.Set(d.clock.Now()) }

	check("a check at once", heartbeat.Sent, 0)

	sync()
	step(5 * time.Minute)
	check("the second beat", heartbeat.Sent, 5*time.Minute)

	sync()
	step(5 * time.Minute)
	check("the third beat", heartbeat.Sent, 10*time.Minute)

	sync()
	pinger.Fail(errors.New("connection refused"))
	step(5 * time.Minute)
	check("a ping that fails", heartbeat.Failed, 15*time.Minute)

	sync()
	pinger.Fail(nil)
	step(time.Minute)
	check("its retry a minute later", heartbeat.Sent, 16*time.Minute)

	step(4 * time.Minute)
	check("back on the grid", heartbeat.Sent, 20*time.Minute)

	step(5 * time.Minute)
	check("nothing synced since minute 15", heartbeat.Skipped)

	step(10 * time.Second)
	check("nor ten seconds later", heartbeat.Skipped)

	sync()
	step(10 * time.Second)
	check("the beat, once it has synced", heartbeat.Sent, 25*time.Minute+20*time.Second)

	sync()
	pinger.Fail(heartbeat.ErrNotSent)
	step(4*time.Minute + 40*time.Second)
	check("a ping that never leaves", heartbeat.Failed, 30*time.Minute)

	pinger.Fail(nil)
	step(10 * time.Second)
	check("its retry ten seconds later", heartbeat.Sent, 30*time.Minute+10*time.Second)

	sync()
	step(4*time.Minute + 50*time.Second)
	check("back on the grid again", heartbeat.Sent, 35*time.Minute)

	require.Len(t, outcomes, 12)

	cancel()
	require.NoError(t, <-done)
}
