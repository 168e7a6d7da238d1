package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoadConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yml")
	writeFile(t, path, `# as in the documentation, and the keys for several services
heartbeat-url: "https://hc-ping.com/abc123"
heartbeat-urls:
  - https://uptime.example.com/api/push/def456
heartbeat-fail-url: https://hc-ping.com/abc123/fail
heartbeat-interval: 1m
dbs:
  - path: /data/app.db
    replica:
      url: file:///backup/app
  - path: /data/users.db
    replica:
      url: s3://bucket/users-backup
      sync-interval: 1s
`)
	cfg, err := loadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, &config{
		Config: heartbeat.Config{
			URL:      "https://hc-ping.com/abc123",
			URLs:     []string{"https://uptime.example.com/api/push/def456"},
			Interval: time.Minute,
			FailURL:  "https://hc-ping.com/abc123/fail",
		},
		DBs: []dbConfig{
			{Path: "/data/app.db", Replica: replicaConfig{URL: "file:///backup/app"}},
			{Path: "/data/users.db", Replica: replicaConfig{URL: "s3://bucket/users-backup", SyncInterval: syncInterval(time.Second)}},
		},
	}, cfg)

	d, err := newDaemon(cfg, options{})
	require.NoError(t, err)
	assert.Len(t, d.monitor.Status().Databases, 2)
	assert.Equal(t, "file", d.databases[0].Replica.Client.Type())
	assert.Equal(t, "s3", d.databases[1].Replica.Client.Type())
	assert.Equal(t, time.Second, d.databases[1].Replica.SyncInterval)
}

func TestReplicaClient_everyBackend(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"file:///backup/app":               "file",
		"s3://bucket/app":                  "s3",
		"gs://bucket/app":                  "gs",
		"abs://account@container/app":      "abs",
		"sftp://user@host.example/app":     "sftp",
		"webdav://host.example/app":        "webdav",
		"webdavs://host.example/app":       "webdav",
		"nats://host.example/bucket":       "nats",
		"oss://bucket.oss.example.com/app": "oss",
	} {
		client, err := replicaClient(url)
		if assert.NoError(t, err, url) {
			assert.Equal(t, want, client.Type())
		}
	}
}

