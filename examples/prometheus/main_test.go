package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func scrape(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: status %d, error %v, body:\n%s", resp.StatusCode, err, body)
	}
	return string(body)
}

func wantScrape(t *testing.T, url, want string) {
	t.Helper()
	if got := scrape(t, url); got != want {
		t.Errorf("scrape:\n%s\nwant:\n%s", got, want)
	}
}

const help = `# HELP heartbeat_checks_total Checks made, by outcome: sent, skipped or failed.
# TYPE heartbeat_checks_total counter
heartbeat_checks_total{outcome="failed"} FAILED
heartbeat_checks_total{outcome="sent"} SENT
heartbeat_checks_total{outcome="skipped"} SKIPPED
# HELP heartbeat_database_age_seconds Time since the database last synced; +Inf if it is not known to have.
# TYPE heartbeat_database_age_seconds gauge
heartbeat_database_age_seconds{path="/data/a.db"} AGE_A
heartbeat_database_age_seconds{path="/data/b.db"} AGE_B
# HELP heartbeat_database_healthy Whether the database last synced recently enough.
# TYPE heartbeat_database_healthy gauge
heartbeat_database_healthy{path="/data/a.db"} HEALTHY_A
heartbeat_database_healthy{path="/data/b.db"} HEALTHY_B
# HELP heartbeat_healthy Whether there are databases and all of them are healthy.
# TYPE heartbeat_healthy gauge
heartbeat_healthy HEALTHY
# HELP heartbeat_interval_seconds Time between two heartbeats.
# TYPE heartbeat_interval_seconds gauge
heartbeat_interval_seconds 300
# HELP heartbeat_last_sent_timestamp_seconds When the latest heartbeat that was sent began; 0 if none was.
# TYPE heartbeat_last_sent_timestamp_seconds gauge
heartbeat_last_sent_timestamp_seconds LAST
`

// pings are the series that there are once a target was pinged.
const pings = `# HELP heartbeat_pings_total Pings made, by target and outcome: sent or failed.
# TYPE heartbeat_pings_total counter
heartbeat_pings_total{outcome="failed",target="TARGET"} FAILED
heartbeat_pings_total{outcome="sent",target="TARGET"} SENT
`

// metrics fills in help, and pings where there are some, from "SENT 1 SKIPPED 0 …".
func metrics(values string) string {
	text := help
	if !strings.Contains(values, "SENT 0") {
		text += strings.ReplaceAll(pings, "TARGET", "target 1")
	}
	for fields := strings.Fields(values); len(fields) > 0; fields = fields[2:] {
		text = strings.ReplaceAll(text, " "+fields[0]+"\n", " "+fields[1]+"\n")
	}
	return text
}

