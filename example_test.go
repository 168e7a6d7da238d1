package heartbeat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"golang.org/x/sync/errgroup"
)

// service stands for a monitoring service; a real one has a URL such as
// https://hc-ping.com/your-uuid-here.
func service() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("service: %s %s\n", r.Method, r.URL)
		io.WriteString(w, "OK")
	}))
}

// plainLog shows log lines without what changes from run to run.
func plainLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "url" {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// A daemon replicates in one goroutine and supervises itself in another.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // the service
	defer server.Close()

	run := func(ctx context.Context, url string) error {
		db := heartbeat.NewSyncTracker("/data/app.db")
		pinger, err := heartbeat.NewHTTPPinger(url, nil)
		if err != nil {
			return err
		}
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, nil)
		if err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return monitor.Run(ctx) })
		g.Go(func() error { return replicate(ctx, db) })
		return g.Wait()
	}

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fmt.Println(run(ctx, server.URL+"/your-uuid-here"))
	// Output: <nil>
}

// replicate is the daemon's own work.
func replicate(ctx context.Context, db *heartbeat.SyncTracker) error {
	for ctx.Err() == nil {
		db.Record(time.Now())
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// One check from a cron job, or from a handler.
func ExampleMonitor_Beat() {
	server := service()
	defer server.Close()
	pinger, err := heartbeat.NewHTTPPinger(server.URL+"/your-uuid-here", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	db := heartbeat.NewSyncTracker("/data/app.db")
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{Logger: plainLog()})
	if err != nil {
		fmt.Println(err)
		return
	}

	monitor.Beat(context.Background())
	db.Record(time.Now())
	result := monitor.Beat(context.Background())
	fmt.Println(result.Outcome)
	// Output:
	// level=WARN msg="heartbeat skipped" reason="database not synced" db=/data/app.db
	// service: GET /your-uuid-here
	// level=INFO msg="heartbeat sent"
	// sent
}

// A daemon that leads and follows calls Run once for each term of its lease, with a
// context that ends at the demotion. A promotion is no sync: nothing is recorded, and
// no heartbeat goes out, until the new leader has synced.
func ExampleMonitor_Run_lease() {
	ctx := context.Background()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	pinger := heartbeattest.NewPinger(clock)
	db := heartbeat.NewSyncTracker("/litefs/app.db")
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
		Clock:      clock,
		Logger:     slog.New(slog.DiscardHandler),
		FailPinger: heartbeat.PingerFunc(func(context.Context) error { fmt.Println("an outage"); return nil }),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for term := range 2 {
		leaseCtx, demote := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- monitor.Run(leaseCtx) }()
		_ = clock.BlockUntil(ctx, 1) // the first check: the last sync is of an earlier term
		fmt.Println("term", term, "begins:", monitor.Status().LastResult.Outcome)
		db.Record(clock.Now())
		_ = clock.Step(ctx, 10*time.Second)
		fmt.Println("term", term, "has synced:", monitor.Status().LastResult.Outcome)
		demote()
		<-done
		clock.Advance(time.Hour) // another node leads
	}
	// Output:
	// term 0 begins: skipped
	// term 0 has synced: sent
	// term 1 begins: skipped
	// term 1 has synced: sent
}

// Many Monitors in one process, one for each tenant, share a client. It bounds how
// many TLS handshakes are under way at once. A name tells the tenants apart.
func ExampleHTTPOptions_client() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("service:", r.Method, r.URL)
	}))
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport).Clone() // http.DefaultTransport's, as a rule
	transport.MaxConnsPerHost = 16
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()

	for _, tenant := range []string{"acme", "globex"} {
		pinger, err := heartbeat.NewHTTPPinger(server.URL+"/uuid-of-"+tenant, &heartbeat.HTTPOptions{Client: client, Name: tenant})
		if err != nil {
			fmt.Println(err)
			return
		}
		db := heartbeat.NewSyncTracker("/data/" + tenant + ".db")
		db.Record(time.Now())
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			fmt.Println(err)
			return
		}
		// A daemon sleeps for rand.N(interval) here, in a goroutine, and calls Run.
		for _, target := range monitor.Beat(context.Background()).Targets {
			fmt.Println(target.Name, target.Err)
		}
	}
	// Output:
	// service: GET /uuid-of-acme
	// acme <nil>
	// service: GET /uuid-of-globex
	// globex <nil>
}

func ExampleSyncTracker() {
	db := heartbeat.NewSyncTracker("/data/app.db")
	fmt.Println(db.Path(), db.LastSuccessfulSyncAt().IsZero())
	db.Record(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) // time.Now(), as a rule
	fmt.Println(db.LastSuccessfulSyncAt().Format(time.RFC3339))
	// Output:
	// /data/app.db true
	// 2026-01-01T00:00:00Z
}

type Settings struct {
	Databases []string         `yaml:"dbs"`
	Heartbeat heartbeat.Config `yaml:",inline"` // a named field: an embedded one would change how Settings prints
}

