package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asProgram makes the test binary run main instead of its tests, so that a test
// can send real signals to the real program.
const asProgram = "LITESTREAM_EXAMPLE_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "":
	case "restoring":
		mainRestoring()
		return
	default:
		main()
		return
	}
	os.Exit(m.Run())
}

// startProgram starts the test binary as what TestMain makes of it, and returns what it
// writes to its standard error.
func startProgram(t *testing.T, as string, args ...string) (*exec.Cmd, *buffer) {
	t.Helper()
	log := &buffer{}
	program := exec.CommandContext(t.Context(), os.Args[0], args...)
	program.Env = append(os.Environ(), asProgram+"="+as)
	program.Stderr = log
	require.NoError(t, program.Start())
	return program, log
}

// patience is for conditions that real databases and goroutines bring about; it
// is never waited for when all is well.
const patience = time.Minute

func eventually(t *testing.T, condition func() bool, message string) {
	t.Helper()
	require.Eventually(t, condition, patience, 10*time.Millisecond, message)
}

// A buffer is a bytes.Buffer that may be read while it is written to.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *buffer) has(parts ...string) bool {
	for line := range strings.Lines(b.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			return true
		}
	}
	return false
}

// A system is a running daemon on the fast clock, with a receiver.
type system struct {
	t        *testing.T
	dir      string
	cfg      *config
	clock    fastClock
	receiver *receiver
	log      *buffer
	daemon   *daemon

	mu      sync.Mutex
	results []heartbeat.Result
}

func newSystem(t *testing.T) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), clock: fastClock{time.Now()}, log: &buffer{}, receiver: receive(t)}
	s.cfg = &config{Config: heartbeat.Config{URL: s.receiver.url(), Interval: demoInterval}}
	return s
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r, err := newReceiver()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.down()) })
	return r
}

// start starts a daemon that replicates a database of each name, of which it
// makes those that do not begin with "missing".
func start(t *testing.T, names ...string) *system {
	t.Helper()
	s := newSystem(t)
	for _, name := range names {
		s.add(name)
	}
	s.run()
	return s
}

// add adds a database, and makes it unless it is to be missing, and returns its
// configuration.
func (s *system) add(name string) *dbConfig {
	s.t.Helper()
	if !strings.HasPrefix(name, "missing") {
		require.NoError(s.t, createDB(s.t.Context(), s.path(name)))
	}
	s.cfg.DBs = append(s.cfg.DBs, dbConfig{
		Path:    s.path(name),
		Replica: replicaConfig{URL: "file://" + s.replica(name), SyncInterval: demoSync},
	})
	return &s.cfg.DBs[len(s.cfg.DBs)-1]
}

func (s *system) path(name string) string    { return filepath.Join(s.dir, name) }
func (s *system) replica(name string) string { return filepath.Join(s.dir, "replica", name) }

func (s *system) run() {
	s.t.Helper()
	var err error
	s.daemon, err = newDaemon(s.cfg, options{
		logger:           slog.New(slog.NewTextHandler(s.log, nil)),
		litestreamLogger: slog.New(slog.DiscardHandler),
		clock:            s.clock,
		monitorInterval:  demoSync,
		onResult:         s.onResult,
	})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.daemon.run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		<-done // its last sync may fail, where the test broke something
		if s.t.Failed() {
			s.t.Log(s.log.String())
		}
	})
}

func (s *system) onResult(r heartbeat.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, r)
}

// count counts the results so far that began after a time, with that outcome.
func (s *system) count(outcome heartbeat.Outcome, after time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		if r.Outcome == outcome && r.Time.After(after) {
			n++
		}
	}
	return n
}

func TestDaemon_allSynced(t *testing.T) {
	t.Parallel()
	s := start(t, "a.db", "b.db")
	eventually(t, func() bool { return s.receiver.got.Load() > 0 }, "no ping arrived")
	eventually(t, func() bool { return s.log.has(`level=INFO msg="heartbeat sent" url=` + s.receiver.url()) }, "no log line")
	assert.FileExists(t, filepath.Join(s.replica("a.db"), "ltx", "0", "0000000000000001-0000000000000001.ltx"))
}

