//go:build linux

package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// patience is how long a test waits for what comes at once where all is well.
const patience = time.Minute

// A manager is the end of the protocol that systemd has: it listens on the socket
// that NOTIFY_SOCKET names.
type manager struct {
	*testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // short: a socket's path has at most 107 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("HEARTBEAT_URL", "")
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return &manager{t, conn}
}

// next returns the next datagram.
func (m *manager) next() string {
	m.Helper()
	buf := make([]byte, 4096)
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.Fatal(err)
	}
	n, err := m.conn.Read(buf)
	if err != nil {
		m.Fatal(err)
	}
	return string(buf[:n])
}

func (m *manager) want(datagrams ...string) {
	m.Helper()
	for _, want := range datagrams {
		if got := m.next(); got != want {
			m.Errorf("systemd was told %q, want %q", got, want)
		}
	}
}

func TestProtocol(t *testing.T) {
	systemd := newManager(t)
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	db := heartbeattest.NewReporter("/data/app.db")
	monitor, err := heartbeat.New(Watchdog(), []heartbeat.SyncReporter{db}, &heartbeat.Options{
		Interval: 2 * time.Minute,
		Clock:    clock,
		Logger:   slog.New(slog.DiscardHandler),
		OnResult: Status,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- monitor.Run(t.Context()) }()
	step := func(by time.Duration, want ...string) {
		t.Helper()
		if err := clock.Step(t.Context(), by); err != nil {
			t.Fatal(err)
		}
		systemd.want(want...)
	}

	systemd.want("STATUS=database not synced: /data/app.db (1 of 1 database)")
	db.Set(clock.Now().Add(10 * time.Second))
	step(10*time.Second, "READY=1\nWATCHDOG=1", "STATUS=1 database in sync")
	db.Set(clock.Now().Add(110 * time.Second))
	step(110*time.Second, "WATCHDOG=1", "STATUS=1 database in sync")
	// It stalls: the last sync still counts once, and the next time it does not.
	step(2*time.Minute, "WATCHDOG=1", "STATUS=1 database in sync")
	step(2*time.Minute, "STATUS=last sync too old: /data/app.db, last sync 2026-01-01T00:02:00Z (1 of 1 database)")
	// It goes on, and so does the watchdog; no second READY=1.
	db.Set(clock.Now().Add(10 * time.Second))
	step(10*time.Second, "WATCHDOG=1", "STATUS=1 database in sync")
}

// TestStatusIsOneLine: a path or an error must not make a second assignment.
func TestStatusIsOneLine(t *testing.T) {
	systemd := newManager(t)
	Status(heartbeat.Result{
		Outcome: heartbeat.Skipped, Reason: heartbeat.ReasonNotSynced, Databases: 1,
		Unhealthy: []heartbeat.DatabaseStatus{{Path: "/data\nREADY=1\rWATCHDOG=1\x00", Reason: heartbeat.ReasonNotSynced}},
	})
	systemd.want("STATUS=database not synced: /data READY=1 WATCHDOG=1  (1 of 1 database)")
	Status(heartbeat.Result{Outcome: heartbeat.Failed, Databases: 1, Err: errors.Join(errors.New("one"), errors.New("two"))})
	systemd.want("STATUS=heartbeat failed: one two")
}

func TestNobodyListens(t *testing.T) {
	newManager(t)
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "gone")} {
		t.Setenv("NOTIFY_SOCKET", socket)
		if err := Watchdog().Ping(t.Context()); !errors.Is(err, heartbeat.ErrNotSent) {
			t.Errorf("NOTIFY_SOCKET=%q: error %v", socket, err)
		}
		Status(heartbeat.Result{}) // nothing happens
	}
}

// TestReadyIsToldAgain: a READY=1 that did not get out is not forgotten.
func TestReadyIsToldAgain(t *testing.T) {
	systemd := newManager(t)
	socket, pinger := os.Getenv("NOTIFY_SOCKET"), Watchdog()
	t.Setenv("NOTIFY_SOCKET", socket+"-gone")
	if err := pinger.Ping(t.Context()); err == nil {
		t.Error("no error")
	}
	t.Setenv("NOTIFY_SOCKET", socket)
	if err := cmp.Or(pinger.Ping(t.Context()), pinger.Ping(t.Context())); err != nil {
		t.Error(err)
	}
	systemd.want("READY=1\nWATCHDOG=1", "WATCHDOG=1")
}

