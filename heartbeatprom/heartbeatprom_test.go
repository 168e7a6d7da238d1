package heartbeatprom_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeatprom"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var start = time.Unix(1_700_000_000, 500_000_000)

// newMonitor returns a Monitor of the databases that reports to onResult.
func newMonitor(t *testing.T, clock *heartbeattest.Clock, pinger heartbeat.Pinger, onResult func(heartbeat.Result), databases ...heartbeat.SyncReporter) *heartbeat.Monitor {
	t.Helper()
	monitor, err := heartbeat.New(pinger, databases, &heartbeat.Options{
		Clock: clock, OnResult: onResult, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return monitor
}

func synced(path string, at time.Time) *heartbeattest.Reporter {
	r := heartbeattest.NewReporter(path)
	r.Set(at)
	return r
}

// requireMetrics compares the series of c. The registry refuses what is inconsistent.
func requireMetrics(t *testing.T, c prometheus.Collector, want string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	require.Equal(t, strings.ReplaceAll(want, "\t", ""), "\n"+series(t, registry))
}

// series scrapes registry, as Prometheus does, and returns the lines with values.
func series(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	response := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, response.Code, response.Body)
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(response.Body.String(), "")
}

// A scrape tells what is so now, and counts what there was.
func TestCollector(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	pinger := heartbeattest.NewPinger(clock)
	a, b := heartbeattest.NewReporter("/data/a.db"), heartbeattest.NewReporter("/data/b.db")
	collector := heartbeatprom.NewCollector()
	monitor := newMonitor(t, clock, pinger, collector.OnResult, a, b)
	requireMetrics(t, collector, "\n") // before Add
	collector.Add(monitor)
	requireMetrics(t, collector, `
		heartbeat_database_healthy{monitor="1",path="/data/a.db"} 0
		heartbeat_database_healthy{monitor="1",path="/data/b.db"} 0
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/a.db"} 0
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/b.db"} 0
		heartbeat_healthy{monitor="1"} 0
		heartbeat_interval_seconds{monitor="1"} 300
		heartbeat_last_sent_timestamp_seconds{monitor="1"} 0
		`)

	a.Set(clock.Now())
	require.Equal(t, heartbeat.Skipped, monitor.Beat(t.Context()).Outcome)
	b.Set(clock.Now().Add(-30 * time.Second))
	require.Equal(t, heartbeat.Sent, monitor.Beat(t.Context()).Outcome)
	clock.Advance(2 * time.Minute)
	pinger.Fail(errors.New("no route to host"))
	require.Equal(t, heartbeat.Failed, monitor.Beat(t.Context()).Outcome)
	requireMetrics(t, collector, `
		heartbeat_checks_total{outcome="failed"} 1
		heartbeat_checks_total{outcome="sent"} 1
		heartbeat_checks_total{outcome="skipped"} 1
		heartbeat_database_healthy{monitor="1",path="/data/a.db"} 1
		heartbeat_database_healthy{monitor="1",path="/data/b.db"} 1
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/a.db"} 1.7000000005e+09
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/b.db"} 1.6999999705e+09
		heartbeat_healthy{monitor="1"} 1
		heartbeat_interval_seconds{monitor="1"} 300
		heartbeat_last_sent_timestamp_seconds{monitor="1"} 1.7000000005e+09
		heartbeat_pings_total{outcome="failed",target="target 1"} 1
		heartbeat_pings_total{outcome="sent",target="target 1"} 1
		heartbeat_target_last_sent_timestamp_seconds{target="target 1"} 1.7000000005e+09
		`)

	// There was no check since: the scrape judges for itself. A database that was
	// removed takes its series along.
	clock.Advance(4 * time.Minute)
	monitor.Remove("/data/b.db")
	requireMetrics(t, collector, `
		heartbeat_checks_total{outcome="failed"} 1
		heartbeat_checks_total{outcome="sent"} 1
		heartbeat_checks_total{outcome="skipped"} 1
		heartbeat_database_healthy{monitor="1",path="/data/a.db"} 0
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/a.db"} 1.7000000005e+09
		heartbeat_healthy{monitor="1"} 0
		heartbeat_interval_seconds{monitor="1"} 300
		heartbeat_last_sent_timestamp_seconds{monitor="1"} 1.7000000005e+09
		heartbeat_pings_total{outcome="failed",target="target 1"} 1
		heartbeat_pings_total{outcome="sent",target="target 1"} 1
		heartbeat_target_last_sent_timestamp_seconds{target="target 1"} 1.7000000005e+09
		`)
}

// The result of an older check that comes after a newer one's moves nothing back.
func TestCollector_resultsOutOfOrder(t *testing.T) {
	collector := heartbeatprom.NewCollector()
	for _, row := range []struct {
		began time.Duration
		err   error
		want  string
	}{
		{0, errors.New("no route to host"), "0"},
		{10 * time.Minute, nil, "1.7000006005e+09"},
		{5 * time.Minute, nil, "1.7000006005e+09"},
		{15 * time.Minute, errors.New("no route to host"), "1.7000006005e+09"},
		{11 * time.Minute, nil, "1.7000006605e+09"},
	} {
		collector.OnResult(heartbeat.Result{Time: start.Add(row.began), Outcome: heartbeat.Sent,
			Targets: []heartbeat.TargetResult{{Name: "a", Err: row.err}}})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(collector)
		require.Contains(t, series(t, registry), `heartbeat_target_last_sent_timestamp_seconds{target="a"} `+row.want+"\n")
	}
}

// Monitors are told apart by their position, also where they watch one database.
// One that is nil or there already is left out.
func TestCollector_severalMonitors(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	first := newMonitor(t, clock, heartbeattest.NewPinger(clock), nil, synced("/data/a.db", start))
	second := newMonitor(t, clock, heartbeattest.NewPinger(clock), nil, synced("/data/a.db", start.Add(-time.Hour)))
	collector := heartbeatprom.NewCollector(nil, first, first, nil, second)
	collector.Add(second, nil)
	collector.Add()
	requireMetrics(t, collector, `
		heartbeat_database_healthy{monitor="1",path="/data/a.db"} 1
		heartbeat_database_healthy{monitor="2",path="/data/a.db"} 0
		heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/a.db"} 1.7000000005e+09
		heartbeat_database_last_sync_timestamp_seconds{monitor="2",path="/data/a.db"} 1.6999964005e+09
		heartbeat_healthy{monitor="1"} 1
		heartbeat_healthy{monitor="2"} 0
		heartbeat_interval_seconds{monitor="1"} 300
		heartbeat_interval_seconds{monitor="2"} 300
		heartbeat_last_sent_timestamp_seconds{monitor="1"} 0
		heartbeat_last_sent_timestamp_seconds{monitor="2"} 0
		`)
	requireMetrics(t, heartbeatprom.NewCollector(nil), "\n")
}

// Collectors with labels of their own share a registry; two without do not.
func TestCollector_wrapped(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	registry := prometheus.NewPedanticRegistry()
	for _, tenant := range []string{"a", "b"} {
		collector := heartbeatprom.NewCollector()
		monitor := newMonitor(t, clock, heartbeattest.NewPinger(clock), collector.OnResult, synced("/data/app.db", start))
		collector.Add(monitor)
		prometheus.WrapRegistererWith(prometheus.Labels{"tenant": tenant}, registry).MustRegister(collector)
		require.Equal(t, heartbeat.Sent, monitor.Beat(t.Context()).Outcome)
	}
	text := series(t, registry)
	require.Contains(t, text, `heartbeat_healthy{monitor="1",tenant="a"} 1`)
	require.Contains(t, text, `heartbeat_pings_total{outcome="sent",target="target 1",tenant="b"} 1`)

	registry = prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(heartbeatprom.NewCollector()))
	require.Error(t, registry.Register(heartbeatprom.NewCollector()))
}