func TestDaemon_oneNeverSynced(t *testing.T) {
	t.Parallel()
	s := start(t, "a.db", "missing.db")
	eventually(t, func() bool {
		return !s.daemon.reporters[0].LastSuccessfulSyncAt().IsZero() && s.count(heartbeat.Skipped, time.Time{}) >= 3
	}, "no beats")
	since := s.clock.Now()
	eventually(t, func() bool { return s.count(heartbeat.Skipped, since) >= 2 }, "no beats")
	assert.Zero(t, s.receiver.got.Load(), "pinged though a database has never synced")
	assert.True(t, s.log.has("level=WARN", `msg="heartbeat skipped" reason="database not synced"`, "db="+s.path("missing.db")), s.log)
	assert.True(t, s.daemon.reporters[1].LastSuccessfulSyncAt().IsZero())
}

// An unreachable replica cannot be initialized.
type unreachable struct{ *file.ReplicaClient }

func (unreachable) Init(context.Context) error { return errors.New("no route to host") }

// A database that cannot be opened is watched all the same, and the others are
// replicated.
func TestDaemon_oneFailsToOpen(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	litestream.RegisterReplicaClientFactory("unreachable", func(string, string, string, url.Values, *url.Userinfo) (litestream.ReplicaClient, error) {
		return unreachable{file.NewReplicaClient(t.TempDir())}, nil
	})
	s.add("a.db").Replica.URL = "unreachable://host"
	s.add("b.db")
	s.run()
	eventually(t, func() bool { return s.log.has("level=ERROR", `msg="database not opened"`, "db="+s.path("a.db")) }, "no error")
	eventually(t, func() bool { return !s.daemon.reporters[1].LastSuccessfulSyncAt().IsZero() }, "the other is not replicated")
	since := s.clock.Now()
	eventually(t, func() bool { return s.count(heartbeat.Skipped, since) >= 2 }, "no beats")
	assert.Zero(t, s.receiver.got.Load(), "pinged though a database is not open")
	assert.True(t, s.log.has(`msg="heartbeat skipped" reason="database not synced"`, "db="+s.path("a.db")), s.log)
}

func TestDaemon_idleReplicaRemoved(t *testing.T) {
	t.Parallel()
	s := start(t, "busy.db", "idle.db")
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan error, 1)
	go func() { written <- write(ctx, s.path("busy.db"), 20*time.Millisecond) }()
	defer func() {
		cancel()
		assert.NoError(t, <-written)
	}()
	eventually(t, func() bool { return s.receiver.got.Load() > 0 }, "no ping arrived")

	require.NoError(t, os.Rename(s.replica("idle.db"), s.path("away")))
	removed := s.clock.Now()
	eventually(t, func() bool { return s.count(heartbeat.Skipped, removed.Add(demoInterval)) >= 2 }, "beats go on")
	assert.Zero(t, s.count(heartbeat.Sent, removed.Add(demoInterval)), "a beat was sent more than an interval after the removal")
	assert.True(t, s.log.has("level=WARN", `msg="heartbeat skipped" reason="last sync too old"`, "db="+s.path("idle.db"), "last_sync="), s.log)
	assert.True(t, s.log.has("level=WARN", `msg="replica check failed"`, "db="+s.path("idle.db")), s.log)

	require.NoError(t, os.Rename(s.path("away"), s.replica("idle.db")))
	repaired := s.clock.Now()
	eventually(t, func() bool { return s.count(heartbeat.Sent, repaired) > 0 }, "beats do not come back")
	assert.True(t, s.log.has(`msg="replica check passed again"`, "db="+s.path("idle.db")), s.log)
}

