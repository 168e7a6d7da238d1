package heartbeat

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// log writes a line. A handler is foreign: where it panics, its line is lost, and
// nothing else.
func (m *Monitor) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	try(func() { m.logger.LogAttrs(ctx, level, message, attrs...) })
}

func (m *Monitor) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	try(func() { enabled = m.logger.Enabled(ctx, level) })
	return enabled
}

// runLines is what one Run has said already, so that it does not say it again.
type runLines struct {
	looked   bool                // at least once
	last     skipLine            // the latest at WARN, since all were healthy
	beat     uint64              // the one that panicked is about
	panicked map[string]struct{} // the databases whose panic is told; never changed
}

// A skipLine is what a line about a skipped beat says.
type skipLine struct {
	beat      uint64
	reason    Reason
	path      string // of the first unhealthy database
	unhealthy int
}

// levels are those of a skipped check's lines.
type levels struct {
	skip     slog.Level
	panicked map[string]struct{} // the databases whose panic is told already
}

// levels decides the levels of a check's lines. A Beat's, which has no lines before,
// are WARN and ERROR. Of Run's further looks for one beat they are DEBUG, unless what
// they say has changed. So they are at its first look where a database has not synced
// yet or there is none, since daemons start so. That there is none is said once, not
// once a beat: a daemon that follows has none for long.
func (l *runLines) levels(c *check) levels {
	result := &c.result
	if l == nil {
		return levels{skip: slog.LevelWarn}
	}
	first := !l.looked
	l.looked = l.looked || c.caller == schedule.CallerRun
	if result.Outcome != Skipped {
		l.last = skipLine{}
		return levels{}
	}
	line := skipLine{beat: c.plan.Beat, reason: result.Reason, unhealthy: len(result.Unhealthy)}
	if line.reason == ReasonNoDatabases {
		line.beat = 0
	} else {
		line.path = result.Unhealthy[0].Path
	}
	ordinary := !slices.ContainsFunc(result.Unhealthy, func(s DatabaseStatus) bool { return s.Reason != ReasonNotSynced })
	is := levels{skip: slog.LevelDebug, panicked: l.panicsTold(c)}
	if (!first || !ordinary) && line != l.last {
		is.skip, l.last = slog.LevelWarn, line
	}
	return is
}

// panicsTold returns the databases whose panic is told already for this beat, and
// takes note of those that are told now.
func (l *runLines) panicsTold(c *check) map[string]struct{} {
	if l.beat != c.plan.Beat {
		l.beat, l.panicked = c.plan.Beat, nil
	}
	told := l.panicked
	if len(c.panics) > 0 {
		l.panicked = make(map[string]struct{}, len(c.panics))
		for path := range told {
			l.panicked[path] = struct{}{}
		}
		for _, s := range c.unhealthy {
			if s.Reason == ReasonPanicked {
				l.panicked[s.Path] = struct{}{}
			}
		}
	}
	return told
}

// logSkipped tells why there is no heartbeat: a line about the first unhealthy
// database, and one about each other at DEBUG. A panic has a line of its own.
func (m *Monitor) logSkipped(ctx context.Context, c *check) {
	level, result := c.levels.skip, &c.result
	if len(result.Unhealthy) == 0 {
		m.log(ctx, level, "heartbeat skipped", slog.String("reason", string(result.Reason)))
		return
	}
	for i := range result.Unhealthy {
		if db := &result.Unhealthy[i]; db.Reason == ReasonPanicked {
			panicLevel := slog.LevelError
			if _, told := c.levels.panicked[db.Path]; told {
				panicLevel = slog.LevelDebug
			}
			m.log(ctx, panicLevel, "sync reporter panicked",
				slog.String("db", db.Path), slog.String("panic", fmt.Sprint(c.panics[c.at[i]])))
		}
		if m.enabled(ctx, level) {
			m.log(ctx, level, "heartbeat skipped", c.skipAttrs(i)...)
		}
		level = slog.LevelDebug
	}
}

// skipAttrs returns what a line about the i-th unhealthy database says.
func (c *check) skipAttrs(i int) []slog.Attr {
	r := &c.result
	db := r.Unhealthy[i]
	attrs := []slog.Attr{slog.String("reason", string(db.Reason)), slog.String("db", db.Path)}
	if !db.LastSyncAt.IsZero() {
		attrs = append(attrs, slog.Time("last_sync", db.LastSyncAt))
	}
	if db.Reason == ReasonStale {
		age, _ := ages(c.now, db.LastSyncAt)
		attrs = append(attrs, slog.Duration("age", age.Round(time.Second)), slog.Duration("max", c.maxAge))
	}
	if i == 0 && len(r.Unhealthy) > 1 {
		attrs = append(attrs, slog.Int("unhealthy", len(r.Unhealthy)), slog.Int("databases", r.Databases))
	}
	return attrs
}