// Each of several targets has its own counters, both of which begin at 0; what a
// label cannot hold is replaced.
func TestCollector_targets(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	fails := heartbeattest.NewPinger(clock)
	fails.Fail(errors.New("no route to host"))
	collector := heartbeatprom.NewCollector()
	monitor := newMonitor(t, clock,
		heartbeat.MultiPinger(named{heartbeattest.NewPinger(clock), "Healthchecks"}, named{fails, "status \xff page"}),
		collector.OnResult, synced("/data/\xff.db", start))
	collector.Add(monitor)
	monitor.Beat(t.Context())
	clock.Advance(time.Minute)
	monitor.Beat(t.Context())
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	text := series(t, registry)
	for _, want := range []string{
		`heartbeat_pings_total{outcome="failed",target="Healthchecks"} 0`,
		"heartbeat_pings_total{outcome=\"failed\",target=\"status \uFFFD page\"} 2",
		`heartbeat_pings_total{outcome="sent",target="Healthchecks"} 2`,
		`heartbeat_target_last_sent_timestamp_seconds{target="Healthchecks"} 1.7000000605e+09`,
		"heartbeat_target_last_sent_timestamp_seconds{target=\"status \uFFFD page\"} 0",
		"heartbeat_pings_total{outcome=\"sent\",target=\"status \uFFFD page\"} 0",
		"heartbeat_database_healthy{monitor=\"1\",path=\"/data/\uFFFD.db\"} 1",
	} {
		require.Contains(t, text, want+"\n")
	}
}