func TestDaemon_databaseFileDeleted(t *testing.T) {
	t.Parallel()
	s := start(t, "a.db", "b.db")
	eventually(t, func() bool { return s.receiver.got.Load() > 0 }, "no ping arrived")

	require.NoError(t, os.Remove(s.path("a.db")))
	removed := s.clock.Now()
	eventually(t, func() bool { return s.count(heartbeat.Skipped, removed.Add(demoInterval)) >= 2 }, "beats go on")
	assert.Zero(t, s.count(heartbeat.Sent, removed.Add(demoInterval)))
	assert.True(t, s.log.has(`msg="heartbeat skipped" reason="last sync too old"`, "db="+s.path("a.db")), s.log)
}

// A database with a URL of its own has a heartbeat of its own, and the global one
// does not stand for it.
func TestDaemon_ownURL(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	own, fail := receive(t), receive(t)
	s.add("a.db")
	db := s.add("own.db")
	db.URL, db.FailURL, db.Interval = own.url(), fail.url(), demoInterval
	s.add("off.db").off = true
	s.run()
	eventually(t, func() bool { return own.got.Load() > 0 && s.receiver.got.Load() > 0 }, "no pings arrived")
	assert.True(t, s.log.has("level=WARN", `msg="heartbeats are off"`, "db="+s.path("off.db")), s.log)
	assert.False(t, s.log.has(`msg="heartbeats are off"`, "db="+s.path("a.db")), s.log)

	require.NoError(t, os.Rename(s.replica("own.db"), s.path("away")))
	require.NoError(t, os.Rename(s.replica("off.db"), s.path("away too")))
	eventually(t, func() bool { return fail.got.Load() > 0 }, "no failure signal")
	got, gotOwn := s.receiver.got.Load(), own.got.Load()
	eventually(t, func() bool { return s.receiver.got.Load() >= got+2 }, "the global heartbeat stopped")
	assert.Equal(t, gotOwn, own.got.Load(), "the own heartbeat went on")
	assert.True(t, s.log.has("level=WARN", `msg="heartbeat skipped" reason="last sync too old"`, "db="+s.path("own.db")), s.log)
	assert.False(t, s.log.has(`reason="last sync too old"`, "db="+s.path("a.db")), s.log)
}

