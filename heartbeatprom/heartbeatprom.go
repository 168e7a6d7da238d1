// Package heartbeatprom exports what heartbeat Monitors do and know as Prometheus
// metrics:
//
//	collector := heartbeatprom.NewCollector()
//	monitor, err := heartbeat.New(pinger, databases, &heartbeat.Options{OnResult: collector.OnResult})
//	// …
//	collector.Add(monitor)
//	prometheus.MustRegister(collector)
//
// If the Monitor exists already, prometheus.MustRegister(NewCollector(monitor)) is
// enough. The metrics that need OnResult are then missing.
//
// These are the metrics:
//
//	heartbeat_healthy{monitor}
//		1 if there are databases and all of them are healthy, and 0 otherwise
//	heartbeat_interval_seconds{monitor}
//		time between two heartbeats
//	heartbeat_last_sent_timestamp_seconds{monitor}
//		when the latest heartbeat that was sent began; 0 if none was
//	heartbeat_database_healthy{monitor, path}
//		1 if the database last synced recently enough, and 0 otherwise
//	heartbeat_database_last_sync_timestamp_seconds{monitor, path}
//		when the database last synced; 0 if it is not known to have
//	heartbeat_checks_total{outcome}
//		checks made; only with OnResult
//	heartbeat_pings_total{target, outcome}
//		heartbeats attempted; only with OnResult
//	heartbeat_target_last_sent_timestamp_seconds{target}
//		when the latest heartbeat that the target took began; 0 if it took none;
//		only with OnResult
//
// The label monitor is the position of the Monitor in its Collector: "1", "2" and so
// on. To give Monitors names and counters of their own, make a Collector for each, and
// register it with prometheus.WrapRegistererWith.
//
// Rules for alerts on these metrics are in examples/prometheus/alerts.yml.
package heartbeatprom

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	healthyDesc = prometheus.NewDesc("heartbeat_healthy",
		"Whether there are databases and all of them are healthy.", []string{"monitor"}, nil)
	intervalDesc = prometheus.NewDesc("heartbeat_interval_seconds",
		"Time between two heartbeats.", []string{"monitor"}, nil)
	lastSentDesc = prometheus.NewDesc("heartbeat_last_sent_timestamp_seconds",
		"When the latest heartbeat that was sent began; 0 if none was.", []string{"monitor"}, nil)
	databaseHealthyDesc = prometheus.NewDesc("heartbeat_database_healthy",
		"Whether the database last synced recently enough.", []string{"monitor", "path"}, nil)
	databaseLastSyncDesc = prometheus.NewDesc("heartbeat_database_last_sync_timestamp_seconds",
		"When the database last synced; 0 if it is not known to have.", []string{"monitor", "path"}, nil)
	targetLastSentDesc = prometheus.NewDesc("heartbeat_target_last_sent_timestamp_seconds",
		"When the latest heartbeat that the target took began; 0 if it took none.", []string{"target"}, nil)
)

// A Collector is a prometheus.Collector of Monitors. At each scrape it judges the
// databases anew. So its gauges are right even if nothing runs the Monitor any more.
// Create one with [NewCollector]. All its methods may be called from any goroutine
// at any time.
type Collector struct {
	checks *prometheus.CounterVec
	pings  *prometheus.CounterVec

	mu       sync.Mutex
	monitors []*heartbeat.Monitor
	lastSent map[string]time.Time // by the target's label; zero: it took none
}

// NewCollector returns a Collector of the monitors, to be registered with a
// prometheus.Registerer. There may be none yet; see [Collector.Add], which it calls.
func NewCollector(monitors ...*heartbeat.Monitor) *Collector {
	c := &Collector{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heartbeat_checks_total",
			Help: "Checks made, by outcome: sent, skipped or failed.",
		}, []string{"outcome"}),
		pings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heartbeat_pings_total",
			Help: "Heartbeats attempted, by target and outcome: sent or failed.",
		}, []string{"target", "outcome"}),
		lastSent: make(map[string]time.Time),
	}
	c.Add(monitors...)
	return c
}