func supervise(ctx context.Context, settings Settings, reporters []heartbeat.SyncReporter) error {
	if err := settings.Heartbeat.Validate(); err != nil || !settings.Heartbeat.Enabled() {
		return err // it names each key that is wrong; it is nil if heartbeats are off
	}
	monitor, err := settings.Heartbeat.NewMonitor(reporters, nil)
	if err != nil {
		return err
	}
	return monitor.Run(ctx)
}

// What an operator writes becomes a Monitor. A daemon has a Config in its own
// configuration, as a named field of the struct that it decodes its file into.
func ExampleConfig() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println("service:", r.Method, r.URL)
		cancel() // the daemon is told to stop
	}))
	defer server.Close()
	db := heartbeat.NewSyncTracker("/data/app.db")
	db.Record(time.Now())
	supervise := func(settings Settings) error { return supervise(ctx, settings, []heartbeat.SyncReporter{db}) }

	var settings Settings // nothing is set
	fmt.Println(supervise(settings))
	settings.Heartbeat.URL = "hc-ping.com/your-uuid-here"
	fmt.Println(supervise(settings))
	settings.Heartbeat.URL = server.URL + "/your-uuid-here"
	fmt.Println(supervise(settings))
	// Output:
	// <nil>
	// heartbeat: heartbeat-url: ping URL has no scheme (http or https); it must be absolute, such as https://hc-ping.com/your-uuid-here
	// service: GET /your-uuid-here
	// <nil>
}

// Several services at once: each has its own outcome, log line and retry.
func ExampleMultiPinger() {
	first := heartbeat.PingerFunc(func(context.Context) error { return nil })
	second := heartbeat.PingerFunc(func(context.Context) error { return errors.New("no route to host") })
	db := heartbeat.NewSyncTracker("/data/app.db")
	db.Record(time.Now())
	monitor, err := heartbeat.New(heartbeat.MultiPinger(first, second), []heartbeat.SyncReporter{db},
		&heartbeat.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	result := monitor.Beat(context.Background())
	fmt.Println(result.Outcome, result.Err)
	// Output: failed target 2: no route to host
}

// An endpoint that wants another method and a token, such as Gatus.
func ExampleNewHTTPPinger_header() {
	server := service()
	defer server.Close()
	pinger, err := heartbeat.NewHTTPPinger(server.URL+"/api/v1/endpoints/core_app/external?success=true", &heartbeat.HTTPOptions{
		Method:    http.MethodPost,
		Header:    http.Header{"Authorization": {"Bearer your-token-here"}},
		RedactURL: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pinger.Ping(context.Background()))
	// Output:
	// service: POST /api/v1/endpoints/core_app/external?success=true
	// <nil>
}

// The failure signal tells the service at once, instead of after its period and
// grace. "{reason}" in the body stands for what is wrong.
func ExampleOptions_failPinger() {
	server := bodyService()
	defer server.Close()
	failPinger, err := heartbeat.NewHTTPPinger(server.URL+"/your-uuid-here/fail", &heartbeat.HTTPOptions{Body: "{reason}"})
	if err != nil {
		fmt.Println(err)
		return
	}
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db}, &heartbeat.Options{
		FailPinger: failPinger,
		Clock:      clock,
		Logger:     plainLog(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		monitor.Beat(context.Background())
		clock.Advance(6 * time.Minute)
	}
	// Output:
	// level=INFO msg="heartbeat sent"
	// service: POST /your-uuid-here/fail "last sync too old: /data/app.db, last sync 2026-01-01T00:00:00Z (1 of 1 database)"
	// level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2026-01-01T00:00:00.000Z age=6m0s max=5m0s
	// level=WARN msg="heartbeat failure signal sent"
	// level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2026-01-01T00:00:00.000Z age=12m0s max=5m0s
}

// "{reason}" in the query of a failure URL stands for what is wrong, here as
// Uptime Kuma takes it.
func ExampleConfig_reason() {
	server := service()
	defer server.Close()
	config := heartbeat.Config{
		URL:     server.URL + "/api/push/TOKEN?status=up&msg=OK&ping=",
		FailURL: server.URL + "/api/push/TOKEN?status=down&msg={reason}&ping=",
	}
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := config.NewMonitor([]heartbeat.SyncReporter{db}, &heartbeat.Options{
		Clock:  clock,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor.Beat(context.Background())
	clock.Advance(6 * time.Minute)
	monitor.Beat(context.Background())
	// Output:
	// service: GET /api/push/TOKEN?status=up&msg=OK&ping=
	// service: GET /api/push/TOKEN?status=down&msg=last+sync+too+old%3A+%2Fdata%2Fapp.db%2C+last+sync+2026-01-01T00%3A00%3A00Z+%281+of+1+database%29&ping=
}

// A FailPinger of one's own, that writes to a chat.
func ExampleResultFromContext() {
	server := bodyService() // the chat
	defer server.Close()
	webhook := server.URL + "/hooks/chat"

	chat := heartbeat.PingerFunc(func(ctx context.Context) error {
		result, _ := heartbeat.ResultFromContext(ctx)
		message, err := json.Marshal(map[string]string{"text": "Replication: " + result.String()})
		if err != nil {
			return err
		}
		post, err := heartbeat.NewHTTPPinger(webhook, &heartbeat.HTTPOptions{
			Body:   string(message),
			Header: http.Header{"Content-Type": {"application/json"}},
		})
		if err != nil {
			return err
		}
		return post.Ping(ctx)
	})

	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db}, &heartbeat.Options{
		FailPinger: chat,
		Clock:      clock,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	monitor.Beat(context.Background())
	clock.Advance(6 * time.Minute)
	monitor.Beat(context.Background())
	// Output: service: POST /hooks/chat "{\"text\":\"Replication: last sync too old: /data/app.db, last sync 2026-01-01T00:00:00Z (1 of 1 database)\"}"
}

// bodyService is a service that shows a request's body too.
func bodyService() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("service: %s %s %q\n", r.Method, r.URL, body)
	}))
}