// build returns the path of the program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "replicate")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// TestProgram starts and stops the program as systemd does.
func TestProgram(t *testing.T) {
	systemd := newManager(t)
	pings := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pings <- r.URL.Path }))
	t.Cleanup(receiver.Close)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "app.db"), filepath.Join(dir, "copy", "app.db")
	if err := cmp.Or(os.WriteFile(from, []byte("data"), 0o600), os.Mkdir(filepath.Dir(to), 0o700)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(build(t), from, to)
	cmd.Env = append(os.Environ(), "HEARTBEAT_URL="+receiver.URL+"/secret", "WATCHDOG_USEC=180000000")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	systemd.want("READY=1\nWATCHDOG=1", "STATUS=1 database in sync")
	if path := <-pings; path != "/secret" {
		t.Errorf("pinged %s", path)
	}
	if data, err := os.ReadFile(to); err != nil || string(data) != "data" {
		t.Errorf("the copy: %q, error %v", data, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	systemd.want("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log:\n%s", &log)
	}
}

// TestBrokenCopy: what cannot be copied is an error, and no part of a copy stays.
func TestBrokenCopy(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "app.db"), filepath.Join(dir, "copy")
	if err := copyFile(from, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with nothing to copy: error %v", err)
	}
	if err := cmp.Or(os.WriteFile(from, nil, 0o600), os.MkdirAll(filepath.Join(to, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); err == nil {
		t.Error("no error with a directory in the way")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestUsage(t *testing.T) {
	newManager(t)
	for _, tt := range []struct {
		args, env string
		want      string
	}{
		{"", "", "two paths are needed"},
		{"a b c", "", "two paths are needed"},
		{"-nonsense a b", "", "not defined: -nonsense"},
		{"-every 0 a b", "", "-every is 0s; make it at least 1s"},
		{"-every -1s a b", "", "-every is -1s; make it at least 1s"},
		{"-every 1ns a b", "", "-every is 1ns; make it at least 1s"},
		{"-every 61s a b", "", "-every is 1m1s, and -interval is 1m0s; make -every shorter"},
		{"-every 1m a b", "", "make -every shorter"},
		{"-every 59s a b", "", ""},
		{"-interval 300000h a b", "", "-interval is longer than a year"},
		{"-interval 0 a b", "", "-interval is 0s; make it at least 1m0s"},
		{"-interval 10s -every 5s a b", "WATCHDOG_USEC=60000000", "-interval is 10s; make it at least 1m0s"},
		{"a a", "", "FROM and TO are the same file"},
		{"a ./b/../a", "", "FROM and TO are the same file"},
		{"a a/", "", "FROM and TO are the same file"},
		{"a b", "NOTIFY_SOCKET=", "neither NOTIFY_SOCKET nor HEARTBEAT_URL is set"},
		{"a b", "HEARTBEAT_URL=hc-ping.com/secret", "HEARTBEAT_URL: "},
		{"a b", "WATCHDOG_USEC=119000000", "WatchdogSec= is 1m59s, and -interval is 1m0s"},
		{"a b", "WATCHDOG_USEC=120000000", ""},
		{"-interval 5m a b", "WATCHDOG_USEC=120000000", "at least twice as long"},
		{"a b", "WATCHDOG_USEC=soon", "WATCHDOG_USEC"},
	} {
		t.Run(tt.args+" "+tt.env, func(t *testing.T) {
			if name, value, ok := strings.Cut(tt.env, "="); ok {
				t.Setenv(name, value)
			}
			_, err := parse(strings.Fields(tt.args))
			switch text := fmt.Sprint(err); {
			case tt.want == "" && err != nil, !strings.Contains(text, tt.want), strings.Contains(text, "secret"):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	for _, args := range [][]string{{"", "b"}, {"a", ""}, {"", ""}} {
		if _, err := parse(args); err == nil || !strings.Contains(err.Error(), "a path is empty") {
			t.Errorf("%q: error %v", args, err)
		}
	}
	if _, err := parse([]string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: error %v", err)
	}
}

// TestNamedPipe: one that nobody writes to must not hold up the program, which
// would then not end at a signal.
func TestNamedPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	copied := make(chan error, 1)
	go func() { copied <- copyFile(pipe, pipe+".copy") }()
	select {
	case err := <-copied:
		if err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Fatalf("copyFile returned %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("copyFile waits for a writer")
	}
}

// TestSameFile: a copy onto itself, by whatever path, would be a heartbeat for
// nothing. It is refused at the start, and at each copy, since links change.
func TestSameFile(t *testing.T) {
	newManager(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	err := cmp.Or(
		os.Mkdir(path("real"), 0o700),
		os.WriteFile(path("real/app.db"), []byte("data"), 0o600),
		os.WriteFile(path("real/other.db"), []byte("other"), 0o600),
		os.Symlink("real", path("link")),
		os.Symlink("real/app.db", path("link.db")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ from, to string }{
		{"real/app.db", "link/app.db"},
		{"link.db", "real/app.db"},
		{"real/app.db", "link.db"},
		{"real/new.db", "link/new.db"}, // neither is there yet
	} {
		if _, err := parse([]string{path(tt.from), path(tt.to)}); !errors.Is(err, errSameFile) {
			t.Errorf("%v: error %v", tt, err)
		}
	}
	if _, err := parse([]string{path("real/app.db"), path("link/other.db")}); err != nil {
		t.Error(err)
	}
	if err := copyFile(path("real/app.db"), path("link.db")); !errors.Is(err, errSameFile) {
		t.Errorf("a link made later: error %v", err)
	}
	if err := copyFile(path("real"), path("copy.db")); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory: error %v", err)
	}
	if err := copyFile(path("real/app.db"), path("link/other.db")); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(path("real/other.db")); err != nil || string(data) != "data" {
		t.Errorf("the copy: %q, error %v", data, err)
	}
}

// TestUnit checks that the unit in this folder starts the program of this folder.
func TestUnit(t *testing.T) {
	newManager(t)
	file, err := os.Open("replicate.service")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	options, err := unit.DeserializeOptions(file)
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) string {
		i := slices.IndexFunc(options, func(o *unit.UnitOption) bool { return o.Section == "Service" && o.Name == name })
		if i < 0 {
			t.Fatalf("the unit has no %s=", name)
		}
		return options[i].Value
	}
	if value("Type") != "notify" || value("Restart") != "always" {
		t.Errorf("Type=%s, Restart=%s", value("Type"), value("Restart"))
	}
	watchdog, err := time.ParseDuration(strings.TrimSuffix(value("WatchdogSec"), "in")) // systemd's "min" is Go's "m"
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WATCHDOG_USEC", fmt.Sprint(watchdog.Microseconds()))
	if _, err := parse(strings.Fields(value("ExecStart"))[1:]); err != nil {
		t.Error(err)
	}
}