// A replica that is broken costs neither the other databases their last sync nor
// the program its good end.
func TestDaemon_lastSyncFails(t *testing.T) {
	t.Parallel()
	assert.Less(t, shutdownTimeout, 10*time.Second, "what containers are given")
	assert.Less(t, lastSyncTimeout, shutdownTimeout)
	s := newSystem(t)
	for _, name := range []string{"a.db", "broken.db", "b.db"} {
		s.add(name)
	}
	s.cfg.URL = ""
	d, err := newDaemon(s.cfg, options{
		logger:           slog.New(slog.NewTextHandler(s.log, nil)),
		litestreamLogger: slog.New(slog.DiscardHandler),
		lastSyncTimeout:  50 * time.Millisecond,
		shutdownTimeout:  patience,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	for _, name := range []string{"a.db", "broken.db", "b.db"} {
		eventually(t, func() bool { return len(ltxFiles(t, s.replica(name))) > 0 }, "not replicated")
	}
	eventually(t, func() bool { // Litestream may be making the folder anew
		if err := os.Rename(s.replica("broken.db"), filepath.Join(t.TempDir(), "away")); err != nil {
			return false
		}
		return os.WriteFile(s.replica("broken.db"), []byte("a file, in which there can be no files"), 0o600) == nil
	}, "not broken")
	for _, name := range []string{"a.db", "broken.db", "b.db"} {
		insert(t, s.path(name))
	}
	cancel()
	require.ErrorContains(t, <-done, "last sync of "+s.path("broken.db")+": ")
	assert.True(t, s.log.has(`msg="databases closed" databases=2`), s.log)
	for _, name := range []string{"a.db", "b.db"} {
		assert.Equal(t, rows(t, s.path(name)), rows(t, restoreCopy(t, s.replica(name))), name)
	}
}

// What hangs for good is left behind.
func TestDaemon_shutdownHangs(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.add("a.db")
	release, result := make(chan struct{}), make(chan struct{}, 100)
	d, err := newDaemon(s.cfg, options{
		logger:           slog.New(slog.DiscardHandler),
		litestreamLogger: slog.New(slog.DiscardHandler),
		shutdownTimeout:  time.Millisecond,
		onResult:         func(heartbeat.Result) { result <- struct{}{}; <-release },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	<-result
	cancel()
	require.EqualError(t, <-done, "last sync: something hangs; given up after 1ms")
	close(release)
}

// A *litestream.DB is a SyncReporter with nothing between.
func TestPlainDB(t *testing.T) {
	t.Parallel()
	db := openDB(t)
	pinger := heartbeattest.NewPinger(nil)
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)

	result := monitor.Beat(t.Context())
	assert.Equal(t, heartbeat.ReasonNotSynced, result.Reason)
	assert.Empty(t, pinger.Times())

	require.NoError(t, db.SyncAndWait(t.Context()))
	assert.Equal(t, heartbeat.Sent, monitor.Beat(t.Context()).Outcome)
	assert.Len(t, pinger.Times(), 1)
	assert.Equal(t, db.LastSuccessfulSyncAt(), monitor.Status().Databases[0].LastSyncAt)
}

func TestRun_noHeartbeatURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, createDB(t.Context(), filepath.Join(dir, "app.db")))
	configPath := filepath.Join(dir, "config.yml")
	writeFile(t, configPath, "dbs:\n  - path: "+dir+"/app.db\n    replica:\n      url: file://"+dir+"/replica\n")

	ctx, cancel := context.WithCancel(t.Context())
	log := &buffer{}
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"-config", configPath}, io.Discard, log) }()
	eventually(t, func() bool { return log.has(`level=WARN msg="heartbeats are off" reason="no heartbeat-url"`) }, "not said")
	eventually(t, func() bool { return len(ltxFiles(t, dir+"/replica")) > 0 }, "not replicated")
	cancel()
	assert.Zero(t, <-done, log)
	assert.Equal(t, rows(t, dir+"/app.db"), rows(t, restoreCopy(t, dir+"/replica")))
}

// It ends in good order after a signal, also where that comes twice.
func TestProgram_signals(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			dbPath := filepath.Join(dir, "app.db")
			require.NoError(t, createDB(t.Context(), dbPath))
			configPath := filepath.Join(dir, "config.yml")
			writeFile(t, configPath, "heartbeat-url: http://127.0.0.1:1/secret\nheartbeat-interval: 1m\n"+
				"dbs:\n  - path: "+dbPath+"\n    replica:\n      url: file://"+dir+"/replica\n      sync-interval: 1s\n")

			program, log := startProgram(t, "1", "-config", configPath)
			eventually(t, func() bool { return len(ltxFiles(t, dir+"/replica")) > 0 }, "not replicated")

			// The last write comes so late that only a last sync can have copied it.
			db, err := sql.Open("sqlite", "file:"+dbPath+"?_pragma=busy_timeout(10000)")
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), `INSERT INTO event VALUES ('the last');`)
			require.NoError(t, err)
			require.NoError(t, program.Process.Signal(signal))
			_ = program.Process.Signal(signal) // it may have ended
			require.NoError(t, program.Wait(), log)
			require.NoError(t, db.Close())

			assert.True(t, log.has("level=INFO msg=replicating", "db="+dbPath), log)
			assert.True(t, log.has(`level=INFO msg="databases closed" databases=1`), log)
			restored := rows(t, restoreCopy(t, dir+"/replica"))
			assert.Contains(t, restored, "the last")
			assert.Equal(t, rows(t, dbPath), restored)
		})
	}
}

