// Package measure_test measures the library: how good its alarm is, and what it
// costs. It has benchmarks only; .github/MEASUREMENTS.md has their results and
// what they mean.
package measure_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

const day = 24 * time.Hour

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.DiscardHandler)
)

// The two ways in which the network loses a ping. A refused connection proves
// that nothing was sent, as an HTTPPinger says of one.
var (
	errRefused    = fmt.Errorf("connection refused: %w", heartbeat.ErrNotSent)
	errUnanswered = errors.New("no answer in time")
)

// An environment is what the services' documentation recommends for one. The
// service raises an alarm when no ping has come for period + grace.
type environment struct {
	name                    string
	interval, period, grace time.Duration
}

var environments = []environment{
	{"development", 15 * time.Minute, 30 * time.Minute, 15 * time.Minute},
	{"staging", 5 * time.Minute, 15 * time.Minute, 5 * time.Minute},
	{"production", time.Minute, 5 * time.Minute, time.Minute},
}

// A world is the time, the database, the network and the service.
type world struct {
	environment
	now, end time.Time
	stopped  time.Time // when the database last syncs; zero: it goes on and on
	rand     *rand.Rand
	network  *rand.Rand // of its own, so that all policies meet the same bursts

	loss     float64   // the part of requests, or with bursts of the time, that is lost
	bursts   bool      // of one to three minutes, instead of one request at a time
	refused  bool      // the connection is, rather than the answer lost
	from, to time.Time // the latest burst

	received              time.Time // the latest ping
	signalled             time.Time // the first failure signal
	pings, stale, wakeUps int
	falseAlarms           int
}

func newWorld(e environment, seed uint64) *world {
	return &world{environment: e, now: epoch, to: epoch, received: epoch, end: epoch.Add(365 * day), rand: rand.New(rand.NewPCG(seed, 0)), network: rand.New(rand.NewPCG(seed, 1))}
}

func (w *world) Path() string { return "/data/app.db" }
func (w *world) LastSuccessfulSyncAt() time.Time {
	if !w.stopped.IsZero() && w.now.After(w.stopped) {
		return w.stopped
	}
	return w.now
}

func (w *world) healthy() bool { return w.now.Sub(w.LastSuccessfulSyncAt()) <= w.interval }

func (w *world) lost() bool {
	if !w.bursts || w.loss == 0 {
		return w.network.Float64() < w.loss
	}
	for !w.now.Before(w.to) {
		const mean = 2 * time.Minute
		w.from = w.to.Add(time.Duration(w.network.ExpFloat64() * float64(mean) * (1 - w.loss) / w.loss))
		w.to = w.from.Add(mean/2 + time.Duration(w.network.Int64N(int64(mean))))
	}
	return !w.now.Before(w.from)
}

// get makes one request, which takes 20 to 500 ms to arrive, and 10 s when there
// is no answer.
func (w *world) get() error {
	if w.lost() {
		if w.refused {
			return errRefused
		}
		w.now = w.now.Add(10 * time.Second)
		return errUnanswered
	}
	w.arrive(w.now.Add(20*time.Millisecond + time.Duration(w.rand.Int64N(int64(480*time.Millisecond)))))
	return nil
}

func (w *world) arrive(at time.Time) {
	if at.Sub(w.received) > w.period+w.grace {
		w.falseAlarms++
	}
	w.received = at
}

// attempt counts a ping, and whether it is a false green.
func (w *world) attempt() {
	w.pings++
	if !w.healthy() {
		w.stale++
	}
}

// alarm is when the service raises one, if nothing comes any more.
func (w *world) alarm() time.Time {
	at := w.received.Add(w.period + w.grace)
	if !w.signalled.IsZero() && w.signalled.Before(at) {
		return w.signalled
	}
	return at
}

// A worldClock passes the time at once. All is done by one goroutine.
type worldClock struct {
	*world
	cancel context.CancelFunc
}

func (c worldClock) Now() time.Time { return c.now }

