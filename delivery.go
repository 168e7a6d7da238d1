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
	landed chan struct{} // closed when all are settled
}

// newFlight gives each ping MinInterval. The deadline is by the system's clock, because the
// network runs by that clock: by a fake clock, a real call might never time out.
func newFlight(ctx context.Context, c *check) *flight {
	f := &flight{Plan: c.plan, number: c.number, left: len(c.plan.Attempts), landed: make(chan struct{})}
	f.ctx, f.end = context.WithTimeout(context.WithValue(ctx, resultKey{}, c.result.clone()), MinInterval)
	return f
}

// hangUp cuts flights and waits for their end: for a second at most, since a pinger may ignore
// its ctx. No lock may be held here, or where a flight is made or ended: these call methods of
// a caller's ctx, which is foreign code.
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
// what the log line and the Result need. Each delivery is written by a goroutine of its own.
// Others read it only when all these goroutines have ended.
type delivery struct {
	schedule.Outcome
	schedule.Settlement
	target *target
	err    error
	hint   string
}

// finish makes the pings of a check, logs and reports its Result, and returns the Result. Run
// calls finish beside its loop. So a ping, a log handler or a callback that hangs keeps only
// its own check from ending.
func (m *Monitor) finish(ctx context.Context, c *check) Result {
	deliveries := m.ping(ctx, c.flight)
	if c.slowLine != nil {
		<-c.slowLine // the line must not be written after the check has ended
	}
	switch {
	case c.forgotten():
		return c.result
	case c.result.Outcome == Skipped:
		m.logSkipped(ctx, c)
		for i := range deliveries {
			m.logDelivery(ctx, true, &deliveries[i])
		}
	case c.result.Outcome != Failed: // if it is Failed, ctx was done before the pings could begin
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

// ping makes the attempts of a flight, all at once, and waits for them. Each attempt is
// settled as soon as it has ended, and the line about a beat is written then. The line about a
// signal is written later, by finish, because it has to follow the line about the database.
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

// deliver makes one attempt and settles it. It settles the attempt whatever happens: a target
// whose attempt is never settled is never pinged again.
func (m *Monitor) deliver(ctx context.Context, f *flight, a schedule.Attempt, d *delivery) {
	targets := m.targets
	if a.Signal {
		targets = m.signals
	}
	d.target = &targets[a.Target]
	slow, slowLine := watch(MinInterval+patience, func() { m.warnOfSlowPing(ctx, d.target) })
	d.err = callPinger(f.ctx, d.target.pinger)
	cut, now := false, a.Began
	defer func() { // also if the ctx, the error or the clock ends this goroutine
		d.Cut = cut
		m.settle(now, f, a, d)
		if !slow.Stop() {
			<-slowLine
		}
	}()
	// An attempt that failed was cut if the ctx of Run or Beat has ended, or if a ping of
	// the other kind takes its place.
	cut = d.err != nil && (ctx.Err() != nil || errors.Is(f.ctx.Err(), context.Canceled))
	d.Outcome, d.hint = classify(d.err)
	now = m.nowOr(now)
}

// settle tells the schedule what became of an attempt. It wakes Run, which then asks the
// schedule again: a ping that never left may be due again before Run would wake by itself.
//
// LastSentAt is the time at which a ping began, because the service may have counted the ping
// from then on. It belongs to the newest check that sent a heartbeat. The newest check is the
// check with the largest number and not with the latest time, since the clock may have been
// set back.
func (m *Monitor) settle(now time.Time, f *flight, a schedule.Attempt, d *delivery) {
	m.mu.Lock()
	if d.Sent && !a.Signal && f.number >= m.sentLook {
		m.lastSentAt, m.sentLook = a.Began, f.number
	}
	d.Settlement = m.schedule.Settle(now, a, d.Outcome)
	f.left--
	landed := f.left == 0
	if landed { // m.flights must not keep a caller's ctx alive
		m.flights = slices.DeleteFunc(m.flights, func(g *flight) bool { return g == f })
	}
	m.mu.Unlock()
	if landed {
		f.end()
		close(f.landed)
	}
	m.wakeRun()
}

// nowOr returns the clock's time, or the given time if the clock panics: an attempt must be
// settled all the same.
func (m *Monitor) nowOr(now time.Time) time.Time {
	try(func() { now = m.clock.Now() })
	return now
}

// maxReports ends the recursion of an OnResult that calls Beat, because Beat calls OnResult. A
// Beat is not reported if maxReports calls were made since the last moment at which no call was
// under way. To bound only the calls that are under way was rejected: if each call makes two
// Beats, the calls form a tree, and the bound would limit only the depth of the tree.
const maxReports = 100

// report calls OnResult. OnResult gets a copy of the Result, because the caller of Beat gets
// the Result too, and either may change it. OnResult runs in the goroutine of the check, with
// no lock held. So it may call any method, and if it hangs, only its own check does not end.
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
