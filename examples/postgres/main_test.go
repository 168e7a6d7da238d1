//go:build unix

package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// patience is how long a test waits for a server; it ends far earlier.
const patience = time.Minute

// eventually polls until ok returns true. How fast PostgreSQL is, no test says.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v, %s", patience, what)
		}
	}
}

// A cluster is a place for PostgreSQL servers that one test uses.
type cluster struct {
	bin  string
	dir  string // short: a socket's path has at most 107 characters
	cred *syscall.Credential
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{bin: binaries(t)}
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		c.cred = unprivileged(t)
	}
	var err error
	if c.dir, err = os.MkdirTemp("", "pg"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(c.dir) })
	if c.cred != nil {
		if err := os.Chown(c.dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// binaries returns the directory of PostgreSQL's programs, which Debian keeps out
// of PATH, and skips the test if there is none.
func binaries(t *testing.T) string {
	t.Helper()
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	for _, dir := range dirs {
		missing := func(name string) bool {
			_, err := exec.LookPath(filepath.Join(dir, name))
			return err != nil
		}
		if !slices.ContainsFunc([]string{"initdb", "postgres", "pg_basebackup"}, missing) {
			return dir
		}
	}
	t.Skip("PostgreSQL is not installed: no directory of PATH or /usr/lib/postgresql/*/bin has initdb, postgres and pg_basebackup")
	return ""
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

func unprivileged(t *testing.T) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")
	return nil
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+c.bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	return cmd
}

func (c *cluster) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := c.command(filepath.Join(c.bin, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// A server listens on a socket in its own directory alone: so it needs no port,
// and no other server is in its way. Its data are in a directory below, since a
// base backup would take the socket's lock file along.
type server struct {
	c    *cluster
	name string
	db   *sql.DB
	stop func()
}

func (s *server) dir() string  { return filepath.Join(s.c.dir, s.name) }
func (s *server) data() string { return filepath.Join(s.dir(), "data") }
func (s *server) dsn() string  { return "host=" + s.dir() + " user=postgres dbname=postgres" }

// server returns a running server that is no one's standby.
func (c *cluster) server(t *testing.T, name string) *server {
	t.Helper()
	s := &server{c: c, name: name}
	c.run(t, "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D", s.data())
	s.start(t)
	return s
}

// standby returns a running standby of primary.
func (c *cluster) standby(t *testing.T, primary *server, name string) *server {
	t.Helper()
	s := &server{c: c, name: name}
	c.run(t, "pg_basebackup", "--no-sync", "--checkpoint=fast", "--write-recovery-conf", "-D", s.data(),
		"-d", primary.dsn()+" application_name="+name)
	s.start(t)
	return s
}

// start starts the server, and stops it when the test ends.
func (s *server) start(t *testing.T) {
	t.Helper()
	// The shell stops the server when its standard input ends: also when this
	// process is killed, and no Cleanup is run.
	cmd := s.c.command("sh", "-c", `"$@" & read line; kill -INT $!; wait $!`, "sh", filepath.Join(s.c.bin, "postgres"),
		"-D", s.data(), "-k", s.dir(), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "wal_keep_size=256MB", "-c", "cluster_name="+s.name,
		"-c", "wal_receiver_status_interval=1s", "-c", "wal_receiver_timeout=2s", "-c", "wal_retrieve_retry_interval=100ms")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if s.db, err = sql.Open("pgx", s.dsn()); err != nil {
		t.Error(err)
	}
	db, stopped := s.db, false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = db.Close()
		_ = stdin.Close()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of the %s:\n%s", s.name, &log)
		}
	}
	t.Cleanup(s.stop)
	eventually(t, "the "+s.name+" takes no connections", func() bool { return db.Ping() == nil })
}

func (s *server) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// A watch is a Monitor of one Replica, on a fake clock.
type watch struct {
	*testing.T
	clock   *heartbeattest.Clock
	replica *Replica
	monitor *heartbeat.Monitor
}

const maxAge = 5 * time.Minute

func newWatch(t *testing.T, db *sql.DB, standby string) *watch {
	t.Helper()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	replica := NewReplica("db", db, standby, clock)
	monitor, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{replica}, &heartbeat.Options{
		MaxSyncAge: maxAge,
		Clock:      clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &watch{t, clock, replica, monitor}
}

func (w *watch) poll() error { return w.replica.Poll(w.Context()) }

// wantSynced polls until a sync is proved that began now, on the fake clock.
func (w *watch) wantSynced() {
	w.Helper()
	var err error
	eventually(w.T, "the standby is not in sync", func() bool {
		err = w.poll()
		return err == nil && w.replica.LastSuccessfulSyncAt().Equal(w.clock.Now())
	})
	w.want("")
}

// want checks what a beat comes to: sent with no reason, or skipped with one. The
// clock is moved first, since the last beat may have been less than a minute ago.
func (w *watch) want(reason heartbeat.Reason) {
	w.Helper()
	w.clock.Advance(heartbeat.MinInterval)
	result := w.monitor.Beat(w.Context())
	if reason == "" && result.Outcome == heartbeat.Sent {
		return
	}
	if result.Outcome != heartbeat.Skipped || result.Reason != reason {
		w.Errorf("beat: %+v, want it to be skipped because of %q", result, reason)
	}
}

// wantAging polls for MaxSyncAge, on the fake clock, and checks that the database
// is fresh until then and stale after that.
func (w *watch) wantAging() {
	w.Helper()
	last := w.replica.LastSuccessfulSyncAt()
	w.want("")
	for range 100 {
		_ = w.poll()
		w.clock.Advance(last.Add(maxAge).Sub(w.clock.Now()) / 2)
	}
	if !w.monitor.Status().Healthy {
		w.Error("stale before its time")
	}
	w.want(heartbeat.ReasonStale)
	if got := w.replica.LastSuccessfulSyncAt(); !got.Equal(last) {
		w.Errorf("last sync was %v and became %v", last, got)
	}
}

func (s *server) setPaused(t *testing.T, paused bool) {
	t.Helper()
	s.exec(t, map[bool]string{true: "SELECT pg_wal_replay_pause()", false: "SELECT pg_wal_replay_resume()"}[paused])
}

// freeze stops the standby's walreceiver, as if the machine had lost its network.
func (s *server) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	var pid int
	if err := s.db.QueryRowContext(t.Context(), "SELECT pid FROM pg_stat_wal_receiver").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(thaw) // or the server could not be stopped
	return thaw
}

func TestOnPrimary(t *testing.T) {
	t.Parallel() // it mostly waits
	c := newCluster(t)
	primary := c.server(t, "primary")
	w := newWatch(t, primary.db, "one")
	w.want(heartbeat.ReasonNotSynced)
	if err := w.poll(); err == nil || !strings.Contains(err.Error(), `no standby named "one" is connected to this server (none is)`) {
		t.Errorf("with no standby: error %v", err)
	}
	standby := c.standby(t, primary, "one")
	w.wantSynced()
	testRun(t, "-dsn", primary.dsn(), "-standby", "one")

	w.clock.Advance(24 * time.Hour) // an idle primary
	w.wantSynced()
	primary.exec(t, "CREATE TABLE t AS SELECT * FROM generate_series(1, 100000)")
	w.wantSynced()

	standby.setPaused(t, true) // connected, but not replaying
	primary.exec(t, "INSERT INTO t VALUES (1)")
	eventually(t, "there is nothing to replay", func() bool { return w.poll() == nil && len(w.replica.targets) > 0 })
	paused := w.clock.Now()
	w.wantAging()
	if b := w.replica.Behind(); b == nil || b.Bytes <= 0 || b.Since.After(paused) {
		t.Errorf("with replay paused at %v: behind %+v", paused, b)
	}
	standby.setPaused(t, false)
	w.wantSynced()
	if b := w.replica.Behind(); b != nil {
		t.Errorf("once replay goes on: behind %+v", b)
	}

	thaw := standby.freeze(t) // the primary still takes it for connected
	time.Sleep(time.Second)   // for what was on its way
	eventually(t, "the frozen standby is not listed", func() bool { return w.poll() == nil })
	w.wantAging()
	if err := w.poll(); err != nil {
		t.Errorf("with a frozen standby: error %v", err)
	}
	thaw()
	w.wantSynced()

	standby.stop()
	eventually(t, "a stopped standby is listed", func() bool { return w.poll() != nil })
	w.wantAging()
	standby.start(t)
	w.wantSynced()

	c.run(t, "pg_basebackup", "--no-sync", "--checkpoint=fast", "-D", filepath.Join(c.dir, "copy"), "-d", primary.dsn()+" application_name=one")
	w.wantSynced()
	standby.exec(t, "ALTER SYSTEM SET primary_conninfo = 'application_name=two host="+primary.dir()+" user=postgres'")
	standby.exec(t, "SELECT pg_reload_conf()")
	eventually(t, "the standby is still called one", func() bool {
		err := w.poll()
		return err != nil && strings.Contains(err.Error(), `no standby named "one" is connected to this server (connected: two)`)
	})
	newWatch(t, primary.db, "two").wantSynced()
	c.standby(t, primary, "two")
	two := newWatch(t, primary.db, "two")
	eventually(t, "two standbys pass for one", func() bool {
		err := two.poll()
		return err != nil && strings.Contains(err.Error(), `2 standbys are named "two"`)
	})
	if err := newWatch(t, standby.db, "two").poll(); err == nil {
		t.Error("no error on a standby")
	}
}

func TestOnStandby(t *testing.T) {
	t.Parallel() // it mostly waits
	c := newCluster(t)
	primary := c.server(t, "primary")
	standby := c.standby(t, primary, "one")
	w := newWatch(t, standby.db, "")
	w.wantSynced()
	testRun(t, "-dsn", standby.dsn())

	w.clock.Advance(24 * time.Hour) // an idle primary
	w.wantSynced()
	primary.exec(t, "CREATE TABLE t AS SELECT * FROM generate_series(1, 100000)")
	w.wantSynced()

	standby.setPaused(t, true)
	primary.exec(t, "INSERT INTO t VALUES (1)")
	eventually(t, "there is nothing to replay", func() bool { return w.poll() == nil && len(w.replica.targets) > 0 })
	paused := w.clock.Now()
	w.wantAging()
	if b := w.replica.Behind(); b == nil || b.Bytes <= 0 || b.Since.After(paused) {
		t.Errorf("with replay paused at %v: behind %+v", paused, b)
	}
	standby.setPaused(t, false)
	w.wantSynced()
	if b := w.replica.Behind(); b != nil {
		t.Errorf("once replay goes on: behind %+v", b)
	}

	primary.stop()
	eventually(t, "a stopped primary is streamed from", func() bool { return w.poll() != nil })
	w.wantAging()
	primary.start(t)
	w.wantSynced()

	standby.exec(t, "SELECT pg_promote()")
	const want = "not a standby that streams from its primary"
	if err := w.poll(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("after its promotion: error %v", err)
	}
	if err := newWatch(t, primary.db, "").poll(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("on a primary: error %v", err)
	}
}

// testRun runs the program until it has sent a heartbeat.
func testRun(t *testing.T, args ...string) {
	t.Helper()
	pings := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pings <- r.URL.Path }))
	defer service.Close()
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	s, err := parse(append(args, "-url", service.URL+"/secret"))
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.run(ctx, &log, 50*time.Millisecond) }()
	select {
	case <-pings:
	case <-ctx.Done():
		t.Error("no ping")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log:\n%s", &log)
	}
}

