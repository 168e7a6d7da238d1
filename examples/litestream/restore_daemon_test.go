package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

func get(t *testing.T, d *daemon, path string) (status int, body string) {
	t.Helper()
	answer := httptest.NewRecorder()
	d.handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

// A failed check stops the heartbeat and sends the failure signal at once; both, and
// /healthz, name the restore check.
func TestDaemon_restoreCheckFails(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	own, fail := receive(t), receive(t)
	s.cfg.FailURL, s.cfg.FailBody = fail.url(), "{reason}"
	s.cfg.Restore.Every = new(24 * time.Hour)
	s.add("a.db")
	db := s.add("b.db")
	db.URL, db.Restore.Every = own.url(), new(time.Duration) // the heartbeat at the top does not stand for it
	clock := heartbeattest.NewClock(time.Now())
	d, err := newDaemon(s.cfg, options{logger: slog.New(slog.NewTextHandler(s.log, nil)), clock: clock})
	require.NoError(t, err)
	require.Nil(t, d.restores[1])
	check := d.restores[0]
	beat := func(ctx context.Context) (got heartbeat.Result) {
		clock.Advance(heartbeat.MinInterval)
		for _, r := range d.reporters {
			r.every = time.Minute
			r.Record(clock.Now())
		}
		d.monitors[1].Beat(ctx)
		return d.monitors[0].Beat(ctx)
	}
	require.Equal(t, heartbeat.Sent, beat(t.Context()).Outcome, "before the first check it counts as without one")
	status, body := get(t, d, "/healthz")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, fmt.Sprintf(`"restore_checks":[{"path":%q,"good":true,"failed":false,"took_seconds":0}]`, s.path("a.db")))
	_, body = get(t, d, "/metrics")
	assert.Contains(t, body, "heartbeat_restore_check_last_success_timestamp_seconds{path=\""+s.path("a.db")+"\"} 0\n")
	assert.NotContains(t, body, "heartbeat_restore_check_duration_seconds{")

	passed := clock.Now()
	check.settle(t.Context(), passed, 1500*time.Millisecond, nil)
	require.Equal(t, heartbeat.Sent, beat(t.Context()).Outcome)
	check.settle(t.Context(), clock.Now(), 2*time.Second, errors.New("file checksum mismatch"))
	const reason = "database not synced: %s (restore check) (1 of 3 databases)"
	assert.Equal(t, []string{fmt.Sprintf(strings.Replace(reason, "3", "2", 1), s.path("a.db"))}, fail.bodies(), "it must be there at once")
	assert.EqualValues(t, 2, s.receiver.got.Load())
	assert.True(t, s.log.has("level=WARN", `msg="restore check failed" db=`+s.path("a.db"), `error="file checksum mismatch"`), s.log)
	assert.True(t, s.log.has(`msg="heartbeat skipped"`, `db="`+s.path("a.db")+` (restore check)"`), s.log)

	result := beat(t.Context())
	assert.Equal(t, heartbeat.Skipped, result.Outcome)
	assert.Equal(t, s.path("a.db")+" (restore check)", result.Unhealthy[0].Path)
	assert.EqualValues(t, 3, own.got.Load(), "the heartbeat of the other goes on")
	status, body = get(t, d, "/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	var h health
	require.NoError(t, json.Unmarshal([]byte(body), &h))
	require.Len(t, h.Heartbeats, 2)
	assert.Contains(t, string(h.Heartbeats[0]), fmt.Sprintf(`{"path":"%s (restore check)","reason":"database not synced"}`, s.path("a.db")))
	assert.Contains(t, string(h.Heartbeats[1]), `"healthy":true`)
	require.Len(t, h.RestoreChecks, 1)
	assert.True(t, passed.Equal(h.RestoreChecks[0].LastPassedAt))
	assert.Equal(t, restoreCheckState{s.path("a.db"), false, true, h.RestoreChecks[0].LastPassedAt, 2}, h.RestoreChecks[0])
	assert.NotContains(t, body, "checksum", "the cause is for the log")
	_, body = get(t, d, "/metrics")
	assert.Contains(t, body, fmt.Sprintf("heartbeat_restore_check_last_success_timestamp_seconds{path=\"%s\"} %s\n", s.path("a.db"), strconv.FormatFloat(float64(passed.UnixMilli())/1000, 'g', -1, 64)))
	assert.Contains(t, body, "heartbeat_restore_check_duration_seconds{path=\""+s.path("a.db")+"\"} 2\n")
	assert.Contains(t, body, "\ngo_goroutines ", "the default registry is Litestream's")
	assert.Contains(t, body, "heartbeat_healthy{monitor=\"1\"} 0\n")
	assert.Contains(t, body, "heartbeat_checks_total{outcome=\"skipped\"}")

	check.settle(t.Context(), clock.Now(), time.Second, nil)
	assert.True(t, s.log.has("level=INFO", `msg="restore check passed again" db=`+s.path("a.db")), s.log)
	assert.Equal(t, heartbeat.Sent, beat(t.Context()).Outcome)
	assert.Len(t, fail.bodies(), 1)
}

func TestDaemon_addr(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.cfg.URL = ""
	s.cfg.Addr = "127.0.0.1:0"
	s.add("a.db")
	s.run()
	var addr string
	eventually(t, func() bool {
		for line := range strings.Lines(s.log.String()) {
			if _, rest, ok := strings.Cut(line, `msg="serving /healthz and /metrics" addr=`); ok {
				addr = strings.TrimSpace(rest)
			}
		}
		return addr != ""
	}, "not served")
	response, err := http.Get("http://" + addr + "/healthz")
	require.NoError(t, err)
	defer response.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode, "no heartbeat stands for anything")
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.JSONEq(t, `{"healthy":false,"heartbeats":[],"restore_checks":[]}`, string(body))

	s.cfg.Addr = addr // which is taken
	d, err := newDaemon(s.cfg, options{logger: slog.New(slog.DiscardHandler), litestreamLogger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.ErrorContains(t, d.run(t.Context()), "addr: listen tcp "+addr)
}

// restoring registers a kind of replica that restores hang on, and returns its name.
// What heeds its context ends with that, and what does not when release is closed.
func restoring(name string, heeds bool, release chan struct{}) string {
	litestream.RegisterReplicaClientFactory(name, func(_, _, path string, _ url.Values, _ *url.Userinfo) (litestream.ReplicaClient, error) {
		return &hangingClient{file.NewReplicaClient("/" + path), heeds, release}, nil
	})
	return name
}

type hangingClient struct {
	litestream.ReplicaClient
	heeds   bool
	release chan struct{}
}

func (c *hangingClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	if size > 0 { // the reporter's
		return c.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	}
	done := ctx.Done()
	if !c.heeds {
		done = nil
	}
	select {
	case <-done:
	case <-c.release:
	}
	return nil, errors.New("stale file handle")
}

// A restore that hangs costs the other databases neither a beat nor their own
// check, and the program not its good end.
func TestDaemon_restoreHangs(t *testing.T) {
	t.Parallel()
	for name, heeds := range map[string]bool{"heeds its context": true, "as a file system that is gone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			s.cfg.Restore.Every, s.cfg.RestoreDir = new(2*time.Minute), t.TempDir()
			release := make(chan struct{})
			db := s.add("hangs.db")
			db.Replica.URL = restoring(fmt.Sprintf("hanging%v", heeds), heeds, release) + "://host" + s.replica("hangs.db")
			db.URL = receive(t).url()
			s.add("b.db")
			d, err := newDaemon(s.cfg, options{
				logger: slog.New(slog.NewTextHandler(s.log, nil)), litestreamLogger: slog.New(slog.DiscardHandler),
				clock: s.clock, monitorInterval: demoSync, restoreTimeout: 300 * time.Millisecond, onResult: s.onResult,
			})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- d.run(ctx) }()
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(s.log.String())
				}
			})

			eventually(t, func() bool {
				return s.log.has("level=WARN", `msg="restore check failed" db=`+s.path("hangs.db"), "it was given up after ")
			}, "the one that hangs is not told")
			got, checked := s.receiver.got.Load(), d.restores[1].last().passed
			eventually(t, func() bool {
				return s.receiver.got.Load() >= got+2 && d.restores[1].last().passed.After(checked)
			}, "the other is not checked")
			assert.Zero(t, s.unhealthy(s.path("b.db")), "%s", s.log)
			assert.NotZero(t, s.unhealthy(s.path("hangs.db")), s.log)

			eventually(t, func() bool { return d.restores[0].hanging.Load() }, "no restore hangs any more")
			cancel()
			require.NoError(t, <-done, "a restore is waited for")
			close(release)
			eventually(t, func() bool {
				entries, err := os.ReadDir(s.cfg.RestoreDir)
				return err == nil && len(entries) == 0
			}, "a scratch file was left behind")
		})
	}
}

