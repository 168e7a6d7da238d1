package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serve serves /healthz and /metrics, if there is an address to do so.
func (d *daemon) serve() (*http.Server, error) {
	server := &http.Server{Handler: d.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	if d.addr == "" {
		return server, nil
	}
	listener, err := net.Listen("tcp", d.addr)
	if err != nil {
		return nil, fmt.Errorf("addr: %w", err)
	}
	d.logger.Info("serving /healthz and /metrics", "addr", listener.Addr().String())
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.logger.Error("serving /healthz and /metrics failed", "error", err)
		}
	}()
	return server, nil
}

func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", d.serveHealth)
	// Litestream's own metrics are in the default registry.
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(restoreMetrics{d}, d.metrics)
	gatherers := prometheus.Gatherers{prometheus.DefaultGatherer, metrics}
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

// A health is the body of /healthz. It is for strangers: the causes of failed
// restore checks, which may name hosts and buckets, are for the log.
type health struct {
	Healthy       bool                `json:"healthy"`        // whether all heartbeats are; false if there are none
	Heartbeats    []json.RawMessage   `json:"heartbeats"`     // what each Monitor answers
	RestoreChecks []restoreCheckState `json:"restore_checks"` // of all databases that have one
}

type restoreCheckState struct {
	Path         string    `json:"path"` // of the database
	Good         bool      `json:"good"` // whether the database counts
	Failed       bool      `json:"failed"`
	LastPassedAt time.Time `json:"last_passed_at,omitzero"` // zero: not since the start
	Took         float64   `json:"took_seconds"`            // the last check; zero: none has ended
}

func (d *daemon) serveHealth(w http.ResponseWriter, r *http.Request) {
	h := health{Healthy: len(d.monitors) > 0, Heartbeats: []json.RawMessage{}, RestoreChecks: []restoreCheckState{}}
	for _, m := range d.monitors {
		answer := &answer{header: http.Header{}, status: http.StatusOK}
		m.ServeHTTP(answer, &http.Request{Method: http.MethodGet, URL: r.URL})
		h.Heartbeats = append(h.Heartbeats, answer.body.Bytes())
		h.Healthy = h.Healthy && answer.status == http.StatusOK
	}
	for _, c := range d.checks() {
		v := c.last()
		h.RestoreChecks = append(h.RestoreChecks, restoreCheckState{c.reporter.Path(), v.good(d.clock.Now(), c.every), v.failed, v.passed, v.took.Seconds()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !h.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h)
}

// checks returns the restore checks that run: those of databases that a heartbeat
// stands for.
func (d *daemon) checks() (checks []*restoreCheck) {
	for _, c := range d.restores {
		if c != nil && c.reporter.every > 0 {
			checks = append(checks, c)
		}
	}
	return checks
}

// restoreMetrics are the metrics of the restore checks.
type restoreMetrics struct{ *daemon }

var (
	restorePassed = prometheus.NewDesc("heartbeat_restore_check_last_success_timestamp_seconds",
		"When the last restore check that passed began; 0 if none has since the start.", []string{"path"}, nil)
	restoreTook = prometheus.NewDesc("heartbeat_restore_check_duration_seconds",
		"How long the last restore check took, whether it passed or not.", []string{"path"}, nil)
)

// Describe names the metrics.
func (restoreMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- restorePassed
	descs <- restoreTook
}

// Collect returns the metrics now.
func (m restoreMetrics) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range m.checks() {
		v, path := c.last(), strings.ToValidUTF8(c.reporter.Path(), "\ufffd")
		seconds := 0.0
		if !v.passed.IsZero() {
			seconds = float64(v.passed.UnixMilli()) / 1000
		}
		metrics <- prometheus.MustNewConstMetric(restorePassed, prometheus.GaugeValue, seconds, path)
		if v.took > 0 {
			metrics <- prometheus.MustNewConstMetric(restoreTook, prometheus.GaugeValue, v.took.Seconds(), path)
		}
	}
}

// An answer is what a handler answers, kept.
type answer struct {
	header http.Header
	body   bytes.Buffer
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
func (a *answer) WriteHeader(status int)      { a.status = status }