// logDelivery tells what became of a ping. The first failure of a beat is an ERROR,
// so that an outage is one a beat. A ping that was cut short says nothing of the
// target. A failure signal is a WARN: who reads the log must see that it went out.
func (m *Monitor) logDelivery(ctx context.Context, signal bool, d *delivery) {
	message, level := "heartbeat", slog.LevelInfo
	if signal {
		message, level = "heartbeat failure signal", slog.LevelWarn
	}
	if d.err == nil {
		m.log(ctx, level, message+" sent", d.target.withURL()...)
		return
	}
	if d.Cut {
		return
	}
	attrs := append(d.target.withURL(), slog.Any("error", d.err))
	if d.hint != "" {
		attrs = append(attrs, slog.String("hint", d.hint))
	}
	if d.Retry > 0 {
		attrs = append(attrs, slog.Duration("retry", d.Retry.Round(time.Second)))
	}
	level = slog.LevelDebug
	if d.FirstFailure {
		level = slog.LevelError
	}
	m.log(ctx, level, message+" failed", attrs...)
}

// logRateLimited names the targets that were not pinged though that was asked for,
// or owed.
func (m *Monitor) logRateLimited(ctx context.Context, c *check) {
	if len(c.plan.Attempts) == len(m.targets) || !m.enabled(ctx, slog.LevelDebug) {
		return
	}
	var limited []target
	m.mu.Lock()
	for i, t := range m.targets {
		pinged := slices.ContainsFunc(c.plan.Attempts, func(a schedule.Attempt) bool { return a.Target == i })
		if !pinged && (c.caller == schedule.CallerBeat || m.schedule.Owed(i)) {
			limited = append(limited, t)
		}
	}
	m.mu.Unlock()
	for _, t := range limited {
		m.log(ctx, slog.LevelDebug, "heartbeat skipped", t.withURL(slog.String("reason", string(ReasonRateLimited)))...)
	}
}

// withURL returns attrs and what the target calls itself.
func (t target) withURL(attrs ...slog.Attr) []slog.Attr {
	if url := t.logName(); url != "" {
		attrs = append(attrs, slog.String("url", url))
	}
	return attrs
}

// watchLook has a line written where the look that begins takes long. It names the
// database that the look waits for.
func (m *Monitor) watchLook() {
	if m.slowTimer != nil {
		m.slowTimer.Reset(patience)
		return
	}
	written := make(chan struct{})
	m.slowLine = written
	m.slowTimer = time.AfterFunc(patience, func() {
		defer close(written)
		m.warnOfSlowLook()
	})
}

func (m *Monitor) unwatchLook(c *check) {
	if !m.slowTimer.Stop() {
		c.slowLine, m.slowTimer = m.slowLine, nil
	}
	m.mu.Lock()
	m.waitingFor = nil
	m.mu.Unlock()
}

func (m *Monitor) warnOfSlowLook() {
	path := ""
	m.mu.Lock()
	if i := int(m.asked.asking.Load()); i < len(m.waitingFor) {
		path = m.waitingFor[i].path
	}
	m.mu.Unlock()
	if path != "" {
		m.log(context.Background(), slog.LevelWarn, "sync reporter has not answered",
			slog.String("db", path), slog.Duration("waited", patience))
	}
}

// awaitSlowLine waits for the line about a slow look, so that it does not outlive
// the check.
func (c *check) awaitSlowLine() {
	if c.slowLine != nil {
		<-c.slowLine
	}
}

// watchPing has a line written where the ping that begins has not returned after
// its timeout. stop waits for the line.
func (m *Monitor) watchPing(ctx context.Context, t *target) (stop func()) {
	written := make(chan struct{})
	timer := time.AfterFunc(MinInterval+patience, func() {
		defer close(written)
		m.log(ctx, slog.LevelWarn, "pinger has not returned",
			t.withURL(slog.String("target", t.name), slog.Duration("waited", MinInterval+patience))...)
	})
	return func() {
		if !timer.Stop() {
			<-written
		}
	}
}
