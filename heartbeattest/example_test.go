package heartbeattest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A daemon stops beating when its database stalls, and says which one it was.
// Each step waits for the check to be made before it moves the clock: a jump
// that comes before Run has asked to be woken is lost on it.
func Example_stalledDatabase() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clock := heartbeattest.NewClock(start)
	pinger := heartbeattest.NewPinger(clock)
	db := heartbeattest.NewReporter("/data/app.db")
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
		Interval: time.Minute,
		Clock:    clock,
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	db.Set(clock.Now())
	done := make(chan error)
	go func() { done <- monitor.Run(ctx) }()

	for minute := 1; minute <= 4; minute++ {
		if minute <= 2 {
			db.Set(clock.Now().Add(time.Minute)) // it syncs until it stalls
		}
		if err := clock.Step(ctx, time.Minute); err != nil {
			fmt.Println(err)
			return
		}
		result := monitor.Status().LastResult
		fmt.Printf("minute %d: %v %q\n", minute, result.Outcome, result.Reason)
	}

	cancel()
	fmt.Println(len(pinger.Times()), "heartbeats", <-done)
	// Output:
	// minute 1: sent ""
	// minute 2: sent ""
	// minute 3: sent ""
	// minute 4: skipped "last sync too old"
	// 4 heartbeats <nil>
}

// An outage of the service and its recovery: the lost beat goes out a minute
// later, and the next ones are on the grid again.
func ExamplePinger_outage() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clock := heartbeattest.NewClock(start)
	pinger := heartbeattest.NewPinger(clock)
	pinger.Fail(errors.New("connection refused"))
	db := heartbeattest.NewReporter("/data/app.db")
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
		MaxSyncAge: time.Hour,
		Clock:      clock,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	db.Set(clock.Now())
	done := make(chan error)
	go func() { done <- monitor.Run(ctx) }()
	for minute := range 11 {
		if minute == 1 {
			pinger.Fail(nil)
		}
		if err := clock.Step(ctx, time.Minute); err != nil {
			fmt.Println(err)
			return
		}
	}
	cancel()
	for _, at := range pinger.Times() {
		fmt.Print(at.Sub(start), " ")
	}
	fmt.Println(<-done)
	// Output: 0s 1m0s 2m0s 5m0s 10m0s <nil>
}

// A rate limit needs no Run: Beat may be called as often as one likes.
func ExampleClock_rateLimit() {
	clock := heartbeattest.NewClock(start)
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db},
		&heartbeat.Options{Clock: clock, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		result := monitor.Beat(context.Background())
		fmt.Printf("%v %q\n", result.Outcome, result.Reason)
		clock.Advance(30 * time.Second)
	}
	// Output:
	// sent ""
	// skipped "rate limited"
	// sent ""
}