func TestUsage(t *testing.T) {
	t.Setenv("HEARTBEAT_URL", "")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "-url, or HEARTBEAT_URL: heartbeat: ping URL is empty"},
		{[]string{"-url", "/secret"}, "-url, or HEARTBEAT_URL: heartbeat: ping URL has no scheme"},
		{[]string{"-url", "http://localhost/secret", "-dsn", "host=localhost password=secret port=none"}, "-dsn: "},
		{[]string{"-nonsense"}, "not defined: -nonsense"},
		{[]string{"-interval", "soon"}, `invalid value "soon" for flag -interval`},
		{[]string{"-interval", "59s"}, "-interval is below 1m0s"},
		{[]string{"-interval", "http://localhost/secret"}, "a URL stands where none belongs"},
		{[]string{"-interval", "300000h"}, "-interval is longer than a year"},
		{[]string{"-url", "http://localhost/secret", "-standby", ""}, "-standby is empty"},
		{[]string{"-url", "http://localhost/secret", "-dsn="}, "-dsn is empty"},
		{[]string{"-url", ""}, "-url is empty"},
		{[]string{"-dsn", "host=db1", "user=secret"}, "quote a -dsn that has spaces"},
	} {
		if _, err := parse(tt.args); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v, want %q", tt.args, err, tt.want)
		}
	}
}

