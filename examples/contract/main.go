// Contract is a program outside the library's module that uses every name the
// library exports: contract.go at compile time, and this file at run time,
// against a receiver on loopback. It shows the library's log lines as they are
// and ends with the number of pings that arrived.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	service, err := newReceiver()
	if err != nil {
		return err
	}
	defer service.close()

	c := &checks{}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	for _, part := range []func(context.Context, *checks, *slog.Logger, *receiver){
		beats, reasons, errorsOfPings, schedule, multiple, configuration,
	} {
		part(ctx, c, log, service)
	}
	fmt.Fprintf(out, "%d pings arrived, %d checks failed\n", service.total(), len(c.failed))
	return errors.Join(c.failed...)
}

// beats is a daemon's main use of the library.
func beats(ctx context.Context, c *checks, log *slog.Logger, service *receiver) {
	pinger, err := heartbeat.NewHTTPPinger(service.url("/ok"), &heartbeat.HTTPOptions{
		Client:    &http.Client{},
		Timeout:   5 * time.Second,
		Method:    http.MethodPost,
		Header:    http.Header{"Authorization": {"Bearer token"}},
		RedactURL: true,
	})
	c.expect("NewHTTPPinger", err == nil)
	if err != nil {
		return
	}
	defer pinger.CloseIdleConnections()
	c.expect("RedactURL", pinger.String() == "http://"+service.host)

	tracker := heartbeat.NewSyncTracker("/data/app.db")
	c.expect("SyncTracker.Path", tracker.Path() == "/data/app.db")
	c.expect("SyncTracker starts unsynced", tracker.LastSuccessfulSyncAt().IsZero())

	var results []heartbeat.Result
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
		Interval:   heartbeat.DefaultInterval,
		MaxSyncAge: heartbeat.DefaultInterval,
		Logger:     log,
		OnResult:   func(r heartbeat.Result) { results = append(results, r) },
	})
	c.expect("New", err == nil)
	if err != nil {
		return
	}

	r := monitor.Beat(ctx)
	c.expect("not synced", r.Outcome == heartbeat.Skipped && r.Reason == heartbeat.ReasonNotSynced &&
		r.Databases == 1 && len(r.Unhealthy) == 1 && r.Unhealthy[0].Path == "/data/app.db" && !r.Unhealthy[0].Healthy())

	now := time.Now()
	tracker.Record(now)
	c.expect("Record", tracker.LastSuccessfulSyncAt().Equal(now))
	r = monitor.Beat(ctx)
	c.expect("sent", r.Outcome == heartbeat.Sent && r.Reason == "" && r.Err == nil && r.Unhealthy == nil && !r.Time.IsZero())
	c.expect("arrived", service.count("POST /ok") == 1)
	r = monitor.Beat(ctx)
	c.expect("rate limited", r.Outcome == heartbeat.Skipped && r.Reason == heartbeat.ReasonRateLimited)
	c.expect("not sent again", service.count("POST /ok") == 1)
	c.expect("OnResult", len(results) == 3)

	status := monitor.Status()
	c.expect("Status", status.Healthy && status.LastResult.Reason == heartbeat.ReasonRateLimited &&
		!status.LastSentAt.IsZero() && len(status.Databases) == 1 && status.Databases[0].LastSyncAt.Equal(now))
	text, err := json.Marshal(status)
	c.expect("JSON", err == nil && json.Valid(text))

	err = monitor.Add(heartbeat.NewSyncTracker("/data/app.db"))
	c.expect("ErrDuplicatePath", errors.Is(err, heartbeat.ErrDuplicatePath))
	c.expect("Add", monitor.Add(heartbeat.NewSyncTracker("/data/users.db")) == nil)
	c.expect("both", len(monitor.Status().Databases) == 2 && !monitor.Status().Healthy)
	c.expect("Remove", monitor.Remove("/data/users.db") && !monitor.Remove("/data/users.db"))
	c.expect("Format", fmt.Sprint(monitor) == "heartbeat.Monitor(1 databases, 1 targets)")

	done, end := context.WithCancel(ctx)
	end()
	c.expect("Run ends with its context", monitor.Run(done) == nil)
}

type panicking struct{}

func (panicking) Path() string                    { return "/data/broken.db" }
func (panicking) LastSuccessfulSyncAt() time.Time { panic("closed") }