func (c worldClock) After(d time.Duration) <-chan time.Time {
	if c.now = c.now.Add(d); !c.now.Before(c.end) {
		c.cancel()
		return nil
	}
	c.wakeUps++
	timer := make(chan time.Time, 1)
	timer <- c.now
	return timer
}

// runMonitor runs the real Monitor. Its pinger makes one attempt, as an
// HTTPPinger does.
func runMonitor(w *world, signal bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pinger := heartbeat.PingerFunc(func(context.Context) error {
		w.attempt()
		return w.get()
	})
	opts := &heartbeat.Options{Interval: w.interval, Clock: worldClock{w, cancel}, Logger: quiet}
	if signal {
		opts.FailPinger = heartbeat.PingerFunc(func(context.Context) error {
			w.signalled = w.now
			return nil
		})
	}
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{w}, opts)
	if err == nil {
		err = monitor.Run(ctx)
	}
	if err != nil {
		panic(err)
	}
}

func monitorPolicy(w *world) { runMonitor(w, false) }
func signalPolicy(w *world)  { runMonitor(w, true) }

// litestreamPolicy is Litestream's loop: a 15-second ticker, whose goroutine runs
// a moment after the tick; the attempt is recorded at the check; the next is due
// when a full interval has passed; no attempt is repeated.
func litestreamPolicy(w *world) {
	var last time.Time
	for tick := epoch; tick.Before(w.end); tick = tick.Add(15 * time.Second) {
		w.wakeUps++
		if tick.Before(w.now) {
			continue // the ping took longer
		}
		w.now = tick.Add(time.Duration(w.rand.Int64N(int64(time.Millisecond))))
		if w.now.Sub(last) < w.interval {
			continue
		}
		last = w.now
		if w.healthy() {
			w.attempt()
			_ = w.get()
		}
	}
}

// cronPolicy is a cron job that looks at the database, as the others do, and
// makes one GET.
func cronPolicy(w *world) {
	for tick := epoch; tick.Before(w.end); tick = tick.Add(w.interval) {
		w.wakeUps++
		w.now = tick
		if w.healthy() {
			w.attempt()
			_ = w.get()
		}
	}
}

// limitPolicy is the best that a policy can do at these intervals: it tries each
// second until the beat is out or the next is due, without any floor between two
// attempts. No service would accept it.
func limitPolicy(w *world) {
	for tick := epoch; tick.Before(w.end); tick = tick.Add(w.interval) {
		w.wakeUps++
		for w.now = tick; w.now.Before(tick.Add(w.interval)) && w.healthy(); w.now = w.now.Add(time.Second) {
			w.attempt()
			if w.get() == nil {
				break
			}
		}
	}
}

// A policy decides when to ping, for as long as the world lasts.
type policy struct {
	name string
	run  func(*world)
}

// A loss is a way in which pings are lost.
type loss struct {
	part            float64
	how             string
	refused, bursts bool
}

func losses() (all []loss) {
	for _, part := range []float64{0, 0.01, 0.05, 0.20} {
		for _, l := range []loss{
			{part, "refused, singly", true, false}, {part, "refused, in bursts", true, true},
			{part, "unanswered, singly", false, false}, {part, "unanswered, in bursts", false, true},
		} {
			if part == 0 { // however that is
				l.how = ""
			}
			all = append(all, l)
			if part == 0 {
				break
			}
		}
	}
	return all
}

// BenchmarkAlarm measures how right and how early the alarm is, and prints two
// tables:
//
//	go test -run='^$' -bench=Alarm -benchtime=1x ./internal/measure
func BenchmarkAlarm(b *testing.B) {
	policies := []policy{{"Monitor", monitorPolicy}, {"Litestream's loop", litestreamPolicy}, {"cron", cronPolicy}}
	for b.Loop() {
		var out strings.Builder
		falseAlarms(b, &out, append(slices.Clone(policies), policy{"limit", limitPolicy}))
		delays(b, &out, slices.Insert(policies, 1, policy{"Monitor, failure signal", signalPolicy}))
		fmt.Fprintln(os.Stdout, out.String())
	}
}

