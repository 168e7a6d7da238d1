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

	healthy, lastSent, databaseHealthy, databaseAge *prometheus.Desc
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
		healthy: prometheus.NewDesc("heartbeat_healthy",
			"Whether there are databases and all of them are healthy.", nil, nil),
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
		c.checks.WithLabelValues(result.Outcome.String()).Inc()
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

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	c.checks.Describe(descs)
	for _, desc := range []*prometheus.Desc{c.healthy, c.lastSent, c.databaseHealthy, c.databaseAge} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector. It never waits for a ping.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	c.checks.Collect(metrics)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	status := c.monitor.Status()
	now := c.now().Round(0) // by the wall clock, which goes on while the machine sleeps
	gauge(c.healthy, toFloat(status.Healthy))
	// Where there is nothing to tell, the value is one that makes an alert fire:
	// one on a series that is not there would never.
	var lastSent float64
	if at := status.LastSentAt; !at.IsZero() {
		lastSent = float64(at.UnixMilli()) / 1000
	}
	gauge(c.lastSent, lastSent)
	for _, db := range status.Databases {
		age := math.Inf(1)
		if !db.LastSyncAt.IsZero() {
			age = now.Sub(db.LastSyncAt).Seconds()
		}
		path := strings.ToValidUTF8(db.Path, "\uFFFD") // or the label is refused
		gauge(c.databaseHealthy, toFloat(db.Healthy()), path)
		gauge(c.databaseAge, age, path)
	}
}

func toFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
