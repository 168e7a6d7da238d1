package heartbeat_test

import (
	"context"
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
