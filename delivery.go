package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// A flight is the attempts of one check while they are under way.
type flight struct {
	schedule.Plan
	number uint64          // of the check
	ctx    context.Context // of the pings
	end    context.CancelFunc
	left   int           // attempts that are not settled
	landed chan struct{} // closed when none is left
	told   chan struct{} // closed when the attempts' lines may be written
}

// newFlight gives each ping MinInterval. The deadline is on the system's clock, as
// the network is: a fake one cannot cut a real call short.
func newFlight(ctx context.Context, c *check) *flight {
	f := &flight{Plan: c.plan, number: c.number, left: len(c.plan.Attempts), landed: make(chan struct{}), told: make(chan struct{})}
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
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for _, f := range cut {
		select {
		case <-f.landed:
		case <-timer.C:
			return
		}
	}
}

// A delivery is what became of one attempt.
type delivery struct {
	schedule.Settlement
	target *target
	err    error
	hint   string
	cut    bool // its caller's ctx has ended, or a ping of the other kind took its place
}

// finish makes the pings of a check, tells what it came to, and returns that.
func (m *Monitor) finish(ctx context.Context, c *check) Result {
	wait := m.launch(ctx, c.flight)
	defer wait() // also where a handler ends this goroutine
	c.awaitSlowLine()
	switch result := &c.result; {
	case result.Outcome == Skipped:
		m.logSkipped(ctx, c)
		wait()
	case result.Outcome == Failed:
	case c.flight == nil:
		result.Outcome, result.Reason = Skipped, ReasonRateLimited
		m.logRateLimited(ctx, c)
	default:
		result.sum(wait(), len(m.targets))
		m.logRateLimited(ctx, c)
	}
	m.mu.Lock()
	if c.number >= m.lastLook {
		m.last, m.lastLook = c.result.clone(), c.number
	}
	m.mu.Unlock()
	m.report(ctx, c)
	return c.result
}

// launch begins the attempts, all at once, and returns a function that lets their
// lines be written and waits for them. Each attempt is settled as soon as it has
// ended, and its line is written then.
func (m *Monitor) launch(ctx context.Context, f *flight) (wait func() []delivery) {
	if f == nil {
		return func() []delivery { return nil }
	}
	deliveries := make([]delivery, len(f.Attempts))
	var pings sync.WaitGroup
	for i := range deliveries {
		pings.Go(func() {
			m.deliver(ctx, f, f.Attempts[i], &deliveries[i])
			<-f.told
			m.logDelivery(ctx, f.Signal, &deliveries[i])
		})
	}
	return sync.OnceValue(func() []delivery {
		close(f.told)
		pings.Wait()
		return deliveries
	})
}

// deliver makes one attempt and settles it.
func (m *Monitor) deliver(ctx context.Context, f *flight, a schedule.Attempt, d *delivery) {
	d.target = &m.targets[a.Target]
	if a.Signal {
		d.target = &m.signals[a.Target]
	}
	stop := m.watchPing(ctx, d.target)
	d.err = callPinger(f.ctx, d.target.pinger)
	d.cut = d.err != nil && (ctx.Err() != nil || errors.Is(f.ctx.Err(), context.Canceled))
	o, now := schedule.Outcome{Cut: d.cut}, a.Began
	defer func() { // also where the error or the clock ends this goroutine
		m.settle(now, f, a, o, d)
		stop()
	}()
	o, d.hint = classify(d.err)
	o.Cut = d.cut
	now = m.nowOr(now)
}

// settle tells what became of an attempt.
func (m *Monitor) settle(now time.Time, f *flight, a schedule.Attempt, o schedule.Outcome, d *delivery) {
	m.mu.Lock()
	if o.Sent && !a.Signal && f.number >= m.sentLook {
		m.lastSentAt, m.sentLook = a.Began, f.number
	}
	d.Settlement = m.schedule.Settle(now, a, o)
	f.left--
	landed := f.left == 0
	if landed {
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
func (m *Monitor) nowOr(fallback time.Time) time.Time {
	now := fallback
	try(func() { now = m.clock.Now() })
	return now
}

// A reportLimit ends what would never end: an OnResult that makes Beats, each of
// which calls OnResult.
type reportLimit struct {
	mu         sync.Mutex
	underWay   int // calls of OnResult
	sinceQuiet int // calls since none was under way
}

// maxReports is how many calls of OnResult may be under way at once, and how many
// may be added by Beats before all of them have returned. The depth alone was
// bounded once: an OnResult that makes two Beats makes a tree of that depth.
const maxReports = 100

func (l *reportLimit) begin(beat bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay >= maxReports || beat && l.sinceQuiet >= maxReports {
		return false
	}
	l.underWay++
	l.sinceQuiet++
	return true
}

func (l *reportLimit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.underWay--; l.underWay == 0 {
		l.sinceQuiet = 0
	}
}

// report calls OnResult.
func (m *Monitor) report(ctx context.Context, c *check) {
	if m.onResult == nil || !m.reports.begin(c.caller == schedule.CallerBeat) {
		return
	}
	defer m.reports.end()
	if value, panicked := try(func() { m.onResult(c.result.clone()) }); panicked {
		m.log(ctx, slog.LevelError, "heartbeat callback panicked", slog.String("panic", fmt.Sprint(value)))
	}
}
