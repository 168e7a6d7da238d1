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
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/go-heartbeat/heartbeat"
)

const (
	demoSpeed    = 60              // how much faster the demonstration's clock is: a second for a minute
	demoInterval = 2 * time.Minute // between two heartbeats, on that clock
	demoRestore  = 3 * time.Minute // between two restore checks
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
	*printer
	clock    fastClock
	dir      string
	receiver *receiver
	stop     func() error          // ends what start started, and waits for that
	results  chan heartbeat.Result // of each check
	flipped  string                // the file that flip changed
}

func (d *demo) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

// A stage is something that is done to the system, and what must come of it.
type stage struct {
	does     string
	do       func() error
	observed string
	when     func(heartbeat.Result) bool
	shows    func() string // what belongs to it; nil: nothing
}

// demonstrate runs the daemon on real faults. It returns nil only if each stage
// was observed, and leaves nothing behind.
func demonstrate(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	d := &demo{
		printer: &printer{w: out, colour: wantsColour(out), broken: stop, count: map[string]int{}},
		clock:   fastClock{time.Now()},
		stop:    func() error { return nil },
		results: make(chan heartbeat.Result, 100),
	}
	stages, observed, err := d.run(ctx)
	if broken := d.failure(); broken != nil {
		err = fmt.Errorf("output: %w", broken) // all that follows comes of it
	}
	if err != nil {
		return fmt.Errorf("after %d of %d stages: %w", observed, stages, err)
	}
	elapsed := time.Since(d.clock.start)
	d.say("")
	d.say("All %d stages were observed in %.0f s, which were %.0f minutes on the demonstration's clock.",
		observed, elapsed.Seconds(), (elapsed * demoSpeed).Minutes())
	d.say("The log tells of %d heartbeats sent, %d skipped and %d failed, and of %d failure signals. The receiver got %d heartbeats and %d failure signals. Nothing is left behind.",
		d.counted("heartbeat sent"), d.counted("heartbeat skipped"), d.counted("heartbeat failed"), d.counted("heartbeat failure signal sent"),
		d.receiver.got.Load(), len(d.receiver.bodies()))
	return d.failure()
}

// run takes the stages, and removes all that was made for them.
func (d *demo) run(ctx context.Context) (stages, observed int, err error) {
	if d.dir, err = os.MkdirTemp("", "heartbeat-demo-"); err != nil {
		return 0, 0, err
	}
	d.printer.dir = d.dir + string(filepath.Separator)
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	if err := os.Mkdir(d.path("scratch"), 0o700); err != nil {
		return 0, 0, err
	}
	if d.receiver, err = newReceiver(); err != nil {
		return 0, 0, err
	}
	defer func() { _ = d.receiver.down() }()
	d.introduce()
	list := d.stages(ctx)
	observed, err = d.play(ctx, list)
	return len(list), observed, errors.Join(err, d.stop())
}

func (d *demo) introduce() {
	d.say("Without -config this demonstrates what the daemon does, on faults that it makes itself. It takes less than a minute, in a temporary folder and on the loopback interface. With -h it says how to replicate your databases.")
	d.say("")
	d.say("Litestream replicates three SQLite databases: busy.db, which is written to, idle.db, and archive.db, whose replica is also restored every %v. A receiver gets the heartbeats on %s and the failure signals on %s.", demoRestore, d.receiver.url(), d.receiver.failURL())
	d.say("The clock, in the log lines too, runs %d times as fast: one second is one minute, and a heartbeat is due every %v. The first check comes before the first sync.", demoSpeed, demoInterval)
	d.say("")
}

