package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// A flight is the attempts of one check while they are under way. They share a ctx, so
// that all can be cut at once: heartbeats and failure signals are never in flight together.
type flight struct {
	schedule.Plan
	number uint64          // of the check
	ctx    context.Context // of the pings
	end    context.CancelFunc
	left   int           // attempts that are not settled
	landed chan struct{} // closed when none is left
}

// newFlight gives each ping MinInterval. The deadline is on the system's clock, as
// the network is: a fake one cannot cut a real call short.
func newFlight(ctx context.Context, c *check) *flight {
	f := &flight{Plan: c.plan, number: c.number, left: len(c.plan.Attempts), landed: make(chan struct{})}
	f.ctx, f.end = context.WithTimeout(context.WithValue(ctx, resultKey{}, c.result.clone()), MinInterval)
	return f
}

// hangUp cuts flights and waits for them: a second at most, since a pinger may ignore
// its ctx. No lock may be held, here and where a flight is made or ends: a caller's
// ctx is foreign.
func hangUp(cut []*flight) {
	for _, f := range cut {
		f.end()
	}
	late := time.After(time.Second)
	for _, f := range cut {
		select {
		case <-f.landed:
		case <-late:
			return
		}
	}
}

// A delivery is what became of one attempt: what the schedule is told, what it answers, and
// what the log line and the Result need. Each is written by one goroutine, and read when all
// of them have ended.
type delivery struct {
	schedule.Outcome
	schedule.Settlement
	target *target
	err    error
	hint   string
}

// finish makes the pings of a check, tells what it came to, and returns that. Run calls it
// beside its loop. So a ping, a log handler or a callback that hangs keeps only its own
// check from ending.
func (m *Monitor) finish(ctx context.Context, c *check) Result {
	deliveries := m.ping(ctx, c.flight)
	if c.slowLine != nil {
		<-c.slowLine // it must not outlive the check
	}
	switch {
	case c.forgotten():
		return c.result
	case c.result.Outcome == Skipped:
		m.logSkipped(ctx, c)
		for i := range deliveries {
			m.logDelivery(ctx, true, &deliveries[i])
		}
	case c.result.Outcome != Failed: // else ctx was done before the pings could begin
		c.result.sum(deliveries, len(m.targets))
		m.logRateLimited(ctx, c)
	}
	m.mu.Lock()
	if c.number >= m.lastLook { // a slow ping can make an older check end after a newer one
		m.last, m.lastLook = c.result.clone(), c.number
	}
	m.mu.Unlock()
	m.report(ctx, c)
	return c.result
}

// ping makes the attempts of a flight, all at once, and waits for them. Each is settled
// as soon as it has ended, and a beat's line is written then. A signal's line has to
// follow the one about the database.
func (m *Monitor) ping(ctx context.Context, f *flight) []delivery {
	if f == nil {
		return nil
	}
	deliveries := make([]delivery, len(f.Attempts))
	pingAll(len(deliveries), func(i int) {
		m.deliver(ctx, f, f.Attempts[i], &deliveries[i])
		if !f.Signal {
			m.logDelivery(ctx, false, &deliveries[i])
		}
	})
	return deliveries
}

// deliver makes one attempt and settles it. It settles whatever happens: a target whose
// attempt is never settled is never pinged again.
func (m *Monitor) deliver(ctx context.Context, f *flight, a schedule.Attempt, d *delivery) {
	targets := m.targets
	if a.Signal {
		targets = m.signals
	}
	d.target = &targets[a.Target]
	slow, slowLine := watch(MinInterval+patience, func() { m.warnOfSlowPing(ctx, d.target) })
	d.err = callPinger(f.ctx, d.target.pinger)
	cut, now := false, a.Began
	defer func() { // also where the ctx, the error or the clock ends this goroutine
		d.Cut = cut
		m.settle(now, f, a, d)
		if !slow.Stop() {
			<-slowLine
		}
	}()
	// Its caller's ctx has ended, or a ping of the other kind takes its place.
	cut = d.err != nil && (ctx.Err() != nil || errors.Is(f.ctx.Err(), context.Canceled))
	d.Outcome, d.hint = classify(d.err)
	now = m.nowOr(now)
}

// settle tells what became of an attempt. Run has to ask the schedule again then: a ping
// that never left is tried again sooner than Run sleeps for.
//
// LastSentAt is of the newest check that sent anything, by its number and not by its time,
// since the clock may have been set back. It is when the ping began: the service may have
// counted it from then on.
func (m *Monitor) settle(now time.Time, f *flight, a schedule.Attempt, d *delivery) {
	m.mu.Lock()
	if d.Sent && !a.Signal && f.number >= m.sentLook {
		m.lastSentAt, m.sentLook = a.Began, f.number
	}
	d.Settlement = m.schedule.Settle(now, a, d.Outcome)
	f.left--
	landed := f.left == 0
	if landed { // a caller's ctx must not be kept alive
		m.flights = slices.DeleteFunc(m.flights, func(g *flight) bool { return g == f })
	}
	m.mu.Unlock()
	if landed {
		f.end()
		close(f.landed)
	}
	m.wakeRun()
}

// nowOr returns the time, or the given one where the clock panics: an attempt must
// be settled all the same.
func (m *Monitor) nowOr(now time.Time) time.Time {
	try(func() { now = m.clock.Now() })
	return now
}

// maxReports ends an OnResult that calls Beat, which calls it: a Beat is not reported if so
// many calls were made since none was under way. To bound the calls that are under way was
// rejected: where each makes two Beats, that is the depth of a tree with far more calls.
const maxReports = 100

// report calls OnResult. The Result is a copy, because the caller of Beat has one too, and
// either may change it. It runs in the goroutine of the check, with no lock held: so it may
// call any method, and one that hangs keeps only its own check from ending.
func (m *Monitor) report(ctx context.Context, c *check) {
	if m.onResult == nil {
		return
	}
	m.mu.Lock()
	if c.action == schedule.Beat && m.reported >= maxReports {
		m.mu.Unlock()
		return
	}
	m.reports++
	m.reported++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.reports--; m.reports == 0 {
			m.reported = 0
		}
	}()
	if value, panicked := try(func() { m.onResult(c.result.clone()) }); panicked {
		m.log(ctx, slog.LevelError, "heartbeat callback panicked", slog.String("panic", fmt.Sprint(value)))
	}
}
