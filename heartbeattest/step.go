package heartbeattest

import (
	"context"
	"time"
)

// Step waits until somebody waits for the clock, moves it by d in one jump, and
// waits until somebody waits for it again. For a Monitor's Run it is one step of a
// test: the checks that are due within d are made when Step returns. Step returns
// ctx's error if ctx is done first.
func (c *Clock) Step(ctx context.Context, d time.Duration) error {
	if err := c.BlockUntil(ctx, 1); err != nil {
		return err
	}
	c.Advance(d)
	return c.BlockUntil(ctx, 1)
}
