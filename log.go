package heartbeat

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/go-heartbeat/heartbeat/internal/schedule"
)

// A skipped is what a WARN line about a skipped beat says.
type skipped struct {
	beat      uint64
	reason    Reason
	path      string // of the first unhealthy database
	unhealthy int
}

// level returns the level of the line about a skipped beat. A Beat's is WARN. Run's
// further looks for one beat are DEBUG, unless what they say has changed; and so is
// its first look at databases that have not synced yet, since daemons start so.
func (r *runner) level(beat uint64, result *Result) slog.Level {
	if r == nil {
		return slog.LevelWarn
	}
	says := skipped{beat, result.Reason, "", len(result.Unhealthy)}
	if len(result.Unhealthy) > 0 {
		says.path = result.Unhealthy[0].Path
	}
	starting := !r.looked && says.unhealthy > 0 && !slices.ContainsFunc(result.Unhealthy, func(s DatabaseStatus) bool { return s.Reason != ReasonNotSynced })
	if starting || says == r.said {
		return slog.LevelDebug
	}
	r.said = says
	return slog.LevelWarn
}

// log writes a line. A handler is foreign: where it panics, its line is lost, and
// nothing else.
func (m *Monitor) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	m.logger.LogAttrs(ctx, level, message, attrs...)
}

func (m *Monitor) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }()
	return m.logger.Enabled(ctx, level)
}

// logPing tells what became of a ping. The first failure of a beat is an ERROR, so
// that an outage is one a beat. A ping that was cut short by its caller's ctx says
// nothing of the target.
func (m *Monitor) logPing(ctx context.Context, o *outcome, sent, failed string) {
	if o.err == nil {
		m.log(ctx, slog.LevelInfo, sent, o.target.withURL()...)
		return
	}
	if ctx.Err() != nil {
		return
	}
	attrs := append(o.target.withURL(), slog.Any("error", o.err))
	if o.hint != "" {
		attrs = append(attrs, slog.String("hint", o.hint))
	}
	level := slog.LevelDebug
	if o.firstFailure {
		level = slog.LevelError
	}
	m.log(ctx, level, failed, attrs...)
}

// logSkipped tells why there is no heartbeat: a line about the first unhealthy
// database at the given level, and one about each other at DEBUG. A panic has an
// ERROR line of its own.
func (m *Monitor) logSkipped(ctx context.Context, level slog.Level, found []finding, result *Result) {
	if len(result.Unhealthy) == 0 {
		m.log(ctx, level, "heartbeat skipped", slog.String("reason", string(result.Reason)))
		return
	}
	for i, db := range result.Unhealthy {
		if db.Reason == ReasonPanicked && i < len(found) {
			m.log(ctx, slog.LevelError, "sync reporter panicked",
				slog.String("db", db.Path), slog.String("panic", fmt.Sprint(found[i].panicValue)))
		}
		if m.enabled(ctx, level) {
			m.log(ctx, level, "heartbeat skipped", result.skipAttrs(i)...)
		}
		level = slog.LevelDebug
	}
}

// skipAttrs returns what a line about the i-th unhealthy database says.
func (r *Result) skipAttrs(i int) []slog.Attr {
	db := r.Unhealthy[i]
	attrs := []slog.Attr{slog.String("reason", string(db.Reason)), slog.String("db", db.Path)}
	if !db.LastSyncAt.IsZero() {
		attrs = append(attrs, slog.Time("last_sync", db.LastSyncAt))
	}
	if i == 0 && len(r.Unhealthy) > 1 {
		attrs = append(attrs, slog.Int("unhealthy", len(r.Unhealthy)), slog.Int("databases", r.Databases))
	}
	return attrs
}

// logRateLimited names the targets that were not pinged though that was asked for,
// or owed.
func (m *Monitor) logRateLimited(ctx context.Context, by schedule.By, plan schedule.Plan) {
	if !m.enabled(ctx, slog.LevelDebug) {
		return
	}
	var limited []target
	m.mu.Lock()
	for i, t := range m.targets {
		pinged := slices.ContainsFunc(plan.Attempts, func(a schedule.Attempt) bool { return a.Target == i })
		if !pinged && (by == schedule.ByBeat || m.schedule.Owed(i)) {
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
	if t.url != "" {
		attrs = append(attrs, slog.String("url", t.url))
	}
	return attrs
}
