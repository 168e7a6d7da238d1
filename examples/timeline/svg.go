package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// The picture's measures, in pixels.
const (
	width, height = 1044, 496

	left      = 176 // where the plot begins
	perMinute = 14
	top       = 114 // of the first lane
	lane      = 56  // from one to the next
	bottom    = top + 6*lane
)

const head = `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title desc">
<title id="title">A timeline of heartbeats</title>
<desc id="desc">%[3]s</desc>
<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
text.heading { font-size: 17px; font-weight: 600; }
text.name { font-size: 14px; font-weight: 600; }
text.on-bar { font-weight: 600; }
.note { paint-order: stroke; stroke-width: 5; stroke-linejoin: round; }
.sync { stroke-width: 2; }
.skipped { stroke-width: 1.5; }
.failed { stroke-width: 2.5; stroke-linecap: round; }
.failed, .skipped { fill: none; }
%[4]s
@media (prefers-color-scheme: dark) {
%[5]s
}
</style>`

// A palette is the colours of one mode, as CSS writes them.
type palette struct{ paper, ink, muted, line, outage, sync, good, up, late, bad string }

var (
	light = palette{
		paper: "#ffffff", ink: "#1f2328", muted: "#59636e", line: "#dde2e7", outage: "#fff1e5",
		sync: "#0969da", good: "#1a7f37", up: "#c5e8cd", late: "#9a6700", bad: "#cf222e",
	}
	dark = palette{
		paper: "#0d1117", ink: "#e6edf3", muted: "#9198a1", line: "#2a313a", outage: "#2b1d11",
		sync: "#58a6ff", good: "#3fb950", up: "#173f23", late: "#d29922", bad: "#f85149",
	}
)

// css is written out for each mode, since not all that shows SVG knows CSS
// variables; what knows no media queries shows the light mode.
func (c palette) css() string {
	return strings.Join([]string{
		".paper { fill: " + c.paper + "; stroke: " + c.line + "; }",
		".outage { fill: " + c.outage + "; }",
		".grid { stroke: " + c.line + "; }",
		"text { fill: " + c.ink + "; }",
		"text.muted { fill: " + c.muted + "; }",
		"text.on-bar { fill: " + c.paper + "; }",
		".note { stroke: " + c.paper + "; }",
		".sync { stroke: " + c.sync + "; }",
		".sent { fill: " + c.good + "; }",
		".up { fill: " + c.up + "; }",
		".late { fill: " + c.late + "; }",
		".skipped { stroke: " + c.late + "; }",
		".alarm, .signal { fill: " + c.bad + "; }",
		".failed { stroke: " + c.bad + "; }",
	}, "\n")
}

type picture struct{ strings.Builder }

func (p *picture) add(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *picture) text(class, anchor string, x, y float64, text string) {
	p.add(`<text class="%s" x="%g" y="%g" text-anchor="%s">%s</text>`, class, x, y, anchor, text)
}

// label names a lane.
func (p *picture) label(i int, name, detail string) {
	p.text("name", "start", 20, y(i)-3, name)
	p.text("muted", "start", 20, y(i)+14, detail)
}

// mark draws the outcome of one check or ping: a dot, a cross or a tick. A cross
// stands above its lane, since the dot of the next try may be close.
func (p *picture) mark(outcome heartbeat.Outcome, x, y float64) {
	switch outcome {
	case heartbeat.Sent:
		p.add(`<circle class="sent" cx="%g" cy="%g" r="5"/>`, x, y)
	case heartbeat.Failed:
		p.add(`<path class="failed" d="M%g %gl9 9m0 -9l-9 9"/>`, x-4.5, y-17)
	case heartbeat.Skipped:
		p.add(`<path class="skipped" d="M%g %gv16"/>`, x, y-8)
	}
}

func (p *picture) signal(x, y float64) {
	p.add(`<path class="signal" d="M%g %gl7 7l-7 7l-7 -7z"/>`, x, y-7)
}

// legend says what each mark stands for.
func (p *picture) legend(y float64) {
	at := 27.0
	entry := func(mark func(), name string, wide float64) {
		mark()
		p.text("", "start", at+12, y+4.5, name)
		at += wide
	}
	entry(func() { p.add(`<path class="sync" d="M%g %gv18"/>`, at, y-9) }, "a sync", 86)
	entry(func() { p.mark(heartbeat.Sent, at, y) }, "sent, and answered", 164)
	entry(func() { p.mark(heartbeat.Failed, at, y+12.5) }, "failed", 74)
	entry(func() { p.mark(heartbeat.Skipped, at, y) }, "skipped, nothing sent", 174)
	entry(func() { p.signal(at, y) }, "failure signal", 126)
	entry(func() { p.add(`<rect class="late" x="%g" y="%g" width="14" height="14"/>`, at-7, y-7) }, "late: within the service's grace", 0)
}

func x(at time.Time) float64 { return left + at.Sub(start).Minutes()*perMinute }
func y(i int) float64        { return top + lane*float64(i) + lane/2 }