// TestExit runs the program: a usage error is one line, and the exit status is 2.
func TestExit(t *testing.T) {
	program := filepath.Join(t.TempDir(), "postgres")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-nonsense"}, 2, "", "postgres: flag provided but not defined: -nonsense\n"},
		{[]string{"-h"}, 0, "Usage: postgres [flags]\n", ""},
	} {
		var stdout, stderr bytes.Buffer
		cmd := exec.Command(program, tt.args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.HasPrefix(stdout.String(), tt.stdout) || stderr.String() != tt.stderr {
			t.Errorf("%q: exit status %d, printed\n%s%s", tt.args, code, &stdout, &stderr)
		}
	}
}

// TestSaid: the log says what has changed, and a lag again when it has doubled.
func TestSaid(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	gone := errors.New("gone")
	var log bytes.Buffer
	s := &said{path: "one", logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}
	for i, step := range []struct {
		err  error
		lag  time.Duration
		want string
	}{
		{nil, 0, ""},
		{nil, 59 * time.Second, ""},
		{nil, time.Minute, `level=WARN msg="the standby lags" db=one lag=1m0s bytes=7`},
		{nil, 119 * time.Second, ""},
		{nil, 2 * time.Minute, `level=WARN msg="the standby lags" db=one lag=2m0s bytes=7`},
		{gone, 0, `level=WARN msg="cannot tell the standby's position" db=one error=gone`},
		{gone, 0, ""},
		{nil, 3 * time.Minute, `level=INFO msg="the standby's position is known again" db=one`},
		{nil, 5 * time.Second, `level=INFO msg="the standby keeps up again" db=one`},
		{nil, 0, ""},
		{nil, time.Minute, `level=WARN msg="the standby lags" db=one lag=1m0s bytes=7`},
	} {
		log.Reset()
		var behind *Behind
		if step.lag > 0 {
			behind = &Behind{Since: start, Bytes: 7}
		}
		s.poll(step.err, behind, start.Add(step.lag))
		if got := strings.TrimSpace(log.String()); got != step.want {
			t.Errorf("step %d: log %q, want %q", i, got, step.want)
		}
	}
}

