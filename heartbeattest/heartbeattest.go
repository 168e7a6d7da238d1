// Package heartbeattest is for tests of daemons that use package heartbeat. It has a [Clock] that
// moves only when it is told to, a [Pinger] that records, fails or blocks, and a [Reporter] whose
// last sync can be set.
//
// When a Monitor on a fake clock has made its check, it asks the clock for a wake-up.
// If the clock moves before that, the Monitor does not see it move. So use
// [Clock.Step], which waits for the Monitor before and after it moves the clock.
//
//	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
//	// … start a Monitor's Run on clock in a goroutine, then for each step:
//	err := clock.Step(ctx, 5*time.Minute) // when it returns, the check is over
//
// In a testing/synctest bubble no fake clock is needed.
package heartbeattest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// A Clock is a heartbeat.Clock that moves only when Step or Advance is called. Create
// one with [NewClock]. Its methods may be called from several goroutines.
type Clock struct {
	mu      sync.Mutex
	now     time.Time
	waiters []waiter
	served  bool          // whether the newest waiter has been served
	changed chan struct{} // closed, and replaced, when a waiter is added
}

type waiter struct {
	at time.Time
	c  chan time.Time
}

// NewClock returns a Clock that stands at start.
func NewClock(start time.Time) *Clock {
	return &Clock{now: start, changed: make(chan struct{})}
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After returns a channel that gets the clock's time once the clock has moved by d. If
// d is not positive, the channel gets the time at once.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := waiter{c.now.Add(d), make(chan time.Time, 1)}
	if d <= 0 {
		w.c <- c.now
		return w.c
	}
	c.waiters = append(c.waiters, w)
	c.served = false
	close(c.changed)
	c.changed = make(chan struct{})
	return w.c
}

// Advance moves the clock by d in one jump, and wakes the waiters whose time has then come. A
// waiter that is added later does not see the jump: call BlockUntil first. A negative d sets the
// clock back, and wakes no waiter.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	if n := len(c.waiters); n > 0 && !c.waiters[n-1].at.After(c.now) {
		c.served = true
	}
	c.waiters = slices.DeleteFunc(c.waiters, func(w waiter) bool {
		due := !w.at.After(c.now)
		if due {
			w.c <- c.now
		}
		return due
	})
}

// BlockUntil blocks until the clock has at least that many waiters. A waiter is a channel from
// After that has not been served. A waiter that was given up, as by a Run that has ended, still
// counts. If ctx is done first, BlockUntil returns context.Cause(ctx).
func (c *Clock) BlockUntil(ctx context.Context, waiters int) error {
	return c.blockUntil(ctx, func() bool { return len(c.waiters) >= waiters })
}

// Step blocks until a Monitor's Run waits on the clock, moves the clock by d, and blocks
// until Run waits again. Then the checks of Run are over. If ctx is done first, Step
// returns context.Cause(ctx), and the clock may have moved. A Run that has ended does not
// wait again, so give Step a ctx that ends with the Run. Such a Run leaves a waiter behind,
// which Step takes for a waiter of the next Run: Advance the clock past that waiter before
// the next Run begins. Step is for one Monitor on a clock. With several, call BlockUntil
// with their number, and then Advance.
func (c *Clock) Step(ctx context.Context, d time.Duration) error {
	waits := func() bool { return len(c.waiters) > 0 && !c.served }
	if err := c.blockUntil(ctx, waits); err != nil {
		return err
	}
	c.Advance(d)
	return c.blockUntil(ctx, waits)
}

func (c *Clock) blockUntil(ctx context.Context, condition func() bool) error {
	for {
		c.mu.Lock()
		enough, changed := condition(), c.changed
		c.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// A Pinger is a heartbeat.Pinger that records when it was pinged. It can be told to
// fail or to block. The zero Pinger succeeds, and records the time of the system clock.
// Its methods may be called from several goroutines.
type Pinger struct {
	clock heartbeat.Clock

	mu      sync.Mutex
	times   []time.Time
	err     error
	blocked chan struct{}
	changed chan struct{} // closed when a ping is recorded
}

// NewPinger returns a Pinger that records the time of clock.
func NewPinger(clock heartbeat.Clock) *Pinger { return &Pinger{clock: clock} }

// Ping records the time, waits while the Pinger is blocked, and returns the error that
// Fail was given last. If ctx is done while it waits, it returns context.Cause(ctx).
func (p *Pinger) Ping(ctx context.Context) error {
	now := time.Now()
	if p.clock != nil {
		now = p.clock.Now()
	}
	p.mu.Lock()
	p.times = append(p.times, now)
	blocked := p.blocked
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	p.mu.Unlock()
	if blocked != nil {
		select {
		case <-blocked:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Times returns when each ping began. Pings that failed are included.
func (p *Pinger) Times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.times)
}

// Fail makes pings return err from now on. If err is nil, they succeed again.
func (p *Pinger) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// Block makes pings that begin from now on wait until release is called or their ctx
// is done.
func (p *Pinger) Block() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	blocked := make(chan struct{})
	p.blocked = blocked
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		close(blocked)
		if p.blocked == blocked {
			p.blocked = nil
		}
	})
}

// BlockUntil blocks until at least that many pings have begun. If ctx is done first, it
// returns context.Cause(ctx).
func (p *Pinger) BlockUntil(ctx context.Context, pings int) error {
	for {
		p.mu.Lock()
		enough := len(p.times) >= pings
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// A Reporter is a heartbeat.SyncReporter whose last sync is set by the test. Create one
// with [NewReporter]. It has not synced until Set is called. Its methods may be called
// from several goroutines.
type Reporter struct{ tracker *heartbeat.SyncTracker }

// NewReporter returns a Reporter with that path.
func NewReporter(path string) *Reporter {
	return &Reporter{heartbeat.NewSyncTracker(path)}
}

// Set sets the last sync. The zero time means that the Reporter has not synced.
func (r *Reporter) Set(lastSync time.Time) { r.tracker.Record(lastSync) }

// Path returns the path given to NewReporter.
func (r *Reporter) Path() string { return r.tracker.Path() }

// LastSuccessfulSyncAt returns the time last given to Set, or the zero time.
func (r *Reporter) LastSuccessfulSyncAt() time.Time { return r.tracker.LastSuccessfulSyncAt() }
