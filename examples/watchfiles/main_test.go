//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// secret is the part of the ping URL that nothing may print.
const secret = "5ec2e7-uuid"

var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		os.Unsetenv("HEARTBEAT_URL")
		dir, err := os.MkdirTemp("", "watchfiles")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // for TestUnreadable, as another user
			panic(err)
		}
		program = filepath.Join(dir, "watchfiles")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// start runs the program until the test ends at the latest.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// runProgram runs the program to its end, and checks that it keeps the ping URL secret.
func runProgram(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start(t, cmd)
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if strings.Contains(out.String()+errs.String(), secret) {
		t.Errorf("the ping URL is printed:\n%s%s", &out, &errs)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// service is a ping URL that answers status and hands each ping's path to pings.
func service(t *testing.T, status int) (url string, pings chan string) {
	t.Helper()
	pings = make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		pings <- r.URL.Path
	}))
	t.Cleanup(server.Close)
	return server.URL + "/" + secret, pings
}

// file makes a file of that age, and its directories.
func file(t *testing.T, age time.Duration, elem ...string) string {
	t.Helper()
	path := filepath.Join(elem...)
	at := time.Now().Add(-age)
	if err := cmp.Or(
		os.MkdirAll(filepath.Dir(path), 0o755),
		os.WriteFile(path, []byte("data"), 0o644),
		os.Chtimes(path, at, at),
	); err != nil {
		t.Fatal(err)
	}
	return path
}

// empty makes a file empty. Its time is now.
func empty(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, to, from string) string {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Fatal(err)
	}
	return from
}

