package heartbeat

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// log writes a line. A handler is foreign code: if it panics, its line is lost, and nothing
// else. ctx is what Run or Beat was given, because handlers take values from it, such as the
// number of a trace. The ctx may have ended, which does not matter to handlers.
func (m *Monitor) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	try(func() { m.logger.LogAttrs(ctx, level, message, attrs...) })
}

// enabled asks the handler whether it wants a level, so that no line is put together that the
// handler would drop. A handler whose Enabled panics gets no line.
func (m *Monitor) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	try(func() { enabled = m.logger.Enabled(ctx, level) })
	return enabled
}

// runLines is what one Run has logged already, so that Run does not log it again. To compare
// whole lines was rejected: the age of a sync is new in each line.
type runLines struct {
	looked   bool            // whether Run has looked at least once
	warned   string          // what the latest WARN line said; "": no such line since all databases were healthy
	beat     uint64          // the beat to which warned and panicked belong
	panicked map[string]bool // the paths of the databases whose panic was logged
}

// setLevels decides the levels of a check's lines. The lines of Run's further looks for one
// beat are DEBUG, unless they say something new. The line of Run's first look is also DEBUG if
// there is no database, or if each unhealthy database has not synced yet: that is normal when a
// daemon starts. The WARN line about "no databases" is written once, and not once a beat,
// because a daemon that is a follower may have no databases for a long time.
func (l *runLines) setLevels(c *check) {
	unhealthy := c.result.Unhealthy
	first := !l.looked
	l.looked = l.looked || c.action == schedule.Check
	if c.result.Outcome != Skipped {
		l.warned = ""
		return
	}
	beat := cmp.Or(c.plan.Beat, l.beat) // a look whose ctx has ended has no plan
	if l.beat != beat || l.panicked == nil {
		l.beat, l.panicked = beat, map[string]bool{}
	}
	line := string(ReasonNoDatabases)
	if len(unhealthy) > 0 {
		line = fmt.Sprintln(beat, c.result.Reason, len(unhealthy), unhealthy[0].Path)
	}
	ordinary := !slices.ContainsFunc(unhealthy, func(s DatabaseStatus) bool { return s.Reason != ReasonNotSynced })
	c.skipLevel = slog.LevelDebug
	if (!first || !ordinary) && line != l.warned {
		c.skipLevel, l.warned = slog.LevelWarn, line
	}
	if c.panics == nil {
		return
	}
	for _, s := range unhealthy {
		level := slog.LevelError
		if l.panicked[s.Path] {
			level = slog.LevelDebug
		}
		c.panicLevels = append(c.panicLevels, level)
	}
	for _, s := range unhealthy { // a second loop, because two databases of Source may have one path
		if s.Reason == ReasonPanicked {
			l.panicked[s.Path] = true
		}
	}
}

// logSkipped logs why there is no heartbeat: a line about the first unhealthy database, and a
// DEBUG line about each other unhealthy database. When the storage of a thousand databases is
// gone, a thousand WARN lines would say no more than one WARN line. A panic has a line of its
// own, because it is a fault of the daemon's code and not of the replication.
func (m *Monitor) logSkipped(ctx context.Context, c *check) {
	level, result := c.skipLevel, &c.result
	if len(result.Unhealthy) == 0 {
		m.log(ctx, level, "heartbeat skipped", slog.String("reason", string(result.Reason)))
		return
	}
	for i := range result.Unhealthy {
		if db := &result.Unhealthy[i]; db.Reason == ReasonPanicked {
			m.log(ctx, c.panicLevels[i], "sync reporter panicked",
				slog.String("db", db.Path), slog.String("panic", fmt.Sprint(c.panics[c.at[i]])))
		}
		if m.enabled(ctx, level) {
			m.log(ctx, level, "heartbeat skipped", c.skipAttrs(i)...)
		}
		level = slog.LevelDebug
	}
}

