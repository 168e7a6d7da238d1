// Timeline draws what a heartbeat.Monitor does in an hour of good and bad luck.
// The times are not made up: they are taken from a run of the library on its
// fake clock.
//
//	go run ./examples/timeline > examples/timeline/timeline.svg
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// The scenario: an hour. A sync comes each minute, from shortly after the start.
const (
	interval = heartbeat.DefaultInterval
	length   = time.Hour
	step     = 5 * time.Second // of the clock: all times below are multiples of it

	firstSync  = 5 * time.Second
	syncOffset = 35 * time.Second // after each full minute, there is a sync

	lostAt    = 5 * time.Minute             // this ping is lost on its way, and so may have arrived
	refusedAt = 25 * time.Minute            // this one never leaves
	lastSync  = 26*time.Minute + syncOffset // the database then stops syncing …
	resumed   = 53*time.Minute + syncOffset // … until here
	period    = 3 * interval                // the service expects a ping this often …
	grace     = interval                    // … and waits for one this much longer
)

var start = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// A recording is what happened in a run, in the order of time.
type recording struct {
	syncs   []time.Time
	results []heartbeat.Result // as OnResult had them
	arrived []time.Time        // pings that reached the service
	lost    []time.Time        // that left, and were not answered
	refused []time.Time        // that never left
	signals []time.Time        // failure signals that reached the service
}

const usage = `Usage: timeline > timeline.svg

Prints a picture, as SVG, of what a Monitor does in an hour of good and bad luck.
`

func main() {
	switch err := parse(os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := record(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "timeline:", err)
		os.Exit(1)
	}
	fmt.Print(draw(rec))
}

// parse tells out what is wrong with args, which are to be none.
func parse(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("timeline", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q: the picture goes to standard output", flags.Arg(0))
		fmt.Fprintln(out, "timeline:", err)
		return err
	}
	return nil
}

// record runs a Monitor through the scenario.
func record(ctx context.Context) (*recording, error) {
	rec := &recording{}
	clock := heartbeattest.NewClock(start)
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	failure := heartbeattest.NewPinger(clock)
	pinger := heartbeat.PingerFunc(func(context.Context) error {
		now := clock.Now()
		switch now.Sub(start) {
		case lostAt:
			rec.lost = append(rec.lost, now)
			return errors.New("connection reset by peer")
		case refusedAt:
			rec.refused = append(rec.refused, now)
			return fmt.Errorf("connection refused: %w", heartbeat.ErrNotSent)
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	advance := func(by time.Duration) { err = cmp.Or(err, clock.Step(ctx, by)) }
	for now := step; now <= length && err == nil; now += step {
		advance(time.Nanosecond) // a database becomes stale a nanosecond after its limit
		if syncsAt(now) {        // before a check at the same moment, which has to see it
			tracker.Record(start.Add(now))
			rec.syncs = append(rec.syncs, start.Add(now))
		}
		advance(step - time.Nanosecond)
	}
	if err != nil {
		return nil, err
	}
	cancel()
	rec.signals = failure.Times()
	return rec, <-done
}

func syncsAt(now time.Duration) bool {
	return now == firstSync || now%time.Minute == syncOffset && (now <= lastSync || now >= resumed)
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