// A store owns a daemon's set of databases: they come and go under its mutex.
type store struct {
	mu   sync.Mutex
	open map[string]*heartbeat.SyncTracker
}

func (s *store) reporters() []heartbeat.SyncReporter {
	s.mu.Lock()
	defer s.mu.Unlock()
	reporters := make([]heartbeat.SyncReporter, 0, len(s.open))
	for _, db := range s.open {
		reporters = append(reporters, db)
	}
	return reporters
}

// A daemon whose set of databases has an owner already gives the Monitor a
// function that returns them, and need not mirror the set with Add and Remove.
func ExampleOptions_source() {
	s := &store{open: map[string]*heartbeat.SyncTracker{}}
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), nil, &heartbeat.Options{
		Source: s.reporters,
		Clock:  clock,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(len(monitor.Status().Databases), monitor.Status().Healthy)
	db := heartbeat.NewSyncTracker("/data/app.db")
	db.Record(clock.Now())
	s.mu.Lock()
	s.open[db.Path()] = db
	s.mu.Unlock()
	fmt.Println(len(monitor.Status().Databases), monitor.Status().Healthy)
	// Output:
	// 0 false
	// 1 true
}

// A health check for a load balancer or an orchestrator is one line.
func ExampleMonitor_ServeHTTP() {
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	db := heartbeattest.NewReporter("/data/app.db")
	db.Set(clock.Now())
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{db}, &heartbeat.Options{Clock: clock})
	if err != nil {
		fmt.Println(err)
		return
	}

	mux := http.NewServeMux()
	mux.Handle("/healthz", monitor)

	for range 2 {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
		clock.Advance(time.Hour)
	}
	// Output:
	// 200 {"healthy":true,"interval":300000000000,"databases":[{"path":"/data/app.db","last_sync_at":"2026-01-01T00:00:00Z"}]}
	// 503 {"healthy":false,"interval":300000000000,"databases":[{"path":"/data/app.db","last_sync_at":"2026-01-01T00:00:00Z","reason":"last sync too old"}]}
}

// What a daemon's "status" command may print.
func ExampleMonitor_Status_table() {
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	app, users := heartbeattest.NewReporter("/data/app.db"), heartbeattest.NewReporter("/data/users.db")
	app.Set(clock.Now().Add(-90 * time.Second))
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{app, users}, &heartbeat.Options{Clock: clock})
	if err != nil {
		fmt.Println(err)
		return
	}

	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DATABASE\tLAST SYNC\tSTATE")
	for _, db := range monitor.Status().Databases {
		age, state := "never", "healthy"
		if !db.LastSyncAt.IsZero() {
			age = clock.Now().Sub(db.LastSyncAt).String() + " ago"
		}
		if !db.Healthy() {
			state = string(db.Reason)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", db.Path, age, state)
	}
	w.Flush()
	// Output:
	// DATABASE        LAST SYNC  STATE
	// /data/app.db    1m30s ago  healthy
	// /data/users.db  never      database not synced
}

// A cron job sends one heartbeat after its sync, and tries again until it is out:
// Run ends when OnResult cancels its context. Beat would make one attempt only.
func ExampleMonitor_Run_cron() {
	server := service()
	defer server.Close()

	beatOnce := func(ctx context.Context, pinger heartbeat.Pinger, db heartbeat.SyncReporter) error {
		ctx, cancel := context.WithTimeout(ctx, 4*time.Minute) // end before cron starts the next job
		defer cancel()
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
			OnResult: func(result heartbeat.Result) {
				if result.Outcome == heartbeat.Sent {
					cancel()
				}
			},
			Logger: plainLog(),
		})
		if err != nil {
			return err
		}
		if err := monitor.Run(ctx); err != nil {
			return err
		}
		if status := monitor.Status(); status.LastSentAt.IsZero() {
			return fmt.Errorf("no heartbeat was sent: %v", status.LastResult)
		}
		return nil
	}

	db := heartbeat.NewSyncTracker("/data/app.db")
	began := time.Now()
	// … replicate. If that fails, ping the fail URL here: a Monitor that has just
	// started knows of no database that was healthy before.
	db.Record(began)
	pinger, err := heartbeat.NewHTTPPinger(server.URL+"/your-uuid-here", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(beatOnce(context.Background(), pinger, db))
	// Output:
	// service: GET /your-uuid-here
	// level=INFO msg="heartbeat sent"
	// <nil>
}