// A second signal after a while ends it at once, whatever it waits for.
func TestProgram_secondSignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, createDB(t.Context(), filepath.Join(dir, "app.db")))
	configPath := filepath.Join(dir, "config.yml")
	writeFile(t, configPath, "dbs:\n  - path: "+dir+"/app.db\n    replica:\n      url: file://"+dir+"/replica\n")
	program, log := startProgram(t, "1", "-config", configPath)
	eventually(t, func() bool { return len(ltxFiles(t, dir+"/replica")) > 0 }, "not replicated")
	eventually(t, func() bool { // Litestream may be making the folder anew
		return os.RemoveAll(dir+"/replica") == nil && os.WriteFile(dir+"/replica", nil, 0o600) == nil
	}, "not broken")
	insert(t, filepath.Join(dir, "app.db"))
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- program.Wait() }()
	eventually(t, func() bool {
		_ = program.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
			return true
		default:
			return false
		}
	}, "it goes on")
	status := program.ProcessState.Sys().(syscall.WaitStatus)
	assert.True(t, status.Signaled() && status.Signal() == syscall.SIGTERM, "%v: %s", program.ProcessState, log)
	assert.GreaterOrEqual(t, time.Since(began), sameSignal)
}

func TestRun_commandLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"-h"}, 0, "-config file"},
		{[]string{"-nonsense"}, exitUsage, "flag provided but not defined: -nonsense"},
		{[]string{"config.yml"}, exitUsage, `unexpected argument "config.yml"; the configuration goes after -config`},
	} {
		var errs buffer
		assert.Equal(t, test.status, run(t.Context(), test.args, io.Discard, &errs), test.args)
		assert.Contains(t, errs.String(), test.want)
	}
}

// openDB returns an open database with a replica, both of which sync only when
// they are told to.
func openDB(t *testing.T) *litestream.DB {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, createDB(t.Context(), filepath.Join(dir, "app.db")))
	return openReplicated(t, filepath.Join(dir, "app.db"), "file://"+filepath.Join(dir, "replica"))
}

func openReplicated(t *testing.T, path, url string) *litestream.DB {
	t.Helper()
	db, err := newDB(dbConfig{Path: path, Replica: replicaConfig{URL: url}})
	require.NoError(t, err)
	db.Replica.Client.SetLogger(slog.New(slog.DiscardHandler))
	db.SetLogger(slog.New(slog.DiscardHandler))
	db.MonitorInterval = 0
	db.Replica.MonitorEnabled = false
	db.ShutdownSyncTimeout = 0
	require.NoError(t, db.Open())
	t.Cleanup(func() { _ = db.Close(context.Background()) }) // fails where the test broke something
	return db
}

func insert(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, insertRow(path))
}

func insertRow(path string) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(context.Background(), `INSERT INTO event VALUES (datetime());`)
	return errors.Join(err, db.Close())
}

func ltxFiles(t *testing.T, replica string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(replica, "ltx", "0", "*.ltx"))
	require.NoError(t, err)
	return names
}

func restoreCopy(t *testing.T, replica string) (path string) {
	t.Helper()
	client, err := replicaClient("file://" + replica)
	require.NoError(t, err)
	client.SetLogger(slog.New(slog.DiscardHandler))
	opts := litestream.NewRestoreOptions()
	opts.OutputPath = filepath.Join(t.TempDir(), "restored.db")
	require.NoError(t, litestream.NewReplicaWithClient(nil, client).Restore(t.Context(), opts))
	return opts.OutputPath
}

func rows(t *testing.T, path string) (events []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	require.NoError(t, err)
	defer db.Close()
	found, err := db.QueryContext(t.Context(), `SELECT at FROM event ORDER BY rowid;`)
	require.NoError(t, err)
	defer found.Close()
	for found.Next() {
		var at string
		require.NoError(t, found.Scan(&at))
		events = append(events, at)
	}
	require.NoError(t, found.Err())
	require.NotEmpty(t, events)
	return events
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}