func TestScrape(t *testing.T) {
	clock := heartbeattest.NewClock(time.Unix(1_700_000_000, 500_000_000))
	pinger := heartbeattest.NewPinger(clock)
	a, b := heartbeattest.NewReporter("/data/a.db"), heartbeattest.NewReporter("/data/b.db")
	var results []heartbeat.Outcome
	monitor, collector, err := NewMonitor(pinger, []heartbeat.SyncReporter{a, b}, &heartbeat.Options{
		Clock:    clock,
		OnResult: func(r heartbeat.Result) { results = append(results, r.Outcome) },
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	beat := func(want heartbeat.Outcome) {
		t.Helper()
		if r := monitor.Beat(t.Context()); r.Outcome != want {
			t.Errorf("%+v, want %v", r, want)
		}
	}

	wantScrape(t, server.URL, metrics("FAILED 0 SENT 0 SKIPPED 0 AGE_A +Inf AGE_B +Inf HEALTHY_A 0 HEALTHY_B 0 HEALTHY 0 LAST 0"))

	a.Set(clock.Now())
	beat(heartbeat.Skipped)
	b.Set(clock.Now().Add(-30 * time.Second))
	beat(heartbeat.Sent)
	wantScrape(t, server.URL, metrics("FAILED 0 SENT 1 SKIPPED 1 AGE_A 0 AGE_B 30 HEALTHY_A 1 HEALTHY_B 1 HEALTHY 1 LAST 1.7000000005e+09"))

	clock.Advance(2 * time.Minute)
	pinger.Fail(errors.New("no route to host"))
	beat(heartbeat.Failed)
	clock.Advance(2*time.Minute + 30*time.Second)
	a.Set(clock.Now())
	clock.Advance(time.Second) // no check since: a scrape judges for itself
	wantScrape(t, server.URL, metrics("FAILED 1 SENT 1 SKIPPED 1 AGE_A 1 AGE_B 301 HEALTHY_A 1 HEALTHY_B 0 HEALTHY 0 LAST 1.7000000005e+09"))
	beat(heartbeat.Skipped)

	// A removed database takes its series along, and a stamp ahead has a negative age.
	monitor.Remove("/data/b.db")
	a.Set(clock.Now().Add(time.Hour))
	want := metrics("FAILED 1 SENT 1 SKIPPED 2 AGE_A -3600 AGE_B 0 HEALTHY_A 0 HEALTHY_B 0 HEALTHY 0 LAST 1.7000000005e+09")
	wantScrape(t, server.URL, regexp.MustCompile(`(?m)^.*/data/b.db.*\n`).ReplaceAllString(want, ""))

	if want := []heartbeat.Outcome{heartbeat.Skipped, heartbeat.Sent, heartbeat.Failed, heartbeat.Skipped}; !slices.Equal(results, want) {
		t.Errorf("OnResult of the caller was told %v, want %v", results, want)
	}
}

func TestNewMonitor(t *testing.T) {
	if _, _, err := NewMonitor(nil, nil, nil); err == nil {
		t.Error("no error for a nil pinger")
	}
	// With the system clock, and a path that no label may have.
	tracker := heartbeat.NewSyncTracker("/data/\xff.db")
	tracker.Record(time.Now())
	_, collector, err := NewMonitor(&heartbeattest.Pinger{}, []heartbeat.SyncReporter{tracker}, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	if got, want := scrape(t, server.URL), "heartbeat_database_healthy{path=\"/data/\uFFFD.db\"} 1\n"; !strings.Contains(got, want) {
		t.Errorf("scrape:\n%s\nwant in it:\n%s", got, want)
	}
}

// TestAlerts checks that the rules, and their cases, use only what is exported: an
// alert on a name that does not exist never fires.
func TestAlerts(t *testing.T) {
	for _, file := range []string{"alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range regexp.MustCompile(`\bheartbeat_\w+|outcome="\w+"`).FindAllString(string(text), -1) {
			if !strings.Contains(help+pings, used) {
				t.Errorf("%s uses %s, which is not exported", file, used)
			}
		}
	}
}

// TestTargets: each of several services has its own counters.
func TestTargets(t *testing.T) {
	clock := heartbeattest.NewClock(time.Unix(1_700_000_000, 0))
	db := heartbeattest.NewReporter("/data/a.db")
	db.Set(clock.Now())
	fails := heartbeattest.NewPinger(clock)
	fails.Fail(errors.New("no route to host"))
	named := func(name string, p heartbeat.Pinger) heartbeat.Pinger { return target{p, name} }
	monitor, collector, err := NewMonitor(
		heartbeat.MultiPinger(named("Healthchecks", heartbeattest.NewPinger(clock)), named("status \xff page", fails)),
		[]heartbeat.SyncReporter{db}, &heartbeat.Options{Clock: clock, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	monitor.Beat(t.Context())
	clock.Advance(time.Minute)
	monitor.Beat(t.Context())
	got := regexp.MustCompile(`(?m)^heartbeat_pings.*$`).FindAllString(scrape(t, server.URL), -1)
	want := []string{
		`heartbeat_pings_total{outcome="failed",target="Healthchecks"} 0`,
		"heartbeat_pings_total{outcome=\"failed\",target=\"status \uFFFD page\"} 2",
		`heartbeat_pings_total{outcome="sent",target="Healthchecks"} 2`,
		"heartbeat_pings_total{outcome=\"sent\",target=\"status \uFFFD page\"} 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("scrape:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A target is a Pinger with a name of its own.
type target struct {
	heartbeat.Pinger
	name string
}

func (t target) String() string { return t.name }

// TestOnePathTwice: two databases of one path are one series, with the worse of each.
func TestOnePathTwice(t *testing.T) {
	clock := heartbeattest.NewClock(time.Unix(1_700_000_000, 0))
	fresh, stale := heartbeattest.NewReporter("/data/a.db"), heartbeattest.NewReporter("/data/a.db")
	fresh.Set(clock.Now())
	stale.Set(clock.Now().Add(-time.Hour))
	for _, set := range [][]heartbeat.SyncReporter{{fresh, stale}, {stale, fresh}} {
		_, collector, err := NewMonitor(heartbeattest.NewPinger(clock), nil, &heartbeat.Options{
			Clock:  clock,
			Source: func() []heartbeat.SyncReporter { return set },
		})
		if err != nil {
			t.Fatal(err)
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(collector)
		server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		t.Cleanup(server.Close)
		got := scrape(t, server.URL)
		for _, want := range []string{
			"heartbeat_database_healthy{path=\"/data/a.db\"} 0\n",
			"heartbeat_database_age_seconds{path=\"/data/a.db\"} 3600\n",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("scrape:\n%s\nwant in it:\n%s", got, want)
			}
		}
	}
}

// TestRun scrapes the program as a user would.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- run(ctx, "localhost:0", func(url string) { ready <- url }) }()
	var url string
	select {
	case url = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for !strings.Contains(scrape(t, url), `heartbeat_checks_total{outcome="sent"} 1`) {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), "nonsense", func(string) {}); err == nil {
		t.Error("no error for an address that is none")
	}
}