// A named pinger is a target with a name of its own.
type named struct {
	heartbeat.Pinger
	name string
}

func (n named) String() string { return n.name }

// Two databases of one path, which a Source may return, are one series with the
// worse of each value.
func TestCollector_onePathTwice(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	fresh, stale := synced("/data/a.db", start), synced("/data/a.db", start.Add(-time.Hour))
	for _, set := range [][]heartbeat.SyncReporter{{fresh, stale}, {stale, fresh}} {
		monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), nil, &heartbeat.Options{
			Clock: clock, Source: func() []heartbeat.SyncReporter { return set },
		})
		require.NoError(t, err)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(heartbeatprom.NewCollector(monitor))
		text := series(t, registry)
		require.Contains(t, text, `heartbeat_database_healthy{monitor="1",path="/data/a.db"} 0`)
		require.Contains(t, text, `heartbeat_database_last_sync_timestamp_seconds{monitor="1",path="/data/a.db"} 1.6999964005e+09`)
	}
}

// Results count also where they come late and out of order, from many goroutines,
// while monitors are added and metrics are scraped.
func TestCollector_concurrent(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	collector := heartbeatprom.NewCollector()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	var group sync.WaitGroup
	for i := range 20 {
		monitor := newMonitor(t, clock, heartbeattest.NewPinger(clock), nil)
		group.Go(func() {
			collector.OnResult(heartbeat.Result{Time: start.Add(-time.Duration(i) * time.Hour), Outcome: heartbeat.Skipped})
			collector.Add(monitor)
			_, err := registry.Gather()
			assert.NoError(t, err)
		})
	}
	group.Wait()
	require.Contains(t, series(t, registry), `heartbeat_checks_total{outcome="skipped"} 20`)
	require.Contains(t, series(t, registry), `heartbeat_healthy{monitor="20"} 0`)
}

// A reporter may use the Collector while it is scraped.
func TestCollector_reentrant(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	collector := heartbeatprom.NewCollector()
	db := adding{collector, newMonitor(t, clock, heartbeattest.NewPinger(clock), nil)}
	collector.Add(newMonitor(t, clock, heartbeattest.NewPinger(clock), nil, db))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	series(t, registry)
	require.Contains(t, series(t, registry), `heartbeat_healthy{monitor="2"} 0`)
}

type adding struct {
	collector *heartbeatprom.Collector
	monitor   *heartbeat.Monitor
}

func (a adding) Path() string { return "/data/app.db" }
func (a adding) LastSuccessfulSyncAt() time.Time {
	a.collector.Add(a.monitor)
	return start
}

// The names and helps pass the linter that promtool has.
func TestCollector_lint(t *testing.T) {
	clock := heartbeattest.NewClock(start)
	collector := heartbeatprom.NewCollector()
	monitor := newMonitor(t, clock, heartbeattest.NewPinger(clock), collector.OnResult, synced("/data/app.db", start))
	collector.Add(monitor)
	monitor.Beat(t.Context())
	problems, err := testutil.CollectAndLint(collector)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// A Collector serves the metrics of a Monitor on /metrics.
func ExampleNewCollector() {
	db := heartbeat.NewSyncTracker("/data/app.db")
	db.Record(time.Now())
	pinger := heartbeattest.NewPinger(heartbeattest.NewClock(time.Now())) // stands for an HTTPPinger

	collector := heartbeatprom.NewCollector()
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{OnResult: collector.OnResult})
	if err != nil {
		fmt.Println(err)
		return
	}
	collector.Add(monitor)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	resp, err := http.Get(server.URL) // what Prometheus does
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.Contains(string(body), `heartbeat_healthy{monitor="1"} 1`))
	// Output: true
}

// Where each tenant has a Monitor, its metrics get a label with the tenant's name.
func ExampleNewCollector_tenants() {
	registry := prometheus.NewRegistry()
	for _, tenant := range []string{"alice", "bob"} {
		collector := heartbeatprom.NewCollector()
		monitor, err := heartbeat.New(
			heartbeattest.NewPinger(heartbeattest.NewClock(time.Now())), // stands for an HTTPPinger
			[]heartbeat.SyncReporter{heartbeat.NewSyncTracker("/data/" + tenant + ".db")},
			&heartbeat.Options{OnResult: collector.OnResult})
		if err != nil {
			fmt.Println(err)
			return
		}
		collector.Add(monitor)
		prometheus.WrapRegistererWith(prometheus.Labels{"tenant": tenant}, registry).MustRegister(collector)
	}
	metrics, err := registry.Gather()
	for _, family := range metrics {
		if family.GetName() == "heartbeat_healthy" {
			fmt.Println(len(family.GetMetric()), err)
		}
	}
	// Output: 2 <nil>
}
