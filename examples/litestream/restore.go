package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// minRestoreCheck is the least time between two restore checks of a database, of
// which each reads the whole replica.
const minRestoreCheck = time.Hour

// restoreNap is how long a restore check sleeps at most, so that a clock that was
// set, or stood still while the machine slept, is noticed.
const restoreNap = 5 * time.Minute

// restoreGrace is how long a restore that was told to end is waited for. What hangs
// in a file system that is gone cannot be ended, and is left behind.
const restoreGrace = 2 * time.Second

// A restoreCheck restores a database's replica at an interval, and compares what
// comes back with the database. It is a SyncReporter beside the database's own,
// with a path that names it: so a heartbeat that stops for it, the failure signal
// and /healthz all say that it was the restore check. It is in sync while its last
// restore worked, and is not older than twice the interval.
type restoreCheck struct {
	reporter  *reporter
	every     time.Duration // between two checks, on clock
	query     string        // a statement that must return a true value; "": none
	dir       string        // of the scratch folders
	timeout   time.Duration // of a restore, as far as it does not depend on the size
	slot      chan struct{} // has a value while a restore of this process is under way
	freeSpace func(dir string) (uint64, error)
	clock     heartbeat.Clock
	logger    *slog.Logger
	lost      func(ctx context.Context) // told at once when the replica turns bad

	hanging atomic.Bool // whether a restore that was given up is still there
	overdue bool        // whether that was told
	failed  int         // how many checks have failed since one passed

	mu      sync.Mutex
	verdict restoreVerdict
}

// A restoreVerdict is what is known of a replica.
type restoreVerdict struct {
	since  time.Time     // when it last passed, or when the checks began; zero: they have not
	passed time.Time     // when it last passed; zero: it has not yet
	took   time.Duration // the last check, on the system's clock; zero: none has ended
	failed bool          // whether the last check failed
}

func (v *restoreVerdict) good(now time.Time, every time.Duration) bool {
	return !v.failed && (v.since.IsZero() || now.Sub(v.since) <= 2*every)
}

// Path names the restore check.
func (c *restoreCheck) Path() string { return c.reporter.Path() + " (restore check)" }

// LastSuccessfulSyncAt returns the time now while the verdict is good, and before
// the first check has ended; and the zero time while it is not. The time of the
// last check would not do, since heartbeats are closer than checks.
func (c *restoreCheck) LastSuccessfulSyncAt() time.Time {
	now := c.clock.Now()
	if v := c.last(); !v.good(now, c.every) {
		return time.Time{}
	}
	return now
}

func (c *restoreCheck) last() restoreVerdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.verdict
}

// run checks until ctx is done.
func (c *restoreCheck) run(ctx context.Context) {
	now := c.clock.Now()
	c.mu.Lock()
	c.verdict.since = now
	c.mu.Unlock()
	for due := c.next(now); c.sleepUntil(ctx, due); {
		pause := startEvery
		if c.reporter.proven.Load() > 0 { // else there is nothing to compare with yet
			pause = c.check(ctx)
		}
		now := c.clock.Now()
		due = c.next(now)
		if pause > 0 && now.Add(pause).Before(due) {
			due = now.Add(pause)
		}
	}
}

// next returns when a check is due, after a time. That depends on the path, so that
// the checks of many databases are spread, and not on when the program was started:
// else one that is started each night might never check.
func (c *restoreCheck) next(now time.Time) time.Time {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(c.reporter.Path()))
	due := now.Truncate(c.every).Add(time.Duration(hash.Sum64() % uint64(c.every)))
	if !due.After(now) {
		due = due.Add(c.every)
	}
	return due
}

// sleepUntil reports whether ctx was not done before that time.
func (c *restoreCheck) sleepUntil(ctx context.Context, due time.Time) bool {
	for {
		c.warnOverdue(ctx)
		now := c.clock.Now()
		left := due.Sub(now)
		if left > c.every { // the clock was set back
			due = c.next(now)
			left = due.Sub(now)
		}
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-c.clock.After(min(left, restoreNap)):
		}
	}
}

