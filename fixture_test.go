package heartbeat_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

// A stillClock stands still, so every Beat but the first is rate-limited.
type stillClock struct{ now time.Time }

func (c *stillClock) Now() time.Time                       { return c.now }
func (c *stillClock) After(time.Duration) <-chan time.Time { return nil }

var sent = heartbeat.PingerFunc(func(context.Context) error { return nil })

// An otherReporter is a second type of reporter beside SyncTracker.
type otherReporter struct {
	path   string
	lastAt time.Time
}

func (r *otherReporter) Path() string                    { return r.path }
func (r *otherReporter) LastSuccessfulSyncAt() time.Time { return r.lastAt }

// benchReporters returns n reporters that synced at the given time: trackers, or
// with mixed every other one of another type.
func benchReporters(n int, at time.Time, mixed bool) []heartbeat.SyncReporter {
	reporters := make([]heartbeat.SyncReporter, n)
	for i := range reporters {
		path := "/data/" + strconv.Itoa(i) + ".db"
		if mixed && i%2 == 1 {
			reporters[i] = &otherReporter{path, at}
			continue
		}
		tracker := heartbeat.NewSyncTracker(path)
		tracker.Record(at)
		reporters[i] = tracker
	}
	return reporters
}

// run runs the Monitor until the function that it returns is called.
func run(tb testing.TB, monitor *heartbeat.Monitor) (stop func()) {
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(tb, <-done)
	}
}

// errorAs is errors.As for a type that is named at the call.
func errorAs[E error](err error) (as E, ok bool) {
	ok = errors.As(err, &as)
	return as, ok
}
