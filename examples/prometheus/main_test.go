package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeatprom"
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

// TestAlerts checks that the rules, and their cases, use only what is exported: an
// alert on a name that does not exist never fires.
func TestAlerts(t *testing.T) {
	exported := metrics(t)
	for _, file := range []string{"alerts.yml", "alerts_test.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range regexp.MustCompile(`\bheartbeat_\w+|outcome="\w+"`).FindAllString(string(text), -1) {
			if !strings.Contains(exported, used) {
				t.Errorf("%s uses %s, which is not exported", file, used)
			}
		}
	}
}

// metrics returns what a Collector exports of a Monitor that has made a ping.
func metrics(t *testing.T) string {
	t.Helper()
	clock := heartbeattest.NewClock(time.Now())
	db := heartbeattest.NewReporter("/data/a.db")
	db.Set(clock.Now())
	collector := heartbeatprom.NewCollector()
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db}, &heartbeat.Options{
		Clock: clock, OnResult: collector.OnResult,
	})
	if err != nil {
		t.Fatal(err)
	}
	collector.Add(monitor)
	monitor.Beat(t.Context())
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	return scrape(t, server.URL)
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

// TestParse: -h explains the program, and what is not understood is refused.
func TestParse(t *testing.T) {
	for _, row := range []struct{ args, listen, says string }{
		{"", "localhost:9469", ""},
		{"-listen :0", ":0", ""},
		{"-h", "", "Usage: prometheus [-listen ADDRESS]"},
		{"-listen=", "", "-listen is empty"},
		{":9469", "", `unexpected argument ":9469"`},
		{"-x", "", "flag provided but not defined: -x"},
	} {
		var out strings.Builder
		listen, err := parse(strings.Fields(row.args), &out)
		if row.says == "" && (err != nil || listen != row.listen) {
			t.Errorf("%q: %q, %v", row.args, listen, err)
		}
		if row.says != "" && (err == nil || !strings.Contains(out.String(), row.says)) {
			t.Errorf("%q: error %v, output %q, want %q in it", row.args, err, out.String(), row.says)
		}
	}
}
