package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

const (
	demoSpeed    = 60              // how much faster the demonstration's clock is: a second for a minute
	demoInterval = 2 * time.Minute // between two heartbeats, on that clock
	demoSync     = 100 * time.Millisecond

	// Each stage takes a few seconds. Together they must end within a minute.
	stageTimeout = 15 * time.Second
	demoTimeout  = 55 * time.Second
)

// A fastClock is a heartbeat.Clock that runs demoSpeed times as fast as the
// system's, so that the library's floor of a minute between two heartbeats need
// not be touched.
type fastClock struct{ start time.Time }

func (c fastClock) Now() time.Time { return c.start.Add(time.Since(c.start) * demoSpeed) }

func (c fastClock) After(d time.Duration) <-chan time.Time {
	return time.After((d + demoSpeed - 1) / demoSpeed) // rounded up: too late is better than too early
}

// A demo is the system that the demonstration does things to.
type demo struct {
	out      io.Writer
	clock    fastClock
	dir      string
	receiver *receiver
	stop     func() error          // ends what start started, and waits for that
	results  chan heartbeat.Result // of each check
	count    map[heartbeat.Outcome]int
}

func (d *demo) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// A stage is something that is done to the system, and what must come of it.
type stage struct {
	does     string
	do       func() error
	observed string
	when     func(heartbeat.Result) bool
}

// demonstrate runs the daemon on real faults. It returns nil only if each stage
// was observed, and leaves nothing behind.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	d := &demo{
		out:     &lockedWriter{w: out},
		clock:   fastClock{time.Now()},
		stop:    func() error { return nil },
		results: make(chan heartbeat.Result, 100),
		count:   map[heartbeat.Outcome]int{},
	}
	if d.dir, err = os.MkdirTemp("", "heartbeat-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if d.receiver, err = newReceiver(); err != nil {
		return err
	}
	defer func() { _ = d.receiver.down() }()

	d.say("Without -config this demonstrates what the daemon does, on faults that it makes itself. It takes less than a")
	d.say("minute, in a temporary folder and on the loopback interface. With -h it says how to replicate your databases.")
	d.say("")
	d.say("Two SQLite databases, one written to and one idle, replicated by Litestream; heartbeats go to a receiver")
	d.say("on %s. The clock, in the log lines too, runs %d times as fast: one second is", d.receiver.url(), demoSpeed)
	d.say("one minute, and a heartbeat is due every %v. The first check comes before the first sync.", demoInterval)
	d.say("")

	stages := d.stages(ctx)
	observed, err := d.play(ctx, stages)
	if err := errors.Join(err, d.stop()); err != nil {
		return fmt.Errorf("after %d of %d stages: %w", observed, len(stages), err)
	}
	elapsed := time.Since(d.clock.start)
	d.say("")
	d.say("All %d stages were observed in %.0f s, which were %.0f minutes on the demonstration's clock.",
		observed, elapsed.Seconds(), (elapsed * demoSpeed).Minutes())
	d.say("Of %d checks, %d sent a heartbeat, %d skipped it and %d failed; the receiver got %d. Nothing is left behind.",
		d.count[heartbeat.Sent]+d.count[heartbeat.Skipped]+d.count[heartbeat.Failed],
		d.count[heartbeat.Sent], d.count[heartbeat.Skipped], d.count[heartbeat.Failed], d.receiver.got.Load())
	return nil
}

func (d *demo) stages(ctx context.Context) []stage {
	sent := func(r heartbeat.Result) bool { return r.Outcome == heartbeat.Sent }
	idle, replica, away := d.path("idle.db"), d.path("replica", "idle"), d.path("away")
	return []stage{
		{
			does:     "starts the daemon",
			do:       func() error { return d.start(ctx) },
			observed: "a heartbeat",
			when:     sent,
		},
		{
			does:     fmt.Sprintf("takes away the idle database's replica; its last sync still counts for up to %v", demoInterval),
			do:       func() error { return os.Rename(replica, away) },
			observed: "a skipped beat that names the idle database",
			when: func(r heartbeat.Result) bool {
				return r.Outcome == heartbeat.Skipped && len(r.Unhealthy) == 1 && r.Unhealthy[0].Path == idle
			},
		},
		{
			does:     "puts the replica back",
			do:       func() error { return os.Rename(away, replica) },
			observed: "a heartbeat",
			when:     sent,
		},
		{
			does:     "shuts the receiver down, so that it refuses connections",
			do:       d.receiver.down,
			observed: "a failed beat",
			when: func(r heartbeat.Result) bool {
				return r.Outcome == heartbeat.Failed && errors.Is(r.Err, syscall.ECONNREFUSED)
			},
		},
		{
			does:     "starts the receiver again",
			do:       d.receiver.up,
			observed: "a heartbeat",
			when:     sent,
		},
	}
}

