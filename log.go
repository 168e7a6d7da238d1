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

// enabled asks the handler before a line is put together that few loggers want. A handler
// that panics over the question gets no line.
func (m *Monitor) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	try(func() { enabled = m.logger.Enabled(ctx, level) })
	return enabled
}

// runLines is what one Run has said already, so that it does not say it again.
type runLines struct {
	looked   bool            // at least once
	last     skipLine        // the latest at WARN, since all were healthy
	beat     uint64          // the one that panicked is about
	panicked map[string]bool // the databases whose panic is told
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
	skip   slog.Level
	panics []slog.Level // of each unhealthy database; nil: none panicked
}

// levels decides the levels of a check's lines. The lines of Run's further looks for one
// beat are DEBUG, unless they say something new. The line of Run's first look is DEBUG too,
// if databases that have not synced yet are all that is wrong or there is no database:
// daemons start so. That there is no database is said once, and not once a beat, because a
// daemon that follows has none for long.
func (l *runLines) levels(c *check) (is levels) {
	result := &c.result
	first := !l.looked
	l.looked = l.looked || c.action == schedule.Check
	if result.Outcome != Skipped {
		l.last = skipLine{}
		return is
	}
	line := skipLine{beat: c.plan.Beat, reason: result.Reason, unhealthy: len(result.Unhealthy)}
	if line.reason == ReasonNoDatabases {
		line.beat = 0
	} else {
		line.path = result.Unhealthy[0].Path
	}
	ordinary := !slices.ContainsFunc(result.Unhealthy, func(s DatabaseStatus) bool { return s.Reason != ReasonNotSynced })
	is.skip = slog.LevelDebug
	if (!first || !ordinary) && line != l.last {
		is.skip, l.last = slog.LevelWarn, line
	}
	if l.beat != c.plan.Beat || l.panicked == nil {
		l.beat, l.panicked = c.plan.Beat, map[string]bool{}
	}
	if c.panics != nil {
		for _, s := range result.Unhealthy {
			level := slog.LevelError
			if l.panicked[s.Path] {
				level = slog.LevelDebug
			}
			is.panics = append(is.panics, level)
		}
		for _, s := range result.Unhealthy { // afterwards: two databases of Source may have one path
			if s.Reason == ReasonPanicked {
				l.panicked[s.Path] = true
			}
		}
	}
	return is
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
			m.log(ctx, c.levels.panics[i], "sync reporter panicked",
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

// logDelivery tells what became of a ping. The first failure of a beat is an ERROR, so that
// an outage makes one ERROR line a beat. A ping that was cut short says nothing of the
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

// logRateLimited names the targets that a Beat has not pinged.
func (m *Monitor) logRateLimited(ctx context.Context, c *check) {
	if c.action != schedule.Beat || !m.enabled(ctx, slog.LevelDebug) {
		return
	}
	for i, t := range m.targets {
		if !slices.ContainsFunc(c.plan.Attempts, func(a schedule.Attempt) bool { return a.Target == i }) {
			m.log(ctx, slog.LevelDebug, "heartbeat skipped", t.withURL(slog.String("reason", string(ReasonRateLimited)))...)
		}
	}
}

// withURL returns attrs and what the target calls itself.
func (t target) withURL(attrs ...slog.Attr) []slog.Attr {
	if url := t.logName(); url != "" {
		attrs = append(attrs, slog.String("url", url))
	}
	return attrs
}

// A watchdog has a line written if something takes longer than its patience.
type watchdog struct {
	patience time.Duration
	line     func() (write func()) // what it says is looked at before stop returns; it is written beside
	timer    *time.Timer
	seen     chan struct{} // closed when line has returned
	written  chan struct{} // closed when write has
}

// start begins to watch. The timer is used again, since a new one for each look would be
// all that a check allocates.
func (w *watchdog) start() {
	if w.timer != nil {
		w.timer.Reset(w.patience)
		return
	}
	seen, written := make(chan struct{}), make(chan struct{})
	w.seen, w.written = seen, written
	w.timer = time.AfterFunc(w.patience, func() {
		defer close(written)
		write := w.line()
		close(seen)
		write()
	})
}

// stop ends the watch. If a line is being written, stop returns what to await.
func (w *watchdog) stop() <-chan struct{} {
	if w.timer.Stop() {
		return nil
	}
	<-w.seen
	w.timer = nil
	return w.written
}

// await waits for a line, so that it does not outlive the check.
func await(written <-chan struct{}) {
	if written != nil {
		<-written
	}
}

// lineOfSlowLook names the database that the look under way waits for.
func (m *Monitor) lineOfSlowLook() (write func()) {
	path := m.asked.asking.Load()
	if path == nil {
		return func() {}
	}
	db := slog.String("db", *path)
	return func() {
		m.log(context.Background(), slog.LevelWarn, "sync reporter has not answered", db, slog.Duration("waited", patience))
	}
}

// warnOfSlowPing names a target whose pinger has not returned ten seconds after its ctx
// ended.
func (m *Monitor) warnOfSlowPing(ctx context.Context, t *target) {
	m.log(ctx, slog.LevelWarn, "pinger has not returned",
		t.withURL(slog.String("target", t.name), slog.Duration("waited", MinInterval+patience))...)
}