// reasons meets each reason for a skipped heartbeat on a fake clock.
func reasons(ctx context.Context, c *checks, log *slog.Logger, _ *receiver) {
	clock := heartbeattest.NewClock(time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	c.expect("Reporter.Path", reporter.Path() == "/data/app.db")
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), nil, &heartbeat.Options{
		Interval: heartbeat.MinInterval, Clock: clock, Logger: log,
	})
	c.expect("New", err == nil)
	if err != nil {
		return
	}
	expect := func(reason heartbeat.Reason) {
		c.expect(string(reason), monitor.Beat(ctx).Reason == reason)
	}
	expect(heartbeat.ReasonNoDatabases)
	c.expect("Add", monitor.Add(reporter) == nil)
	expect(heartbeat.ReasonNotSynced)
	reporter.Set(clock.Now().Add(-heartbeat.MinInterval - 1))
	expect(heartbeat.ReasonStale)
	reporter.Set(clock.Now().Add(heartbeat.MinInterval + 1))
	expect(heartbeat.ReasonFuture)
	reporter.Set(clock.Now().Add(-heartbeat.MinInterval))
	c.expect("LastSuccessfulSyncAt", reporter.LastSuccessfulSyncAt().Equal(clock.Now().Add(-time.Minute)))
	expect("")
	expect(heartbeat.ReasonRateLimited)
	c.expect("Add", monitor.Add(panicking{}) == nil)
	expect(heartbeat.ReasonPanicked)
}

// errorsOfPings meets each kind of answer that is not an accepted ping.
func errorsOfPings(ctx context.Context, c *checks, log *slog.Logger, service *receiver) {
	beat := func(path string) heartbeat.Result {
		pinger, err := heartbeat.NewHTTPPinger(service.url(path), nil)
		if err != nil {
			return heartbeat.Result{Err: err}
		}
		defer pinger.CloseIdleConnections()
		tracker := heartbeat.NewSyncTracker("/data/app.db")
		tracker.Record(time.Now())
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Logger: log})
		if err != nil {
			return heartbeat.Result{Err: err}
		}
		return monitor.Beat(ctx)
	}
	r := beat("/busy")
	var status *heartbeat.StatusError
	c.expect("StatusError", r.Outcome == heartbeat.Failed && errors.As(r.Err, &status) &&
		status.Code == http.StatusTooManyRequests && status.RetryAfter == 2*time.Minute && status.Error() != "")
	r = beat("/unknown")
	c.expect("ErrNotAccepted", r.Outcome == heartbeat.Failed && errors.Is(r.Err, heartbeat.ErrNotAccepted))
	_, err := heartbeat.NewHTTPPinger("hc-ping.com/your-uuid-here", nil)
	c.expect("a URL without a scheme", err != nil)

	text, err := heartbeat.Failed.MarshalText()
	c.expect("Outcome", err == nil && string(text) == "failed" &&
		heartbeat.Sent.String() == "sent" && heartbeat.Skipped.String() == "skipped")
	text, err = r.MarshalJSON()
	c.expect("Result.MarshalJSON", err == nil && json.Valid(text))
	c.expect("Result.LogValue", r.LogValue().Kind() == slog.KindGroup)
}

// schedule drives Run on a fake clock through an outage: the failure signal, the
// recovery, a failed ping and its retry.
func schedule(ctx context.Context, c *checks, log *slog.Logger, _ *receiver) {
	start := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	clock := heartbeattest.NewClock(start)
	reporter := heartbeattest.NewReporter("/data/app.db")
	pinger, failure := heartbeattest.NewPinger(clock), heartbeattest.NewPinger(clock)
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{
		Interval: 5 * time.Minute, Clock: clock, Logger: log, FailPinger: failure,
	})
	c.expect("New", err == nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	reporter.Set(clock.Now())
	release := pinger.Block()
	go func() { ended <- monitor.Run(ctx) }()
	c.expect("Pinger.BlockUntil", pinger.BlockUntil(ctx, 1) == nil)
	c.expect("ErrRunning", errors.Is(monitor.Run(ctx), heartbeat.ErrRunning))
	release()

	step := func(d time.Duration) {
		c.expect("Clock.BlockUntil", clock.BlockUntil(ctx, 1) == nil)
		clock.Advance(d)
		c.expect("Clock.BlockUntil", clock.BlockUntil(ctx, 1) == nil)
	}
	step(5 * time.Minute)                  // 12:05, sent: the sync is exactly five minutes old
	step(5 * time.Minute)                  // 12:10, skipped, failure signal
	step(time.Minute)                      // 12:11, skipped, no second signal
	reporter.Set(clock.Now())              //
	step(time.Minute)                      // 12:12, sent
	pinger.Fail(errors.New("unreachable")) //
	step(3 * time.Minute)                  // 12:15, failed
	pinger.Fail(nil)                       //
	step(time.Minute)                      // 12:16, sent
	cancel()
	c.expect("Run", <-ended == nil)

	minutes := func(times []time.Time) (after []time.Duration) {
		for _, at := range times {
			after = append(after, at.Sub(start)/time.Minute)
		}
		return after
	}
	c.expect("pings at 0, 5, 12, 15 and 16 minutes", fmt.Sprintf("%d", minutes(pinger.Times())) == "[0 5 12 15 16]")
	c.expect("one failure signal at 10 minutes", fmt.Sprintf("%d", minutes(failure.Times())) == "[10]")

	woken := clock.After(time.Minute)
	clock.Advance(time.Minute)
	c.expect("Clock.After", (<-woken).Equal(clock.Now()))
	c.expect("Pinger.Ping", (&heartbeattest.Pinger{}).Ping(ctx) == nil)
}