// takeSlot waits for the restores of other databases, and reports whether ctx was
// not done before.
func (c *restoreCheck) takeSlot(ctx context.Context) bool {
	for ctx.Err() == nil {
		select {
		case c.slot <- struct{}{}:
			return true
		default:
		}
		c.warnOverdue(ctx)
		select {
		case c.slot <- struct{}{}:
			return true
		case <-ctx.Done():
		case <-c.clock.After(restoreNap):
		}
	}
	return false
}

// warnOverdue tells once that the last check that passed is too old.
func (c *restoreCheck) warnOverdue(ctx context.Context) {
	v := c.last()
	if v.failed || v.good(c.clock.Now(), c.every) {
		c.overdue = false
		return
	}
	if !c.overdue {
		c.overdue = true
		c.logger.Warn("restore check overdue", "db", c.reporter.Path(), "since", v.since)
		c.lost(ctx)
	}
}

// check makes one check, and returns when the next is wanted: zero for the usual
// time. After a failure that is soon at first, since somebody may have mended the
// replica, and later each time, since each reads the whole of it.
func (c *restoreCheck) check(ctx context.Context) (pause time.Duration) {
	if !c.takeSlot(ctx) {
		return 0
	}
	began, start := c.clock.Now(), time.Now()
	err := c.restoreInTime(ctx)
	<-c.slot
	if ctx.Err() != nil {
		return 0 // cut short, it says nothing
	}
	if errors.Is(err, errMoved) {
		c.logger.Info("restore check not finished", "db", c.reporter.Path(), "error", err)
		return minRestoreCheck
	}
	c.settle(ctx, began, max(time.Since(start), 1), err)
	if err == nil {
		return 0
	}
	pause = minRestoreCheck << min(c.failed, 16)
	c.failed++
	return pause
}

// settle records what a check came to, and tells what has changed.
func (c *restoreCheck) settle(ctx context.Context, began time.Time, took time.Duration, err error) {
	c.mu.Lock()
	before := c.verdict
	c.verdict.took, c.verdict.failed = took, err != nil
	if err == nil {
		c.verdict.since, c.verdict.passed = began, began
		c.failed = 0
	}
	c.mu.Unlock()
	attrs := []any{"db", c.reporter.Path(), "took", took.Round(time.Millisecond)}
	switch {
	case err != nil && !before.failed:
		c.logger.Warn("restore check failed", append(attrs, "error", err)...)
		c.lost(ctx)
	case err != nil:
		c.logger.Debug("restore check failed again", append(attrs, "error", err)...)
	case before.failed || c.overdue:
		c.overdue = false
		c.logger.Info("restore check passed again", attrs...)
	case before.passed.IsZero():
		c.logger.Info("restore check passed", attrs...)
	default:
		c.logger.Debug("restore check passed", attrs...)
	}
}

// restoreInTime restores the replica within the time that it may take. A restore
// that does not end when it is told to is left behind, and none of this database
// begins before it is gone.
func (c *restoreCheck) restoreInTime(ctx context.Context) error {
	if !c.hanging.CompareAndSwap(false, true) {
		return errors.New("the restore that was given up before still hangs")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	limit := time.AfterFunc(c.timeout, func() {
		cancel(fmt.Errorf("it was given up after %v", time.Since(began).Round(time.Millisecond)))
	})
	defer limit.Stop()
	done := make(chan error, 1)
	go func() {
		err := errors.New("it ended in a panic")
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("it ended in a panic: %v", r)
			}
			c.hanging.Store(false)
			done <- err
		}()
		err = c.restore(ctx, func(d time.Duration) { limit.Reset(min(d, c.every)) })
	}()
	select {
	case err := <-done:
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
	case <-time.After(restoreGrace):
	}
	return context.Cause(ctx)
}