// play takes the stages in turn, and returns how many were observed.
func (d *demo) play(ctx context.Context, stages []stage) (observed int, err error) {
	for i, s := range stages {
		d.say("%d. The demonstration %s.", i+1, s.does)
		if err := s.do(); err != nil {
			return i, err
		}
		if err := d.await(ctx, s); err != nil {
			return i, err
		}
	}
	return len(stages), nil
}

// await waits for a check that came to what the stage is about.
func (d *demo) await(ctx context.Context, s stage) error {
	deadline := time.After(stageTimeout)
	for {
		select {
		case r := <-d.results:
			d.count[r.Outcome]++
			if s.when(r) {
				d.say("   → observed: %s", s.observed)
				return nil
			}
		case <-deadline:
			return fmt.Errorf("not observed in %v: %s", stageTimeout, s.observed)
		case <-ctx.Done():
			return fmt.Errorf("interrupted before this was observed: %s", s.observed)
		}
	}
}

// start makes the databases and starts the daemon and a writer.
func (d *demo) start(ctx context.Context) error {
	cfg := &config{Config: heartbeat.Config{URL: d.receiver.url(), Interval: demoInterval}}
	for _, name := range []string{"busy", "idle"} {
		if err := createDB(ctx, d.path(name+".db")); err != nil {
			return err
		}
		cfg.DBs = append(cfg.DBs, dbConfig{
			Path:    d.path(name + ".db"),
			Replica: replicaConfig{URL: "file://" + filepath.ToSlash(d.path("replica", name)), SyncInterval: demoSync},
		})
	}
	daemon, err := newDaemon(cfg, options{
		logger:           slog.New(slog.NewTextHandler(d.out, &slog.HandlerOptions{ReplaceAttr: d.onClock})),
		litestreamLogger: slog.New(slog.DiscardHandler), // what it does is not what this shows
		clock:            d.clock,
		monitorInterval:  demoSync,
		onResult:         func(r heartbeat.Result) { d.results <- r },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	var daemonErr, writeErr error
	tasks.Go(func() { daemonErr = daemon.run(ctx) })
	tasks.Go(func() { writeErr = write(ctx, d.path("busy.db"), demoSync) })
	d.stop = func() error {
		cancel()
		tasks.Wait()
		return errors.Join(daemonErr, writeErr)
	}
	return nil
}

// onClock gives log lines the time of the demonstration's clock, which is the
// one that they tell a last sync by.
func (d *demo) onClock(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Value = slog.TimeValue(d.clock.Now())
	}
	return a
}

func createDB(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `CREATE TABLE event (at TEXT); INSERT INTO event VALUES (datetime());`)
	return err
}

// write adds a row now and then until ctx is done.
func write(ctx context.Context, path string, every time.Duration) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	for ctx.Err() == nil {
		if _, err := db.ExecContext(context.WithoutCancel(ctx), `INSERT INTO event VALUES (datetime());`); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
	return nil
}

// A receiver stands for the monitoring service.
type receiver struct {
	addr   string
	server *http.Server // nil when down
	got    atomic.Int64

	mu   sync.Mutex
	said []string // the bodies that were not empty
}

// bodies returns what was said so far.
func (r *receiver) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

func newReceiver() (*receiver, error) {
	r := &receiver{addr: "127.0.0.1:0"}
	return r, r.up()
}

func (r *receiver) url() string { return "http://" + r.addr + "/ping" }

// up makes it take connections, on the same address as before.
func (r *receiver) up() error {
	listener, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.addr = listener.Addr().String()
	r.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if body, _ := io.ReadAll(request.Body); len(body) > 0 {
				r.mu.Lock()
				r.said = append(r.said, string(body))
				r.mu.Unlock()
			}
			r.got.Add(1)
			_, _ = io.WriteString(w, "OK")
		}),
		ReadHeaderTimeout: time.Second,
	}
	go func(server *http.Server) { _ = server.Serve(listener) }(r.server)
	return nil
}

// down makes it refuse connections, and ends those there are.
func (r *receiver) down() error {
	if r.server == nil {
		return nil
	}
	err := r.server.Close()
	r.server = nil
	return err
}

// A lockedWriter keeps lines of several goroutines apart.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