// unhealthy returns how many checks found a database unhealthy after the first that
// found it healthy.
func (s *system) unhealthy(path string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		for _, db := range r.Unhealthy {
			if strings.HasPrefix(db.Path, path) && (db.Reason != heartbeat.ReasonNotSynced || strings.HasSuffix(db.Path, "check)")) {
				n++
			}
		}
	}
	return n
}

// mainRestoring is the program with a replica that restores hang on, and with a
// clock so fast that a restore is soon due.
func mainRestoring() {
	restoring("hanging", true, nil)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := loadConfig(os.Args[1])
	if err == nil {
		cfg.Restore.Every = new(2 * time.Minute)
		var d *daemon
		d, err = newDaemon(cfg, options{logger: logger, litestreamLogger: slog.New(slog.DiscardHandler), clock: fastClock{time.Now()}, monitorInterval: demoSync})
		if err == nil {
			err = d.run(ctx)
		}
	}
	if err != nil {
		logger.Error("daemon failed", "error", err)
		os.Exit(exitFailed)
	}
}

// What a killed process leaves is removed by the next one; and one that is told to
// stop leaves nothing, and ends in time.
func TestProgram_killedDuringRestore(t *testing.T) {
	t.Parallel()
	dir, scratch := t.TempDir(), t.TempDir()
	require.NoError(t, createDB(t.Context(), filepath.Join(dir, "app.db")))
	configPath := filepath.Join(dir, "config.yml")
	writeFile(t, configPath, "heartbeat-url: http://127.0.0.1:1/x\nheartbeat-interval: 1m\nrestore-check: 1h\nrestore-check-dir: "+scratch+"\n"+
		"dbs:\n  - path: "+dir+"/app.db\n    replica:\n      url: hanging://host"+dir+"/replica\n      sync-interval: 1s\n")
	writeFile(t, filepath.Join(scratch, "mine"), "x")
	folders := func() []string {
		names, err := filepath.Glob(filepath.Join(scratch, scratchPrefix+"*", restoredName+".tmp"))
		require.NoError(t, err)
		return names
	}

	program, log := startProgram(t, "restoring", configPath)
	eventually(t, func() bool { return len(folders()) > 0 }, "no restore")
	require.NoError(t, program.Process.Kill())
	require.Error(t, program.Wait(), log)
	left := folders()
	require.Len(t, left, 1, "else this tests nothing")

	program, log = startProgram(t, "restoring", configPath)
	eventually(t, func() bool {
		return log.has("level=INFO", `msg="what a killed restore check left behind was removed" path=`+filepath.Dir(left[0]))
	}, "not removed")
	eventually(t, func() bool { return len(folders()) > 0 }, "no restore")
	assert.NotEqual(t, left, folders())
	require.NoError(t, program.Process.Signal(syscall.SIGTERM))
	require.NoError(t, program.Wait(), log)
	assert.True(t, log.has(`msg="databases closed" databases=1`), log)
	entries, err := os.ReadDir(scratch)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else is removed, and nothing is left")
	assert.Equal(t, "mine", entries[0].Name())
}
