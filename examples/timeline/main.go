// Timeline draws what a heartbeat.Monitor does in an hour of good and bad luck.
// The times are not made up: they are taken from a run of the library on its
// fake clock.
//
//	go run ./examples/timeline > examples/timeline/timeline.svg
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// The scenario. Syncs come half a minute after each full minute.
const (
	interval = heartbeat.DefaultInterval
	length   = 55 * time.Minute

	lostAt   = 15 * time.Minute            // this ping is lost on its way
	lastSync = 26*time.Minute + syncOffset // the database then stops syncing …
	resumed  = 42*time.Minute + syncOffset // … until here
	period   = interval                    // the service expects a ping this often …
	grace    = 3 * time.Minute             // … and waits for one this much longer

	syncOffset = 30 * time.Second
)

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// A recording is what happened in a run, in the order of time.
type recording struct {
	syncs   []time.Time
	results []heartbeat.Result // as OnResult had them
	arrived []time.Time        // pings that reached the service
	lost    []time.Time
	signals []time.Time // failure signals that reached the service
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := record(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "timeline:", err)
		os.Exit(1)
	}
	fmt.Print(draw(rec))
}

// record runs a Monitor through the scenario.
func record(ctx context.Context) (*recording, error) {
	rec := &recording{}
	clock := heartbeattest.NewClock(start)
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	failure := heartbeattest.NewPinger(clock)
	pinger := heartbeat.PingerFunc(func(context.Context) error {
		now := clock.Now()
		if now.Sub(start) == lostAt {
			rec.lost = append(rec.lost, now)
			return errors.New("connection reset by peer")
		}
		rec.arrived = append(rec.arrived, now)
		return nil
	})
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
		Interval:   interval,
		Clock:      clock,
		Logger:     slog.New(slog.DiscardHandler),
		FailPinger: failure,
		OnResult:   func(r heartbeat.Result) { rec.results = append(rec.results, r) },
	})
	if err != nil {
		return nil, err
	}
	sync := func() {
		tracker.Record(clock.Now())
		rec.syncs = append(rec.syncs, clock.Now())
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tracker.Record(start.Add(-syncOffset))
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	for now := time.Duration(0); now < length; {
		// Run waits on the clock: its check is made. Only then move on.
		if err := clock.BlockUntil(ctx, 1); err != nil {
			return nil, err
		}
		clock.Advance(syncOffset)
		now += syncOffset
		if now%time.Minute == syncOffset && (now <= lastSync || now >= resumed) {
			sync()
		}
	}
	if err := clock.BlockUntil(ctx, 1); err != nil {
		return nil, err
	}
	cancel()
	rec.signals = failure.Times()
	return rec, <-done
}

// A span is a time in which the service is in one state: up, late (the period
// has passed, the grace has not) or alarm.
type span struct {
	state    string
	from, to time.Time
}

// service models a monitoring service, which has the pings that arrived and, if
// its owner has set that up, the failure signals.
func service(arrived, signals []time.Time) (spans []span) {
	end := start.Add(length)
	for i, at := range arrived {
		next := end
		if i+1 < len(arrived) {
			next = arrived[i+1]
		}
		late, alarm := at.Add(period), at.Add(period+grace)
		for _, signal := range signals {
			if signal.After(at) && signal.Before(alarm) {
				late, alarm = signal, signal
			}
		}
		for _, s := range []span{{"up", at, late}, {"late", late, alarm}, {"alarm", alarm, next}} {
			if s.to.After(next) {
				s.to = next
			}
			switch n := len(spans); {
			case !s.from.Before(s.to):
			case n > 0 && spans[n-1].state == s.state:
				spans[n-1].to = s.to
			default:
				spans = append(spans, s)
			}
		}
	}
	return spans
}