// draw makes the picture of a recording.
func draw(rec *recording) string {
	p := &picture{}
	stale := rec.results[slices.IndexFunc(rec.results, func(r heartbeat.Result) bool { return r.Reason == heartbeat.ReasonStale })]
	lost, refused := rec.lost[0], rec.refused[0]
	var outage [2]time.Time // the widest gap between two syncs
	for i, at := range rec.syncs[1:] {
		if before := rec.syncs[i]; at.Sub(before) > outage[1].Sub(outage[0]) {
			outage = [2]time.Time{before, at}
		}
	}
	back := rec.arrived[0] // the first ping after the outage
	for _, at := range rec.arrived {
		if back = at; !at.Before(outage[1]) {
			break
		}
	}

	p.add(head, width, height, fmt.Sprintf(
		"A heartbeat every %d minutes. The ping of %s is not answered and sent again a minute later; that of %s never leaves, and is sent ten seconds later. From %s the database does not sync. At %s its last sync is too old: a failure signal goes out, and checks are skipped. Without that signal, the service raises its alarm at %s. Ten seconds after syncs come back at the latest, at %s, a heartbeat goes out.",
		int(interval.Minutes()), hhmm(lost), hhmm(refused), hhmm(outage[0]), hhmmss(stale.Time), hhmm(alarm(service(rec.arrived, nil))), hhmmss(back)), light.css(), dark.css())
	p.add(`<rect class="paper" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`, width-1, height-1)
	p.text("heading", "start", 20, 32, "While the database is in sync, a heartbeat. When it is not, silence.")
	p.text("muted", "start", 20, 54, fmt.Sprintf(
		"An hour of a daemon with one database that syncs every minute, heartbeat-interval %dm. Recorded from a run of the library on its fake clock.", int(interval.Minutes())))
	p.legend(82)

	// Behind everything: the outage, and a line every five minutes.
	p.add(`<rect class="outage" x="%g" y="%d" width="%g" height="%d"/>`, x(outage[0]), top, x(outage[1])-x(outage[0]), bottom-top)
	for at := start; !at.After(start.Add(length)); at = at.Add(5 * time.Minute) {
		p.add(`<path class="grid" d="M%g %dV%d"/>`, x(at), top, bottom+4)
		p.text("muted", "middle", x(at), bottom+22, hhmm(at))
	}

	p.label(0, "Syncs", "SyncTracker.Record")
	for _, at := range rec.syncs {
		p.add(`<path class="sync" d="M%g %gv18"/>`, x(at), y(0)-9)
	}
	p.text("", "middle", (x(outage[0])+x(outage[1]))/2, y(0)+4, "the database stops syncing")

	p.label(1, "Checks", "Options.OnResult")
	for _, r := range rec.results {
		p.mark(r.Outcome, x(r.Time), y(1))
	}
	p.text("note", "start", x(start)-4, y(1)+23, "at first: "+string(rec.results[0].Reason))
	p.text("", "middle", (x(stale.Time)+x(back))/2, y(1)+23, "skipped: "+string(stale.Reason)+"; a look every ten seconds")

	p.label(2, "Heartbeats", "HTTPPinger")
	for _, at := range rec.arrived {
		p.mark(heartbeat.Sent, x(at), y(2))
	}
	for _, at := range slices.Concat(rec.lost, rec.refused) {
		p.mark(heartbeat.Failed, x(at), y(2))
	}
	p.text("note", "middle", x(lost)+perMinute/2, y(2)+23, "no answer: again after a minute")
	p.text("note", "end", x(outage[0])-4, y(2)+23, "never left: again after 10 s")
	p.text("", "end", x(back)-10, y(2)+4.5, "out within ten seconds")

	p.label(3, "Failure signal", "Options.FailPinger")
	for _, at := range rec.signals {
		p.signal(x(at), y(3))
		p.text("", "start", x(at)+12, y(3)+4, fmt.Sprintf("at the limit: the last sync is %d minutes old", int(interval.Minutes())))
	}

	p.label(4, "Service", "with failure signal")
	p.bar(4, service(rec.arrived, rec.signals))
	p.label(5, "Service", fmt.Sprintf("period %dm, grace %dm", int(period.Minutes()), int(grace.Minutes())))
	p.bar(5, service(rec.arrived, nil))

	p.add("</svg>")
	return p.String()
}

// bar draws the states of the service.
func (p *picture) bar(i int, spans []span) {
	for _, s := range spans {
		middle := (x(s.from) + x(s.to)) / 2
		p.add(`<rect class="%s" x="%g" y="%g" width="%g" height="20"/>`, s.state, x(s.from), y(i)-10, x(s.to)-x(s.from))
		switch {
		case s.state == "up":
			p.text("", "middle", middle, y(i)+4.5, s.state)
		case s.to.Sub(s.from) >= 3*time.Minute:
			p.text("on-bar", "middle", middle, y(i)+4.5, s.state)
		default:
			p.text("note", "middle", middle, y(i)+25, s.state+", no alarm")
		}
	}
}

// alarm returns when the first alarm begins.
func alarm(spans []span) time.Time {
	return spans[slices.IndexFunc(spans, func(s span) bool { return s.state == "alarm" })].from
}

func hhmm(at time.Time) string   { return at.Format("15:04") }
func hhmmss(at time.Time) string { return at.Format("15:04:05") }