func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int // of the service; zero: 200
		args   []string
		make   func(t *testing.T, dir string)
		code   int
		stderr []string
	}{
		{name: "a fresh file", make: func(t *testing.T, dir string) {
			file(t, time.Hour, dir, "old")
			file(t, 0, dir, "deep", "down", "new")
			file(t, time.Hour, dir, "older")
		}},
		{name: "a stale tree", code: 1, stderr: []string{`level=WARN msg="heartbeat skipped" reason="newest file too old" path=`, "newest_file="},
			make: func(t *testing.T, dir string) { file(t, 6*time.Minute, dir, "old") }},
		{name: "a tree within its own age", args: []string{"-max-age", "25h"},
			make: func(t *testing.T, dir string) { file(t, 24*time.Hour, dir, "old") }},
		{name: "days", args: []string{"-max-age", "1d1h"},
			make: func(t *testing.T, dir string) { file(t, 24*time.Hour+30*time.Minute, dir, "old") }},
		{name: "older than a day", args: []string{"-max-age", "1d"}, code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) { file(t, 24*time.Hour+30*time.Minute, dir, "old") }},
		{name: "a longer interval", args: []string{"-interval", "10m"},
			make: func(t *testing.T, dir string) { file(t, 6*time.Minute, dir, "old") }},
		{name: "an empty tree", code: 1, stderr: []string{`reason="no file"`},
			make: func(t *testing.T, dir string) { _ = os.Mkdir(filepath.Join(dir, "empty"), 0o755) }},
		{name: "an empty file", code: 1, stderr: []string{`reason="no file"`},
			make: func(t *testing.T, dir string) { empty(t, file(t, 0, dir, "new")) }},
		{name: "an empty file after a good one", code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) {
				file(t, time.Hour, dir, "old")
				empty(t, file(t, 0, dir, "new"))
			}},
		{name: "a name", args: []string{"-name", "*.gz"},
			make: func(t *testing.T, dir string) { file(t, 0, dir, "deep", "new.gz") }},
		{name: "another name", args: []string{"-name", "*.gz"}, code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) {
				file(t, time.Hour, dir, "old.gz")
				file(t, 0, dir, "new.gz.part")
			}},
		{name: "a file that is the path has any name", args: []string{"-name", "*.gz"}, make: func(t *testing.T, dir string) {
			_ = os.Remove(dir)
			file(t, 0, dir)
		}},
		{name: "a file was deleted", code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) {
				file(t, time.Hour, dir, "old")
				_ = os.Remove(file(t, 0, dir, "new"))
			}},
		{name: "missing", code: 1, stderr: []string{`msg="cannot read all of a path"`, "no such file or directory", `reason="no file"`},
			make: func(t *testing.T, dir string) { _ = os.Remove(dir) }},
		{name: "no regular file", code: 1, stderr: []string{`reason="no file"`},
			make: func(t *testing.T, dir string) { _ = syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644) }},
		{name: "a link in the tree", code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) {
				file(t, time.Hour, dir, "old")
				symlink(t, file(t, 0, t.TempDir(), "new"), filepath.Join(dir, "link"))
				symlink(t, dir, filepath.Join(dir, "loop"))
			}},
		{name: "the path is a link", make: func(t *testing.T, dir string) {
			_ = os.Remove(dir)
			symlink(t, filepath.Dir(file(t, 0, t.TempDir(), "new")), dir)
		}},
		{name: "a dangling link", code: 1, stderr: []string{"no such file or directory"}, make: func(t *testing.T, dir string) {
			_ = os.Remove(dir)
			symlink(t, "nowhere", dir)
		}},
		{name: "only a file from the future", code: 1, stderr: []string{`reason="newest file dated ahead"`},
			make: func(t *testing.T, dir string) { file(t, -time.Hour, dir, "ahead") }},
		{name: "a file from the future hides no fresh one", make: func(t *testing.T, dir string) {
			file(t, 0, dir, "a")
			file(t, -time.Hour, dir, "b")
		}},
		{name: "a file from the future does not make a stale tree fresh", code: 1, stderr: []string{`reason="newest file too old"`},
			make: func(t *testing.T, dir string) {
				file(t, -time.Hour, dir, "a")
				file(t, time.Hour, dir, "b")
			}},
		{name: "a clock that is a little ahead", make: func(t *testing.T, dir string) { file(t, -time.Minute, dir, "new") }},
		{name: "the service refuses", status: http.StatusNotFound, code: 3, stderr: []string{`level=ERROR msg="heartbeat failed"`, "404 Not Found"},
			make: func(t *testing.T, dir string) { file(t, 0, dir, "new") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, pings := service(t, cmp.Or(tt.status, http.StatusOK))
			dir := t.TempDir()
			tt.make(t, dir)
			args := append([]string{"-url", url, "-once"}, tt.args...)
			code, stdout, stderr := runProgram(t, exec.Command(program, append(args, dir)...))
			if code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			if stdout != "" {
				t.Errorf("standard output: %s", stdout)
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %s in standard error:\n%s", want, stderr)
				}
			}
			if len(tt.stderr) == 0 && stderr != "" {
				t.Errorf("standard error: %s", stderr)
			}
			if want := map[bool]int{true: 0, false: 1}[tt.code == 1]; len(pings) != want {
				t.Errorf("%d pings, want %d", len(pings), want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	path := file(t, 0, t.TempDir(), "new")
	url, pings := service(t, http.StatusOK)
	cmd := exec.Command(program, "-once", path)
	cmd.Env = append(os.Environ(), "HEARTBEAT_URL="+url)
	if code, stdout, stderr := runProgram(t, cmd); code != 0 || stdout+stderr != "" || len(pings) != 1 {
		t.Errorf("exit status %d, %d pings, printed %s%s", code, len(pings), stdout, stderr)
	}
	other, otherPings := service(t, http.StatusOK)
	cmd = exec.Command(program, "-once", "-url", other, path)
	cmd.Env = append(os.Environ(), "HEARTBEAT_URL="+url)
	if code, _, _ := runProgram(t, cmd); code != 0 || len(pings) != 1 || len(otherPings) != 1 {
		t.Errorf("-url does not override the environment: exit status %d, %d and %d pings", code, len(pings), len(otherPings))
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	fresh, stale := file(t, 150*time.Second, dir, "a"), file(t, 49*time.Hour+30*time.Minute, dir, "stale", "b")
	stamp := func(path string) string {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime().Format(time.RFC3339)
	}
	code, stdout, stderr := runProgram(t, exec.Command(program, "-once", fresh))
	pad := strings.Repeat(" ", len(fresh)-len("PATH"))
	padStamp := strings.Repeat(" ", len(stamp(fresh))-len("NEWEST FILE"))
	want := fmt.Sprintf("PATH%s  NEWEST FILE%s  AGE  STATE\n%s  %s  2m   fresh\n", pad, padStamp, fresh, stamp(fresh))
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit status %d, standard error %q, report:\n%s\nwant:\n%s", code, stderr, stdout, want)
	}

	cmd := exec.Command(program, "-once", "a", "stale/", "none")
	cmd.Dir = dir
	code, stdout, stderr = runProgram(t, cmd)
	want = "PATH   NEWEST FILE" + padStamp + "  AGE    STATE\n" +
		"a      " + stamp(fresh) + "  2m     fresh\n" +
		"stale  " + stamp(stale) + "  2d01h  newest file too old\n" +
		"none   none" + strings.Repeat(" ", len(stamp(stale))-len("none")) + "  -      no file\n"
	if code != 1 || stdout != want || !strings.Contains(stderr, "path=none") {
		t.Errorf("exit status %d, standard error %q, report:\n%s\nwant:\n%s", code, stderr, stdout, want)
	}
}

func TestUsage(t *testing.T) {
	code, stdout, stderr := runProgram(t, exec.Command(program, "-h"))
	if code != 0 || stdout != usage || stderr != "" {
		t.Errorf("-h: exit status %d, printed %s%s", code, stdout, stderr)
	}
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "no path to watch"},
		{[]string{"-nonsense", "."}, "not defined: -nonsense"},
		{[]string{"-interval", "soon", "."}, `invalid value "soon" for flag -interval`},
		{[]string{"-max-age", "1 day", "."}, `invalid value "1 day" for flag -max-age: it is not a duration, such as 90m, 25h or 1d`},
		{[]string{"-max-age", "-1d", "."}, "for flag -max-age"},
		{[]string{"-name", "[", "."}, "-name is not a pattern"},
		{[]string{"-name", "backups/*", "."}, "-name is not a pattern"},
		{[]string{"-name", "", "."}, "-name is not a pattern"},
		{[]string{"-interval", "59s", "."}, "-interval is below 1m0s"},
		{[]string{"-max-age", "-1s", "."}, "-max-age is negative"},
		{[]string{".", "-once"}, "flags and the URL go before the paths"},
		{[]string{"https://hc-ping.com/" + secret, "."}, "flags and the URL go before the paths"},
		{[]string{"-url", "", "."}, "is empty"},
		{[]string{"-url", "hc-ping.com/" + secret, "."}, "has no scheme"},
		{[]string{"-interval", "https://hc-ping.com/" + secret, "."}, "a URL stands where none belongs"},
		{[]string{"-url", "https://hc-ping.com/" + secret, "-url", "https://hc-ping.com/" + secret, "."}, "-url is given twice"},
		{[]string{"-interval", "300000h", "."}, "-interval is longer than a year"},
		{[]string{"-max-age", "1ms", "."}, "-max-age is below 1s"},
		{[]string{"-max-age", "10000d2562047h", "."}, "-max-age is negative"},
		{[]string{"-once", ""}, "a path is empty"},
		{[]string{"a", ""}, "a path is empty"},
		{[]string{"a", "./a/"}, "path given twice: a"},
		{[]string{"a", filepath.Join(working, "a")}, "path given twice: "},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // one that is not refused runs for ever
		code, stdout, stderr := runProgram(t, exec.CommandContext(ctx, program, tt.args...))
		cancel()
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "watchfiles: ") ||
			!strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, printed %s%s", tt.args, code, stdout, stderr)
		}
	}
}