// skipAttrs returns what a line about the i-th unhealthy database says. Only the first line
// has the numbers of unhealthy and of all databases: the other lines need not repeat them.
func (c *check) skipAttrs(i int) []slog.Attr {
	r := &c.result
	db := r.Unhealthy[i]
	attrs := []slog.Attr{slog.String("reason", string(db.Reason)), slog.String("db", db.Path)}
	if !db.LastSyncAt.IsZero() {
		attrs = append(attrs, slog.Time("last_sync", db.LastSyncAt))
	}
	if db.Reason == ReasonStale {
		age := schedule.Age(c.now, db.LastSyncAt)
		attrs = append(attrs, slog.Duration("age", age.Round(time.Second)), slog.Duration("max", c.maxAge))
	}
	if i == 0 && len(r.Unhealthy) > 1 {
		attrs = append(attrs, slog.Int("unhealthy", len(r.Unhealthy)), slog.Int("databases", r.Databases))
	}
	return attrs
}

// logDelivery logs what became of a ping. The first failure of a beat is an ERROR line, and
// further failures are DEBUG lines. So a target that cannot be reached makes one ERROR line a
// beat, and an alert that counts ERROR lines counts beats. A ping that was cut short has no line,
// because its failure says nothing of the target. A failure signal that was sent is a WARN line:
// whoever reads the log must see that it was sent.
func (m *Monitor) logDelivery(ctx context.Context, signal bool, d *delivery) {
	sent, failed, level := "heartbeat sent", "heartbeat failed", slog.LevelInfo
	if signal {
		sent, failed, level = "heartbeat failure signal sent", "heartbeat failure signal failed", slog.LevelWarn
	}
	if d.err == nil {
		m.log(ctx, level, sent, d.target.withURL()...)
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
	m.log(ctx, level, failed, attrs...)
}

// logRateLimited writes a line for each target that was not pinged, although a Beat asked for
// a ping or the target is owed a beat.
func (m *Monitor) logRateLimited(ctx context.Context, c *check) {
	if len(c.plan.Attempts) == len(m.targets) || !m.enabled(ctx, slog.LevelDebug) {
		return
	}
	var limited []target
	m.mu.Lock()
	for i, t := range m.targets {
		pinged := slices.ContainsFunc(c.plan.Attempts, func(a schedule.Attempt) bool { return a.Target == i })
		if !pinged && (c.action == schedule.Beat || m.schedule.Owed(i)) {
			limited = append(limited, t)
		}
	}
	m.mu.Unlock()
	for _, t := range limited {
		m.log(ctx, slog.LevelDebug, "heartbeat skipped", t.withURL(slog.String("reason", string(ReasonRateLimited)))...)
	}
}

// withURL returns attrs, and the URL or the name that the target's pinger gives itself.
func (t target) withURL(attrs ...slog.Attr) []slog.Attr {
	if url := t.logName(); url != "" {
		attrs = append(attrs, slog.String("url", url))
	}
	return attrs
}

// watch calls line when patience has passed, unless the timer is stopped before. written is
// closed when line has returned. A caller that stops the timer too late waits for written, so
// that no line is written after its check has ended.
func watch(patience time.Duration, line func()) (timer *time.Timer, written <-chan struct{}) {
	done := make(chan struct{})
	return time.AfterFunc(patience, func() {
		defer close(done)
		line()
	}), done
}

// warnOfSlowLook names the database that a look waits for. asking belongs to that look and not
// to the Monitor: the line may be late, and the next look may have begun.
func (m *Monitor) warnOfSlowLook(asking *atomic.Pointer[string]) {
	if path := asking.Load(); path != nil {
		m.log(context.Background(), slog.LevelWarn, "sync reporter has not answered",
			slog.String("db", *path), slog.Duration("waited", patience))
	}
}

// warnOfSlowPing names a target whose pinger has not returned ten seconds after its
// MinInterval.
func (m *Monitor) warnOfSlowPing(ctx context.Context, t *target) {
	m.log(ctx, slog.LevelWarn, "pinger has not returned",
		t.withURL(slog.String("target", t.name), slog.Duration("waited", MinInterval+patience))...)
}