// multiple pings two targets of which one fails.
func multiple(ctx context.Context, c *checks, log *slog.Logger, _ *receiver) {
	down := errors.New("down")
	var pings int
	pinger := heartbeat.MultiPinger(
		heartbeat.PingerFunc(func(context.Context) error { pings++; return nil }),
		heartbeat.MultiPinger(heartbeat.PingerFunc(func(context.Context) error { return down })),
	)
	c.expect("MultiPinger.Ping", errors.Is(pinger.Ping(ctx), down) && pings == 1)

	tracker := heartbeat.NewSyncTracker("/data/app.db")
	tracker.Record(time.Now())
	quiet := slog.New(slog.DiscardHandler) // two lines whose order is not fixed
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{Logger: quiet})
	c.expect("New", err == nil)
	if err != nil {
		return
	}
	r := monitor.Beat(ctx)
	c.expect("one of two targets", r.Outcome == heartbeat.Failed && errors.Is(r.Err, down) && pings == 2)
	log.Debug("two targets", "result", r)
}

// configuration builds a Monitor from what an operator writes.
func configuration(ctx context.Context, c *checks, log *slog.Logger, service *receiver) {
	c.expect("not Enabled", !heartbeat.Config{Interval: time.Minute, FailURL: service.url("/fail")}.Enabled())
	config := heartbeat.Config{
		URL:      service.url("/first"),
		URLs:     []string{service.url("/second")},
		Interval: time.Minute,
		FailURL:  service.url("/fail"),
	}
	c.expect("Enabled", config.Enabled())
	clock := heartbeattest.NewClock(time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	quiet := slog.New(slog.DiscardHandler) // the URLs hold a port that changes
	monitor, err := config.NewMonitor([]heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: clock, Logger: quiet})
	c.expect("NewMonitor", err == nil)
	if err != nil {
		return
	}
	c.expect("sent", monitor.Beat(ctx).Outcome == heartbeat.Sent)
	clock.Advance(time.Minute + 1)
	r := monitor.Beat(ctx)
	c.expect("stale", r.Reason == heartbeat.ReasonStale)
	log.Debug("configured", "result", r)
	for _, request := range []string{"GET /first", "GET /second", "GET /fail"} {
		c.expect(request, service.count(request) == 1)
	}
	done, end := context.WithCancel(ctx)
	end()
	c.expect("Run ends with its context", monitor.Run(done) == nil)
}

// checks collects what did not hold.
type checks struct{ failed []error }

func (c *checks) expect(what string, ok bool) {
	if !ok {
		c.failed = append(c.failed, fmt.Errorf("does not hold: %s", what))
	}
}

// A receiver stands for the monitoring service.
type receiver struct {
	host   string
	server *http.Server

	mu       sync.Mutex
	requests map[string]int
}

func newReceiver() (*receiver, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &receiver{host: listener.Addr().String(), requests: make(map[string]int)}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

func (s *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests[r.Method+" "+r.URL.Path]++
	s.mu.Unlock()
	switch r.URL.Path {
	case "/busy":
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	case "/unknown":
		_, _ = io.WriteString(w, "OK (not found)")
	default:
		_, _ = io.WriteString(w, "OK")
	}
}

func (s *receiver) url(path string) string { return "http://" + s.host + path }

func (s *receiver) count(request string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[request]
}

func (s *receiver) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.requests {
		n += count
	}
	return n
}

func (s *receiver) close() { _ = s.server.Close() }