func TestFormatAge(t *testing.T) {
	for age, want := range map[time.Duration]string{
		0:                             "0s",
		59*time.Second + 999:          "59s",
		time.Minute:                   "1m",
		59*time.Minute + 59:           "59m",
		5*time.Hour + 7*time.Minute:   "5h07m",
		24 * time.Hour:                "1d00h",
		51*time.Hour + 59*time.Minute: "2d03h",
		-90 * time.Minute:             "-1h30m",
	} {
		if got := formatAge(age); got != want {
			t.Errorf("%v: %s, want %s", age, got, want)
		}
	}
}

// TestRun keeps the program running and ends it as systemd does.
func TestRun(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		url, pings := service(t, http.StatusOK)
		var errs bytes.Buffer
		cmd := exec.Command(program, "-url", url, file(t, 0, t.TempDir(), "new"))
		cmd.Stderr = &errs
		start(t, cmd)
		if got := <-pings; got != "/"+secret {
			t.Errorf("pinged %s", got)
		}
		if err := cmp.Or(cmd.Process.Signal(sig), cmd.Wait()); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		if strings.Contains(errs.String(), secret) || strings.Contains(errs.String(), "ERROR") {
			t.Errorf("standard error: %s", &errs)
		}
	}
}

func TestRunReports(t *testing.T) {
	cmd := exec.Command(program, file(t, 0, t.TempDir(), "new"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	var table string
	for buf := make([]byte, 1024); strings.Count(table, "\n") < 2; {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		table += string(buf[:n])
	}
	if !strings.HasPrefix(table, "PATH") || !strings.HasSuffix(table, "  fresh\n") {
		t.Errorf("report:\n%s", table)
	}
	if err := cmp.Or(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

// TestUnreadable runs the program as a user whom permissions bind.
func TestUnreadable(t *testing.T) {
	dir, err := os.MkdirTemp("", "watchfiles")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file(t, 0, dir, "readable")
	locked := filepath.Dir(file(t, 0, dir, "locked", "new"))
	if err := os.Chmod(locked, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(locked, 0o755) })

	for path, want := range map[string]int{dir: 0, locked: 1} {
		cmd := exec.Command(program, "-once", path)
		cmd.Dir = "/"
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		code, stdout, stderr := runProgram(t, cmd)
		if code != want || !strings.Contains(stderr, "locked: permission denied") {
			t.Errorf("exit status %d, want %d; printed\n%s%s", code, want, stdout, stderr)
		}
	}
}

// TestWatch lets a tree change between two walks.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var log bytes.Buffer
		watched := tree{heartbeat.NewSyncTracker(dir), "*"}
		walks := 0
		var done sync.WaitGroup
		done.Go(func() {
			watched.watch(ctx, time.Hour, slog.New(slog.NewTextHandler(&log, nil)), func() { walks++ })
		})
		check := func(want time.Time) {
			t.Helper()
			synctest.Wait()
			if got := watched.LastSuccessfulSyncAt(); !got.Equal(want) {
				t.Errorf("last sync %v, want %v", got, want)
			}
		}
		check(time.Time{})
		time.Sleep(30 * time.Second)
		want := time.Now()
		path := file(t, 0, dir, "new")
		check(time.Time{}) // the next walk is yet to come
		time.Sleep(30 * time.Second)
		check(want)
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		check(time.Time{})
		if walks != 3 {
			t.Errorf("%d walks, want 3", walks)
		}
		cancel()
		done.Wait()
		if log.Len() > 0 {
			t.Errorf("log: %s", &log)
		}
	})
}

// TestVanish removes and makes files while the tree is walked.
func TestVanish(t *testing.T) {
	dir := t.TempDir()
	file(t, 0, dir, "kept")
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for i := range 50 {
				_ = os.MkdirAll(filepath.Join(dir, fmt.Sprint(i)), 0o755)
				_ = os.WriteFile(filepath.Join(dir, fmt.Sprint(i), "file"), nil, 0o644)
			}
			for i := range 50 {
				_ = os.RemoveAll(filepath.Join(dir, fmt.Sprint(i)))
			}
		}
	})
	watched := tree{heartbeat.NewSyncTracker(dir), "*"}
	for range 100 {
		if at, err := watched.newest(t.Context(), time.Now().Add(time.Hour)); err != nil || at.IsZero() {
			t.Errorf("newest file of %v, error %v", at, err)
			break
		}
	}
	close(stop)
	churn.Wait()
}

// TestWalkEndsWithContext walks no further once nobody waits for it.
func TestWalkEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := file(t, 0, t.TempDir(), "new")
	if _, err := (tree{heartbeat.NewSyncTracker(path), "*"}).newest(ctx, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