// Add adds monitors behind those that c has. It ignores a nil Monitor, because a
// daemon whose heartbeats are off has none. It also ignores a Monitor that c has.
func (c *Collector) Add(monitors ...*heartbeat.Monitor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range monitors {
		if m != nil && !slices.Contains(c.monitors, m) {
			c.monitors = append(c.monitors, m)
		}
	}
}

// OnResult adds a check to the counters. Give it to [heartbeat.Options] as OnResult,
// or call it from a function of your own there. Until it is called there are no
// counters: a zero would claim that there was no check. Results of several Monitors
// are added up. They may come in any order: a slow ping of an older check may end
// after that of a newer one.
//
// Targets with the same name share their metrics. Two checks at one service have the
// same name unless you set HTTPOptions.Name.
func (c *Collector) OnResult(result heartbeat.Result) {
	for _, outcome := range []heartbeat.Outcome{heartbeat.Sent, heartbeat.Skipped, heartbeat.Failed} {
		c.checks.WithLabelValues(outcome.String()) // all three, so that the others begin at 0
	}
	c.checks.WithLabelValues(result.Outcome.String()).Inc()
	for _, target := range result.Targets {
		name := validLabel(target.Name)
		sent := c.pings.WithLabelValues(name, heartbeat.Sent.String())
		failed := c.pings.WithLabelValues(name, heartbeat.Failed.String())
		if target.Err == nil {
			sent.Inc()
			c.tookPing(name, result.Time)
		} else {
			failed.Inc()
			c.tookPing(name, time.Time{})
		}
	}
}

// tookPing records that a target took the ping of a check that began at the given
// time; the zero time is that of a ping which it did not take.
func (c *Collector) tookPing(target string, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.lastSent[target]; !ok || began.After(last) {
		c.lastSent[target] = began
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	c.checks.Describe(descs)
	c.pings.Describe(descs)
	for _, desc := range []*prometheus.Desc{healthyDesc, intervalDesc, lastSentDesc, databaseHealthyDesc, databaseLastSyncDesc, targetLastSentDesc} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector. It asks each Monitor for its Status, and
// so each SyncReporter for its last sync, and never waits for a ping.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	c.checks.Collect(metrics)
	c.pings.Collect(metrics)
	c.mu.Lock()
	monitors, lastSent := slices.Clone(c.monitors), maps.Clone(c.lastSent)
	c.mu.Unlock()
	for target, at := range lastSent {
		metrics <- prometheus.MustNewConstMetric(targetLastSentDesc, prometheus.GaugeValue, seconds(at), target)
	}
	for i, m := range monitors { // not under the lock: reporters are foreign, and may block or call Add
		collect(metrics, strconv.Itoa(i+1), m.Status())
	}
}

func collect(metrics chan<- prometheus.Metric, monitor string, status heartbeat.Status) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(healthyDesc, number(status.Healthy), monitor)
	gauge(intervalDesc, status.Interval.Seconds(), monitor)
	// What is not known is 0, a value on which an alert fires: it never would on a
	// series that is not there.
	gauge(lastSentDesc, seconds(status.LastSentAt), monitor)
	for path, db := range byPath(status.Databases) {
		gauge(databaseHealthyDesc, number(db.healthy), monitor, path)
		gauge(databaseLastSyncDesc, db.lastSync, monitor, path)
	}
}

// A database is what is exported of one. A time is exported, and not an age: the
// Monitor's clock is not known here, and Prometheus can subtract.
type database struct {
	healthy  bool
	lastSync float64
}

// byPath returns the databases by the label that they get. Of two that share it, as
// those of a Source may, the worse counts: a scrape that has one series twice is
// refused as a whole.
func byPath(statuses []heartbeat.DatabaseStatus) map[string]database {
	dbs := make(map[string]database, len(statuses))
	for _, status := range statuses {
		db := database{status.Healthy(), seconds(status.LastSyncAt)}
		path := validLabel(status.Path)
		if other, ok := dbs[path]; ok {
			db = database{db.healthy && other.healthy, min(db.lastSync, other.lastSync)}
		}
		dbs[path] = db
	}
	return dbs
}

// validLabel makes a label's value of text: what is not UTF-8 would be refused.
func validLabel(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns at in seconds since 1970, and 0 for the zero time.
func seconds(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return float64(at.UnixMilli()) / 1000
}