func (d *demo) stages(ctx context.Context) []stage {
	sent := func(r heartbeat.Result) bool { return r.Outcome == heartbeat.Sent }
	skipped := func(path string) func(heartbeat.Result) bool {
		return func(r heartbeat.Result) bool {
			return r.Outcome == heartbeat.Skipped && len(r.Unhealthy) == 1 && r.Unhealthy[0].Path == path
		}
	}
	replica, away, check := d.path("replica", "idle"), d.path("away"), d.path("archive.db")+" (restore check)"
	return []stage{
		{
			does:     "starts the daemon",
			do:       func() error { return d.start(ctx) },
			observed: "a heartbeat",
			when:     sent,
		},
		{
			does:     fmt.Sprintf("takes away the replica of idle.db, whose last sync still counts for up to %v", demoInterval),
			do:       func() error { return os.Rename(replica, away) },
			observed: "a skipped beat that names idle.db",
			when:     skipped(d.path("idle.db")),
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
		{
			does:     "changes one byte in the middle of a file of archive.db's replica, which no listing shows",
			do:       func() error { return d.flip(ctx) },
			observed: "no beat, and a failure signal that names the restore check: ",
			when: func(r heartbeat.Result) bool {
				return skipped(check)(r) && strings.Contains(d.receiver.latest(), check)
			},
			shows: d.receiver.latest,
		},
		{
			does:     "changes the byte back",
			do:       func() error { return d.flip(ctx) },
			observed: "a heartbeat",
			when:     sent,
		},
	}
}

// flip changes a byte in the middle of a file that a restore of archive.db needs;
// and when it is called again, back.
func (d *demo) flip(ctx context.Context) error {
	if d.flipped == "" {
		client := file.NewReplicaClient(d.path("replica", "archive"))
		plan, err := litestream.CalcRestorePlan(ctx, client, 0, time.Time{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		d.flipped = client.LTXFilePath(plan[0].Level, plan[0].MinTXID, plan[0].MaxTXID)
	}
	data, err := os.ReadFile(d.flipped)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 0xff
	return os.WriteFile(d.flipped, data, 0o600)
}

// play takes the stages in turn, and returns how many were observed.
func (d *demo) play(ctx context.Context, stages []stage) (observed int, err error) {
	for i, s := range stages {
		d.print(bold, fmt.Sprintf("%d. ", i+1), "The demonstration "+s.does+".")
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
			if s.when(r) {
				observed := "observed: " + s.observed
				if s.shows != nil {
					observed += s.shows()
				}
				d.print(green, "   → ", observed)
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
	cfg := &config{
		Config:     heartbeat.Config{URL: d.receiver.url(), Interval: demoInterval, FailURL: d.receiver.failURL(), FailBody: "{reason}"},
		RestoreDir: d.path("scratch"),
	}
	for _, name := range []string{"busy", "idle", "archive"} {
		if err := createDB(ctx, d.path(name+".db")); err != nil {
			return err
		}
		cfg.DBs = append(cfg.DBs, dbConfig{
			Path:    d.path(name + ".db"),
			Replica: replicaConfig{URL: "file://" + filepath.ToSlash(d.path("replica", name)), SyncInterval: demoSync},
		})
	}
	cfg.DBs[2].Restore.Every = new(demoRestore)
	daemon, err := newDaemon(cfg, options{
		logger:           slog.New(slog.NewTextHandler(d.printer, &slog.HandlerOptions{ReplaceAttr: d.onClock})),
		litestreamLogger: slog.New(slog.DiscardHandler), // what it does is not what this shows
		clock:            d.clock,
		monitorInterval:  demoSync,
		levels:           litestream.CompactionLevels{{Level: 0}, {Level: 1, Interval: time.Hour}}, // else it might make the file anew
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
		a.Value = slog.StringValue(d.clock.Now().Format(time.TimeOnly))
	}
	return a
}

func createDB(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)")
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `CREATE TABLE event (at TEXT); INSERT INTO event VALUES (datetime());
		CREATE TABLE attachment (data BLOB); INSERT INTO attachment VALUES (randomblob(10000));`)
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
	got    atomic.Int64 // requests without a body

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

// latest returns what was said last.
func (r *receiver) latest() string {
	bodies := r.bodies()
	return append([]string{""}, bodies...)[len(bodies)]
}

func (r *receiver) failURL() string { return "http://" + r.addr + "/fail" }

// up makes it take connections, on the same address as before.
func (r *receiver) up() error {
	listener, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.addr = listener.Addr().String()
	r.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if body, _ := io.ReadAll(request.Body); len(body) == 0 {
				r.got.Add(1)
			} else {
				r.mu.Lock()
				r.said = append(r.said, string(body))
				r.mu.Unlock()
			}
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