// falseAlarms prints a table of a year of each policy in each environment and
// each network, all databases being well, and reports the sums. It fails if the
// Monitor, the first policy, raises more than it may beside the next two.
func falseAlarms(b *testing.B, out *strings.Builder, policies []policy) {
	fmt.Fprintf(out, "\nFalse alarms a year, all databases being well: Monitor / Litestream's loop / cron / limit\n\n")
	table := newTable(out)
	table.row("pings lost", "how", "development", "staging", "production")
	table.rule(2, 3)
	total := make([]int, len(policies))
	for _, l := range losses() {
		cells := []any{fmt.Sprintf("%.0f %%", l.part*100), l.how}
		for _, e := range environments {
			alarms := make([]int, len(policies))
			for i, p := range policies {
				w := newWorld(e, 1)
				w.loss, w.refused, w.bursts = l.part, l.refused, l.bursts
				p.run(w)
				w.arrive(w.end)
				require.Zero(b, w.stale)
				alarms[i] = w.falseAlarms
				total[i] += w.falseAlarms
			}
			// Where nothing was sent, the Monitor has no excuse. A ping that left may
			// not be repeated within a minute, so cron is the measure there.
			if alarms[0] > alarms[2] || l.refused && alarms[0] > alarms[1] {
				b.Errorf("the Monitor is worse than another: %v %v %v %v", l.part, l.how, e.name, alarms)
			}
			cells = append(cells, strings.Join(strings.Fields(strings.Trim(fmt.Sprint(alarms), "[]")), " / "))
		}
		table.row(cells...)
	}
	for i, p := range policies {
		b.ReportMetric(float64(total[i]), "alarms/"+strings.ReplaceAll(p.name, " ", "-"))
	}
	require.NoError(b, table.Flush())
}

// delays prints a table of how long after a database's last sync the alarm comes,
// and of what each policy takes.
func delays(b *testing.B, out *strings.Builder, policies []policy) {
	fmt.Fprintf(out, "\nFrom a database's last sync to the alarm, and what it takes\n\n")
	table := newTable(out)
	table.row("environment", "policy", "median", "worst", "pings while stale", "pings a day", "wake-ups an hour")
	table.rule(2, 5)
	minutes := func(d time.Duration) string { return fmt.Sprintf("%.1f min", d.Minutes()) }
	for _, e := range environments {
		for _, p := range policies {
			const trials = 1001
			var delays []time.Duration
			stale := 0
			for n := range uint64(trials) {
				w := newWorld(e, n)
				w.stopped = epoch.Add(10*e.interval + time.Duration(w.rand.Int64N(int64(60*e.interval))))
				w.end = w.stopped.Add(4*e.interval + e.period + e.grace)
				p.run(w)
				delays = append(delays, w.alarm().Sub(w.stopped))
				stale += w.stale
			}
			slices.Sort(delays)
			w := newWorld(e, 1)
			p.run(w)
			table.row(e.name, p.name, minutes(delays[trials/2]), minutes(delays[trials-1]), stale,
				fmt.Sprintf("%.0f", float64(w.pings)/365), fmt.Sprintf("%.0f", float64(w.wakeUps)/365/24))
			require.Zero(b, stale)
		}
	}
	require.NoError(b, table.Flush())
}

// A table is written as Markdown.
type table struct{ *tabwriter.Writer }

func newTable(out *strings.Builder) table { return table{tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)} }

func (t table) row(cells ...any) {
	for _, cell := range cells {
		fmt.Fprintf(t, "| %v\t", cell)
	}
	fmt.Fprintln(t, "|")
}

func (t table) rule(text, numbers int) {
	t.row(slices.Concat(slices.Repeat([]any{"---"}, text), slices.Repeat([]any{"---:"}, numbers))...)
}