// TestPoll gives a Replica answers at one a minute, and checks how many minutes
// after the start its last sync is; -1 if it has none.
func TestPoll(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	heard := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	gone := answer{}
	for _, tt := range []struct {
		name    string
		standby string
		answers []answer // gone: an error
		want    []int
	}{
		{"idle", "one",
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 7, 7, heard(3)}},
			[]int{-1, 1, 2}},
		{"busy", "one",
			[]answer{{1, 10, 9, heard(1)}, {1, 20, 19, heard(2)}, {1, 30, 29, heard(3)}, {1, 40, 39, heard(4)}},
			[]int{-1, -1, 1, 2}},
		{"lagging by two minutes", "one",
			[]answer{{1, 1, 0, heard(1)}, {1, 2, 0, heard(2)}, {1, 3, 1, heard(3)}, {1, 4, 2, heard(4)}, {1, 5, 3, heard(5)}, {1, 6, 5, heard(6)}},
			[]int{-1, -1, -1, 1, 2, 4}},
		{"not replaying", "one",
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 8, 7, heard(3)}, {1, 8, 7, heard(4)}, {1, 8, 8, heard(5)}},
			[]int{-1, 1, 1, 1, 4}},
		{"silent", "one",
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 7, 7, heard(2)}, {1, 7, 7, heard(2)}, {1, 7, 7, heard(3)}},
			[]int{-1, 1, 1, 1, 4}},
		{"a clock that was set back", "one",
			[]answer{{1, 7, 7, heard(9)}, {1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}},
			[]int{-1, 1, 2}},
		{"disconnected", "one",
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, gone, gone, {1, 8, 7, heard(3)}, {1, 8, 8, heard(4)}},
			[]int{-1, 1, 1, 1, 1, 5}},
		{"another primary", "one", // whose 9 is not the 9 that was to be replayed
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 9, 7, heard(3)}, {2, 5, 5, heard(4)}, {2, 10, 9, heard(5)}, {2, 10, 10, heard(6)}},
			[]int{-1, 1, 1, 1, 1, 5}},
		{"reconnected", "one",
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 9, 7, heard(3)}, gone, {2, 11, 9, heard(4)}, {2, 11, 11, heard(5)}},
			[]int{-1, 1, 1, 1, 2, 5}},
		{"keepalives", "", // with how far the primary has sent
			[]answer{{1, 90, 7, heard(1)}, {1, 8, 8, heard(2)}, {1, 9, 9, heard(2)}, {1, 10, 10, heard(3)}, {1, 95, 91, heard(4)}, {1, 95, 95, heard(5)}},
			[]int{-1, -1, -1, -1, -1, 4}},
		{"on the standby", "", // a message may be as old as the last poll
			[]answer{{1, 7, 7, heard(1)}, {1, 7, 7, heard(2)}, {1, 8, 7, heard(3)}, gone, {1, 8, 8, heard(4)}},
			[]int{-1, 0, 0, 0, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := heartbeattest.NewClock(start)
			replica := NewReplica("db", nil, tt.standby, clock)
			for i, a := range tt.answers {
				replica.ask = func(context.Context) (answer, error) {
					if a == gone {
						return answer{}, errors.New("gone")
					}
					return a, nil
				}
				if err := replica.Poll(t.Context()); (err != nil) != (a == gone) {
					t.Errorf("poll %d: error %v", i, err)
				}
				got := -1
				if at := replica.LastSuccessfulSyncAt(); !at.IsZero() {
					got = int(at.Sub(start) / time.Minute)
				}
				if got != tt.want[i] {
					t.Errorf("after poll %d: last sync at %d min, want %d", i, got, tt.want[i])
				}
				clock.Advance(time.Minute)
			}
		})
	}
}

// TestMemory lags for longer than targets are kept for.
func TestMemory(t *testing.T) {
	clock := heartbeattest.NewClock(time.Unix(0, 0))
	replica := NewReplica("db", nil, "one", clock)
	var a answer
	replica.ask = func(context.Context) (answer, error) { return a, nil }
	poll := func(end, replayed int64) {
		clock.Advance(time.Second)
		a = answer{1, end, replayed, clock.Now()}
		if err := replica.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for end := range int64(2 * maxTargets) {
		poll(end, -1)
	}
	if n := len(replica.targets); n != maxTargets {
		t.Errorf("%d targets, want %d", n, maxTargets)
	}
	poll(2*maxTargets, 2*maxTargets)
	if got := replica.LastSuccessfulSyncAt(); !got.Equal(clock.Now()) || len(replica.targets) != 0 {
		t.Errorf("once it has caught up at %v: last sync %v, %d targets", clock.Now(), got, len(replica.targets))
	}
}
