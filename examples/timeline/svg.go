package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// The picture's measures, in pixels. A phone shows it about 390 pixels wide, so
// that letters of 20 are letters of 11 there: large enough to be read.
const (
	width, height = 720, 604

	left      = 24 // where the plot begins
	perMinute = 11.2
	top       = 112 // of the first lane
	bottom    = height - 44
	bar       = 30 // the height of a bar of the service
)

// The lanes: how far the middle of each one's marks is from the top.
const (
	syncLane    = top + 52
	beatLane    = top + 158
	signalLane  = top + 292
	silenceLane = top + 392
)

const head = `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="title desc">
<title id="title">A timeline of heartbeats</title>
<desc id="desc">%[3]s</desc>
<style>
text { font: 20px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
text.heading { font-size: 25px; font-weight: 600; }
text.name, text.on-bar { font-weight: 600; }
.note { paint-order: stroke; stroke-width: 6; stroke-linejoin: round; }
.sync { stroke-width: 3; }
.skipped { stroke-width: 2; }
.signal { stroke-width: 2; }
.failed { stroke-width: 3.5; stroke-linecap: round; }
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

// css is written out for each mode, since not every viewer of SVG knows CSS
// variables. A viewer that knows no media queries shows the light mode.
func (c palette) css() string {
	return strings.Join([]string{
		".paper { fill: " + c.paper + "; stroke: " + c.line + "; }",
		".outage { fill: " + c.outage + "; }",
		".grid { stroke: " + c.line + "; }",
		"text { fill: " + c.ink + "; }",
		"text.muted { fill: " + c.muted + "; }",
		"text.on-bar { fill: " + c.paper + "; }",
		".note, .signal { stroke: " + c.paper + "; }",
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

// label names a lane, above its marks.
func (p *picture) label(y float64, name, detail string) {
	p.add(`<text x="%d" y="%g"><tspan font-weight="600">%s</tspan>%s</text>`, left, y, name, detail)
}

// mark draws the outcome of one check: a dot, a cross or a tick. A cross stands
// above its lane, since the dot of the next try may be close.
func (p *picture) mark(outcome heartbeat.Outcome, x, y float64) {
	switch outcome {
	case heartbeat.Sent:
		p.add(`<circle class="sent" cx="%g" cy="%g" r="7"/>`, x, y)
	case heartbeat.Failed:
		p.add(`<path class="failed" d="M%g %gl12 12m0 -12l-12 12"/>`, x-6, y-20)
	case heartbeat.Skipped:
		p.add(`<path class="skipped" d="M%g %gv22"/>`, x, y-11)
	}
}

func (p *picture) signal(x, y float64) {
	p.add(`<path class="signal" d="M%g %gl9 9l-9 9l-9 -9z"/>`, x, y-9)
}

// legend says what each mark stands for.
func (p *picture) legend(y float64) {
	at := left + 8.0
	entry := func(mark func(), name string, wide float64) {
		mark()
		p.text("", "start", at+16, y+7, name)
		at += wide
	}
	entry(func() { p.mark(heartbeat.Sent, at, y) }, "heartbeat sent", 196)
	entry(func() { p.mark(heartbeat.Failed, at, y+14) }, "failed", 112)
	entry(func() { p.mark(heartbeat.Skipped, at, y) }, "skipped", 130)
	entry(func() { p.signal(at, y) }, "failure signal", 0)
}

func x(at time.Time) float64 { return left + at.Sub(start).Minutes()*perMinute }

// draw makes the picture of a recording.
func draw(rec *recording) string {
	p := &picture{}
	o := outageOf(rec)
	p.add(head, width, height, describe(rec, o), light.css(), dark.css())
	p.add(`<rect class="paper" x="0.5" y="0.5" width="%d" height="%d" rx="8"/>`, width-1, height-1)
	p.text("heading", "start", left, 42, "In sync: a heartbeat. Out of sync: silence.")
	p.legend(80)

	// Behind everything: the outage, and a line every ten minutes.
	p.add(`<rect class="outage" x="%g" y="%d" width="%g" height="%d"/>`, x(o.from), top, x(o.to)-x(o.from), bottom-top)
	for at := start; !at.After(start.Add(length)); at = at.Add(10 * time.Minute) {
		p.add(`<path class="grid" d="M%g %dV%d"/>`, x(at), top, bottom+5)
		p.text("muted", anchor(at), x(at), bottom+28, hhmm(at))
	}
	p.lanes(rec, o)
	p.add("</svg>")
	return p.String()
}

// An outage is the widest gap between two syncs, with the check that found the
// database stale and the first heartbeat after it.
type outage struct{ from, to, stale, back time.Time }

func outageOf(rec *recording) (o outage) {
	for i, at := range rec.syncs[1:] {
		if before := rec.syncs[i]; at.Sub(before) > o.to.Sub(o.from) {
			o.from, o.to = before, at
		}
	}
	for _, r := range rec.results {
		if r.Reason == heartbeat.ReasonStale {
			o.stale = r.Time
			break
		}
	}
	for _, at := range rec.arrived {
		if o.back = at; !at.Before(o.to) {
			break
		}
	}
	return o
}

// describe says in words what the picture shows.
func describe(rec *recording, o outage) string {
	return strings.Join([]string{
		fmt.Sprintf("A heartbeat is due every %d minutes.", int(interval.Minutes())),
		fmt.Sprintf("The ping of %s gets no answer and is sent again a minute later.", hhmm(rec.lost[0])),
		fmt.Sprintf("The ping of %s never leaves and is sent again ten seconds later.", hhmm(rec.refused[0])),
		fmt.Sprintf("The database does not sync after %s.", hhmm(o.from)),
		fmt.Sprintf("Its last sync is too old at %s: a failure signal goes out, and heartbeats are skipped.", hhmmss(o.stale)),
		fmt.Sprintf("A service that gets no failure signal raises its alarm at %s.", hhmm(alarm(service(rec.arrived, nil)))),
		fmt.Sprintf("The database syncs again, and a heartbeat goes out within ten seconds, at %s.", hhmmss(o.back)),
	}, " ")
}

func (p *picture) lanes(rec *recording, o outage) {
	p.label(syncLane-26, "Syncs", " of the database")
	for _, at := range rec.syncs {
		p.add(`<path class="sync" d="M%g %dv22"/>`, x(at), syncLane-11)
	}
	p.text("", "middle", (x(o.from)+x(o.to))/2, syncLane+7, "the database stops syncing")

	p.label(beatLane-38, "Heartbeats", fmt.Sprintf(" every %d minutes", int(interval.Minutes())))
	for _, r := range rec.results {
		p.mark(r.Outcome, x(r.Time), beatLane)
	}
	p.note("note", "start", left, "no answer:", "again 1 min later")
	p.note("note", "end", x(o.from)-6, "never left:", "10 s later")
	p.note("", "middle", (x(o.stale)+x(o.back))/2, "skipped:", string(heartbeat.ReasonStale))

	p.label(signalLane-26, "Service", ", with a fail URL")
	p.service(signalLane, service(rec.arrived, rec.signals))
	for _, at := range rec.signals {
		p.signal(x(at), signalLane)
	}
	p.label(silenceLane-26, "Service", fmt.Sprintf(", without: period %d min, grace %d min", int(period.Minutes()), int(grace.Minutes())))
	p.service(silenceLane, service(rec.arrived, nil))
}

// note explains a mark of the heartbeats, in two lines below it. The class "note"
// keeps the lines of the grid away from the letters.
func (p *picture) note(class, anchor string, x float64, first, second string) {
	p.text(class, anchor, x, beatLane+34, first)
	p.text(class, anchor, x, beatLane+58, second)
}

// anchor keeps the times at both ends of the axis within the picture.
func anchor(at time.Time) string {
	switch {
	case at.Equal(start):
		return "start"
	case at.Equal(start.Add(length)):
		return "end"
	}
	return "middle"
}

// service draws the states of the service as a bar, and says below it when the
// alarm begins. A state that is too short for its name has none.
func (p *picture) service(lane float64, spans []span) {
	for _, s := range spans {
		from, to := x(s.from), x(s.to)
		p.add(`<rect class="%s" x="%g" y="%g" width="%g" height="%d"/>`, s.state, from, lane-bar/2, to-from, bar)
		class := "on-bar"
		if s.state == "up" {
			class = ""
		}
		if to-from >= perMinute*4 {
			p.text(class, "middle", (from+to)/2, lane+7, s.state)
		}
		if s.state == "alarm" {
			since, side := from, "start"
			if to-from < perMinute*14 { // too narrow for the text
				since, side = to, "end"
			}
			p.text("", side, since, lane+bar/2+23, "alarm at "+hhmm(s.from))
		}
	}
}

// alarm returns when the first alarm begins.
func alarm(spans []span) time.Time {
	return spans[slices.IndexFunc(spans, func(s span) bool { return s.state == "alarm" })].from
}

func hhmm(at time.Time) string   { return at.Format("15:04") }
func hhmmss(at time.Time) string { return at.Format("15:04:05") }
