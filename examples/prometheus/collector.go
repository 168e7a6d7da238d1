package main

import (
	"math"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/prometheus/client_golang/prometheus"
)

// A Collector is a prometheus.Collector of what a Monitor does and knows. Its
// gauges are judged anew at each scrape, so that they tell the truth also when
// the goroutine that runs the Monitor is gone. Create one with [NewMonitor].
type Collector struct {
	monitor *heartbeat.Monitor
	now     func() time.Time
	checks  *prometheus.CounterVec
	pings   *prometheus.CounterVec

	healthy, interval, lastSent, databaseHealthy, databaseAge *prometheus.Desc
}

// NewMonitor is heartbeat.New with metrics: it also returns a Collector, to
// register with a prometheus.Registerer. An OnResult in opts is still called.
func NewMonitor(pinger heartbeat.Pinger, reporters []heartbeat.SyncReporter, opts *heartbeat.Options) (*heartbeat.Monitor, *Collector, error) {
	c := &Collector{
		now: time.Now,
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heartbeat_checks_total",
			Help: "Checks made, by outcome: sent, skipped or failed.",
		}, []string{"outcome"}),
		pings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "heartbeat_pings_total",
			Help: "Pings made, by target and outcome: sent or failed.",
		}, []string{"target", "outcome"}),
		healthy: prometheus.NewDesc("heartbeat_healthy",
			"Whether there are databases and all of them are healthy.", nil, nil),
		interval: prometheus.NewDesc("heartbeat_interval_seconds",
			"Time between two heartbeats.", nil, nil),
		lastSent: prometheus.NewDesc("heartbeat_last_sent_timestamp_seconds",
			"When the latest heartbeat that was sent began; 0 if none was.", nil, nil),
		databaseHealthy: prometheus.NewDesc("heartbeat_database_healthy",
			"Whether the database last synced recently enough.", []string{"path"}, nil),
		databaseAge: prometheus.NewDesc("heartbeat_database_age_seconds",
			"Time since the database last synced; +Inf if it is not known to have.", []string{"path"}, nil),
	}
	for _, outcome := range []heartbeat.Outcome{heartbeat.Sent, heartbeat.Skipped, heartbeat.Failed} {
		c.checks.WithLabelValues(outcome.String()) // from 0, so that the first is an increase
	}
	var o heartbeat.Options
	if opts != nil {
		o = *opts
	}
	if o.Clock != nil {
		c.now = o.Clock.Now
	}
	onResult := o.OnResult
	o.OnResult = func(result heartbeat.Result) {
		c.count(result)
		if onResult != nil {
			onResult(result)
		}
	}
	var err error
	c.monitor, err = heartbeat.New(pinger, reporters, &o)
	if err != nil {
		return nil, nil, err
	}
	return c.monitor, c, nil
}

// count adds a Result to the counters. Two targets of one name share theirs: so
// give each an HTTPOptions.Name where they are on one host.
func (c *Collector) count(result heartbeat.Result) {
	c.checks.WithLabelValues(result.Outcome.String()).Inc()
	for _, target := range result.Targets {
		name := validLabel(target.Name)
		sent := c.pings.WithLabelValues(name, heartbeat.Sent.String()) // both, so that neither begins above 0
		failed := c.pings.WithLabelValues(name, heartbeat.Failed.String())
		if target.Err == nil {
			sent.Inc()
		} else {
			failed.Inc()
		}
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	c.checks.Describe(descs)
	c.pings.Describe(descs)
	for _, desc := range []*prometheus.Desc{c.healthy, c.interval, c.lastSent, c.databaseHealthy, c.databaseAge} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector. It never waits for a ping.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	c.checks.Collect(metrics)
	c.pings.Collect(metrics)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	status := c.monitor.Status()
	now := c.now().Round(0) // by the wall clock, which goes on while the machine sleeps
	gauge(c.healthy, toFloat(status.Healthy))
	gauge(c.interval, status.Interval.Seconds())
	// Where there is nothing to tell, the value is one that makes an alert fire:
	// one on a series that is not there would never.
	var lastSent float64
	if at := status.LastSentAt; !at.IsZero() {
		lastSent = float64(at.UnixMilli()) / 1000
	}
	gauge(c.lastSent, lastSent)
	for path, db := range byLabel(status.Databases, now) {
		gauge(c.databaseHealthy, toFloat(db.healthy), path)
		gauge(c.databaseAge, db.age, path)
	}
}

// A database is what is exported of one: its age is in seconds.
type database struct {
	healthy bool
	age     float64
}

// byLabel returns the databases by the label that they get. Of two that share it,
// as those of a Source may, the worse counts: a scrape that has one series twice is
// refused as a whole.
func byLabel(statuses []heartbeat.DatabaseStatus, now time.Time) map[string]database {
	dbs := make(map[string]database, len(statuses))
	for _, status := range statuses {
		age := math.Inf(1)
		if !status.LastSyncAt.IsZero() {
			age = now.Sub(status.LastSyncAt).Seconds()
		}
		db := database{status.Healthy(), age}
		path := validLabel(status.Path)
		if other, ok := dbs[path]; ok {
			db = database{db.healthy && other.healthy, max(db.age, other.age)}
		}
		dbs[path] = db
	}
	return dbs
}

// validLabel makes a label's value of text: what is not UTF-8 would be refused.
func validLabel(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func toFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