// Each is one line on standard error, with exit status 2.
func TestRun_configErrors(t *testing.T) {
	t.Parallel()
	const dbs = "dbs:\n  - path: /data/app.db\n    replica:\n      url: file:///backup/app\n"
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":                 {"heartbeat_url: https://hc-ping.com/secret\n" + dbs, `FILE:1:1: unknown key "heartbeat_url"`},
		"unknown key of a replica":    {dbs + "      sync_interval: 1s\n", `FILE:5:7: unknown key "sync_interval"`},
		"key given twice":             {"heartbeat-url: https://a.example/secret\nheartbeat-url: https://b.example/secret\n" + dbs, `FILE:2:1: mapping key "heartbeat-url" already defined at [1:1]`},
		"wrong type":                  {"heartbeat-url: [https://hc-ping.com/secret]\n" + dbs, "FILE:1:16: heartbeat-url: value has the wrong type"},
		"a URL for a list":            {"heartbeat-urls: https://hc-ping.com/secret\n" + dbs, "FILE:1:17: heartbeat-urls: string was used where sequence is expected"},
		"a URL for a replica":         {"dbs:\n  - path: /data/app.db\n    replica: s3://key:secret@bucket/app\n", "FILE:3:14: replica: string was used where mapping is expected"},
		"not YAML":                    {"heartbeat-url: \"https://hc-ping.com/secret\n" + dbs, "FILE:1:16: heartbeat-url: could not find end character of double-quoted text"},
		"two documents":               {dbs + "---\nheartbeat-url: https://hc-ping.com/secret\n", "FILE: more than one YAML document; write one"},
		"not an interval":             {"heartbeat-interval: 5 minutes\n" + dbs, `FILE: heartbeat-interval: not a duration such as 30s or 5m`},
		"interval without unit":       {"heartbeat-interval: 300\n" + dbs, `FILE: heartbeat-interval: not a duration such as 30s or 5m`},
		"interval of a wrong type":    {"heartbeat-interval: [5m]\n" + dbs, "FILE: heartbeat-interval: not a duration such as 30s or 5m"},
		"negative interval":           {"heartbeat-interval: -5m\n" + dbs, "FILE: heartbeat-interval: -5m is not positive"},
		"a URL for an interval":       {"heartbeat-interval: https://hc-ping.com/s3cr3t\n" + dbs, `FILE: heartbeat-interval: not a duration such as 30s or 5m`},
		"a URL for a key":             {"https://hc-ping.com/s3cr3t: x\n" + dbs, `FILE:1:1: a URL is where none belongs`},
		"not a sync interval":         {dbs + "      sync-interval: soon\n", `FILE: sync-interval: not a duration such as 30s or 5m`},
		"no sync interval":            {dbs + "      sync-interval: 0s\n", "FILE: sync-interval: 0s is not positive"},
		"sync interval too long":      {"heartbeat-url: https://hc-ping.com/secret\n" + dbs + "      sync-interval: 5m\n", "FILE: dbs[0].replica.sync-interval: 5m0s is too long to prove a heartbeat every 5m0s; at most 1m15s"},
		"sync interval raised":        {"heartbeat-url: https://hc-ping.com/secret\nheartbeat-interval: 1s\n" + dbs + "      sync-interval: 16s\n", "FILE: dbs[0].replica.sync-interval: 16s is too long to prove a heartbeat every 1m0s; at most 15s"},
		"URL without scheme":          {"heartbeat-url: hc-ping.com/secret\n" + dbs, "FILE: heartbeat: heartbeat-url: "},
		"URL of another scheme":       {"heartbeat-url: ftp://hc-ping.com/secret\n" + dbs, "FILE: heartbeat: heartbeat-url: "},
		"bad URL of another service":  {"heartbeat-url: https://hc-ping.com/abc123\nheartbeat-urls: [\"https://\"]\n" + dbs, "FILE: heartbeat: heartbeat-urls[0]: "},
		"bad fail URL":                {"heartbeat-url: https://hc-ping.com/abc123\nheartbeat-fail-url: secret\n" + dbs, "FILE: heartbeat: heartbeat-fail-url: "},
		"the fail URL is the URL":     {"heartbeat-url: https://hc-ping.com/secret\nheartbeat-fail-url: https://hc-ping.com/secret\n" + dbs, "FILE: heartbeat: heartbeat-fail-url is the same URL as heartbeat-url"},
		"fail URL alone":              {"heartbeat-fail-url: https://hc-ping.com/secret/fail\n" + dbs, "FILE: heartbeat-fail-url: set without heartbeat-url"},
		"empty file":                  {"", "FILE: dbs: no databases; list at least one"},
		"no databases":                {"heartbeat-url: https://hc-ping.com/secret\n", "FILE: dbs: no databases; list at least one"},
		"database without path":       {"dbs:\n  - replica:\n      url: file:///backup/app\n", "FILE: dbs[0].path: not set"},
		"path given twice":            {dbs + "  - path: /data/../data/app.db\n    replica:\n      url: file:///backup/b\n", "FILE: dbs[1].path: /data/../data/app.db is given twice"},
		"replica given twice":         {dbs + "  - path: /data/b.db\n    replica:\n      url: file:///backup/app/\n", "FILE: dbs[1].replica.url: the same as another database's"},
		"database without replica":    {"dbs:\n  - path: /data/app.db\n", "FILE: dbs[0].replica.url: not set for /data/app.db"},
		"replica that is no URL":      {"dbs:\n  - path: /data/app.db\n    replica:\n      url: /backup/secret\n", "FILE: dbs[0].replica.url: not a replica URL such as file:///backup/app or s3://bucket/app"},
		"replica URL with a bad port": {"dbs:\n  - path: /data/app.db\n    replica:\n      url: sftp://user:se/cret@host/app\n", "FILE: dbs[0].replica.url: not a replica URL such as file:///backup/app or s3://bucket/app"},
		"unknown backend":             {"dbs:\n  - path: /data/app.db\n    replica:\n      url: tape://drive/secret\n", `FILE: dbs[0].replica.url: unsupported replica URL scheme: "tape"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yml")
			writeFile(t, path, test.text)
			got := runForError(t, path)
			want, more := strings.CutSuffix(strings.ReplaceAll(test.want, "FILE", path), ": ")
			if !more {
				assert.Equal(t, want, got)
			} else {
				assert.True(t, strings.HasPrefix(got, want+": "), got) // the rest is the library's
			}
			assert.NotContains(t, got, "secret")
		})
	}

	assert.Equal(t, "-config: no such file or directory", runForError(t, ""))
	missing := filepath.Join(t.TempDir(), "missing.yml")
	assert.Equal(t, missing+": no such file or directory", runForError(t, missing))
	directory := t.TempDir()
	assert.Equal(t, directory+": is a directory", runForError(t, directory))
}

func runForError(t *testing.T, path string) string {
	t.Helper()
	var out, errs buffer
	assert.Equal(t, exitUsage, run(t.Context(), []string{"-config", path}, &out, &errs))
	assert.Empty(t, out.String())
	line, rest, _ := strings.Cut(errs.String(), "\n")
	assert.Empty(t, rest, "more than one line")
	return line
}
