package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
      url: file:///backup/users
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
			{Path: "/data/users.db", Replica: replicaConfig{URL: "file:///backup/users", SyncInterval: time.Second}},
		},
	}, cfg)

	d, err := newDaemon(cfg, options{})
	require.NoError(t, err)
	require.Len(t, d.monitors, 1)
	assert.Len(t, d.monitors[0].Status().Databases, 2)
	assert.Equal(t, time.Minute/checksPerBeat, d.reporters[0].every)
	assert.Equal(t, time.Second, d.databases[1].Replica.SyncInterval)
}

// Each is one line on standard error, with exit status 2.
func TestRun_configErrors(t *testing.T) {
	t.Parallel()
	const dbs = "dbs:\n  - path: /data/app.db\n    replica:\n      url: file:///backup/app\n"
	const on = "heartbeat-url: https://hc-ping.com/secret\n"
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":                 {"heartbeat_url: https://hc-ping.com/secret\n" + dbs, `FILE:1:1: unknown key "heartbeat_url"`},
		"unknown key of a replica":    {dbs + "      sync_interval: 1s\n", `FILE:5:7: unknown key "sync_interval"`},
		"key given twice":             {"heartbeat-url: https://a.example/secret\nheartbeat-url: https://b.example/secret\n" + dbs, `FILE:2:1: mapping key "heartbeat-url" already defined at [1:1]`},
		"wrong type":                  {"heartbeat-url: [https://hc-ping.com/secret]\n" + dbs, "FILE:1:16: heartbeat-url: value has the wrong type"},
		"a URL for a list":            {"heartbeat-urls: https://hc-ping.com/secret\n" + dbs, "FILE:1:17: heartbeat-urls: string was used where sequence is expected"},
		"a URL for a replica":         {"dbs:\n  - path: /data/app.db\n    replica: s3://key:secret@bucket/app\n", "FILE:3:14: replica: string was used where mapping is expected"},
		"not YAML":                    {"heartbeat-url: \"https://hc-ping.com/secret\n" + dbs, "FILE:1:16: heartbeat-url: could not find end character of double-quoted text"},
		"two documents":               {dbs + "---\nheartbeat-url: https://hc-ping.com/secret\n", "FILE: more than one YAML document; write one"},
		"not an interval":             {"heartbeat-interval: 5 minutes\n" + dbs, `FILE:1:21: heartbeat-interval: not a duration such as 30s or 5m`},
		"interval without unit":       {"heartbeat-interval: 300\n" + dbs, `FILE:1:21: heartbeat-interval: not a duration such as 30s or 5m`},
		"interval of a wrong type":    {"heartbeat-interval: [5m]\n" + dbs, "FILE:1:21: heartbeat-interval: not a duration such as 30s or 5m"},
		"negative interval":           {"heartbeat-interval: -5m\n" + dbs, "FILE:1:21: heartbeat-interval: -5m is not positive"},
		"a URL for an interval":       {"heartbeat-interval: https://hc-ping.com/s3cr3t\n" + dbs, `FILE:1:21: heartbeat-interval: not a duration such as 30s or 5m`},
		"a URL for a key":             {"https://hc-ping.com/s3cr3t: x\n" + dbs, `FILE:1:1: a URL is where none belongs`},
		"not a sync interval":         {dbs + "      sync-interval: soon\n", `FILE:5:22: sync-interval: not a duration such as 30s or 5m`},
		"no sync interval":            {dbs + "      sync-interval: 0s\n", "FILE:5:22: sync-interval: 0s is not positive"},
		"sync interval too long":      {"heartbeat-url: https://hc-ping.com/secret\n" + dbs + "      sync-interval: 5m\n", "FILE: dbs[0].replica.sync-interval: 5m0s is too long to prove a sync that is at most 5m0s old; at most 1m15s"},
		"byte order mark":             {"\ufeffheartbeat_url: x\n" + dbs, `FILE:1:1: unknown key "heartbeat_url"`},
		"dbs as a map":                {"dbs:\n  /data/app.db:\n    replica:\n      url: file:///backup/app\n", `FILE:2:3: dbs: not a list; write a list, with "- path: /data/app.db" for each database and its replica beneath`},
		"dbs as one database":         {"dbs:\n  path: /data/app.db\n  replica: x\n", `FILE:2:3: dbs: not a list; write a list, with "- path: /data/app.db" for each database and its replica beneath`},
		"dbs as a string":             {"dbs: /data/app.db\n", `FILE:1:6: dbs: not a list; write a list, with "- path: /data/app.db" for each database and its replica beneath`},
		"dbs as a list of strings":    {"dbs:\n  - /data/app.db\n", `FILE:2:5: dbs[0]: not a database's settings; write a list, with "- path: /data/app.db" for each database and its replica beneath`},
		"open quote, another follows": {"heartbeat-url: \"https://hc-ping.com/secret\n" + strings.ReplaceAll(dbs, "/data/app.db", `"/data/app.db"`), "FILE:1:16: heartbeat-url: the quote is not closed on its line"},
		"open quote of a path":        {"dbs:\n  - path: '/data/app.db\n    replica:\n      url: 'file:///backup/app'\n", "FILE:2:11: path: the quote is not closed on its line"},
		"open quote of a replica":     {strings.Replace(dbs, "file:", "\"file:", 1), "FILE:4:12: url: could not find end character of double-quoted text"},
		"interval of five what":       {"heartbeat-interval: 5\n" + dbs, `FILE:1:21: heartbeat-interval: not a duration such as 30s or 5m`},
		"home for a path":             {"dbs:\n  - path: ~/app.db\n    replica:\n      url: file:///backup/app\n", "FILE: dbs[0].path: ~ is not expanded; write the whole path, or $HOME"},
		"home for a replica":          {"dbs:\n  - path: /data/app.db\n    replica:\n      url: file://~/backup\n", "FILE: dbs[0].replica.url: ~ is not expanded; write the whole path"},
		"a URL for a path":            {"dbs:\n  - path: sqlite:///data/secret.db\n    replica:\n      url: file:///backup/app\n", "FILE: dbs[0].path: not a path but a URL"},
		"a replica within another":    {dbs + "  - path: /data/b.db\n    replica:\n      url: file:///backup/app/b\n", "FILE: dbs[1].replica.url: lies within the replica of dbs[0]"},
		"a replica around another":    {dbs + "  - path: /data/b.db\n    replica:\n      url: file:///backup\n", "FILE: dbs[1].replica.url: the replica of dbs[0] lies within it"},
		"two keys are wrong":          {"heartbeat-url: secret\nheartbeat-fail-body: x\n" + dbs, "FILE: heartbeat-fail-body: "},
		"own URL is bad":              {dbs + "    heartbeat-url: hc-ping.com/secret\n", "FILE: dbs[0].heartbeat-url: "},
		"own interval alone":          {dbs + "    heartbeat-interval: 5m\n", "FILE: dbs[0].heartbeat-interval: set without heartbeat-url"},
		"own interval has no unit":    {dbs + "    heartbeat-interval: 5\n", "FILE:5:25: heartbeat-interval: not a duration such as 30s or 5m"},
		"own max sync age alone":      {dbs + "    heartbeat-max-sync-age: 5m\n", "FILE: dbs[0].heartbeat-max-sync-age: set without heartbeat-url"},
		"max sync age too short":      {"heartbeat-url: https://hc-ping.com/secret\nheartbeat-max-sync-age: 2m\n" + dbs + "      sync-interval: 1m\n", "FILE: dbs[0].replica.sync-interval: 1m0s is too long to prove a sync that is at most 2m0s old; at most 30s"},
		"own fail URL alone":          {dbs + "    heartbeat-fail-url: https://hc-ping.com/secret\n", "FILE: dbs[0].heartbeat-fail-url: "},
		"own URL is the global one":   {"heartbeat-url: https://a.example/secret\n" + dbs + "    heartbeat-url: https://a.example/secret\n    heartbeat-global: true\n", "FILE: dbs[0].heartbeat-url: the same URL as heartbeat-url; each heartbeat needs a check of its own"},
		"own fail URL is another's":   {"heartbeat-url: https://a.example/secret\n" + dbs + "    heartbeat-url: https://b.example/secret\n    heartbeat-global: true\n    heartbeat-fail-url: https://a.example/secret\n", "FILE: dbs[0].heartbeat-fail-url: the same URL as heartbeat-url; each heartbeat needs a check of its own"},
		"nothing counts globally":     {"heartbeat-url: https://a.example/secret\n" + dbs + "    heartbeat-url: https://b.example/secret\n", "FILE: heartbeat-url: no database counts for it, so it would never be pinged; write heartbeat-global: true beneath one, or leave it out"},
		"all are off":                 {"heartbeat-url: https://a.example/secret\n" + dbs + "    heartbeat-url: \"\"\n", "FILE: heartbeat-url: no database counts for it, so it would never be pinged; write heartbeat-global: true beneath one, or leave it out"},
		"no global heartbeat":         {dbs + "    heartbeat-global: true\n", "FILE: dbs[0].heartbeat-global: there is no global heartbeat-url"},
		"own sync interval too long":  {"heartbeat-url: https://a.example/secret\n" + dbs + "      sync-interval: 1m\n    heartbeat-global: true\n    heartbeat-url: https://b.example/secret\n    heartbeat-interval: 2m\n", "FILE: dbs[0].replica.sync-interval: 1m0s is too long to prove a sync that is at most 2m0s old; at most 30s"},
		"URL without scheme":          {"heartbeat-url: hc-ping.com/secret\n" + dbs, "FILE: heartbeat-url: "},
		"URL of another scheme":       {"heartbeat-url: ftp://hc-ping.com/secret\n" + dbs, "FILE: heartbeat-url: "},
		"bad URL of another service":  {"heartbeat-url: https://hc-ping.com/abc123\nheartbeat-urls: [\"https://\"]\n" + dbs, "FILE: heartbeat-urls[0]: "},
		"bad fail URL":                {"heartbeat-url: https://hc-ping.com/abc123\nheartbeat-fail-url: secret\n" + dbs, "FILE: heartbeat-fail-url: "},
		"the fail URL is the URL":     {"heartbeat-url: https://hc-ping.com/secret\nheartbeat-fail-url: https://hc-ping.com/secret\n" + dbs, "FILE: heartbeat-fail-url: the same URL as heartbeat-url; leave one of them out"},
		"fail URL alone":              {"heartbeat-fail-url: https://hc-ping.com/secret/fail\n" + dbs, "FILE: heartbeat-fail-url: "},
		"empty file":                  {"", "FILE: dbs: no databases; list at least one"},
		"no databases":                {"heartbeat-url: https://hc-ping.com/secret\n", "FILE: dbs: no databases; list at least one"},
		"database without path":       {"dbs:\n  - replica:\n      url: file:///backup/app\n", "FILE: dbs[0].path: not set"},
		"path given twice":            {dbs + "  - path: /data/../data/app.db\n    replica:\n      url: file:///backup/b\n", "FILE: dbs[1].path: /data/../data/app.db is given twice"},
		"replica given twice":         {dbs + "  - path: /data/b.db\n    replica:\n      url: file:///backup/app/\n", "FILE: dbs[1].replica.url: the same as another database's"},
		"database without replica":    {"dbs:\n  - path: /data/app.db\n", "FILE: dbs[0].replica.url: not set for /data/app.db"},
		"replica that is no URL":      {"dbs:\n  - path: /data/app.db\n    replica:\n      url: /backup/secret\n", "FILE: dbs[0].replica.url: not a replica URL such as file:///backup/app or s3://bucket/app"},
		"replica URL with a bad port": {"dbs:\n  - path: /data/app.db\n    replica:\n      url: sftp://user:se/cret@host/app\n", "FILE: dbs[0].replica.url: not a replica URL such as file:///backup/app or s3://bucket/app"},
		"interval of decades":         {"heartbeat-url: https://hc-ping.com/secret\nheartbeat-interval: 300000h\n" + dbs, "FILE:2:21: heartbeat-interval: 300000h is more than a year; at most 8760h"},
		"host in a file URL":          {strings.Replace(dbs, "file:///", "file://", 1), "FILE: dbs[0].replica.url: backup is taken for a host, which a file URL has not; write three slashes before the whole path, as in file:///backup/app"},
		"replica in Litestream's own": {strings.Replace(dbs, "/backup/app", "/data/.app.db-litestream/replica", 1), "FILE: dbs[0].replica.url: lies within Litestream's own folder beside /data/app.db; write one elsewhere, best on another disk"},
		"replica is Litestream's own": {strings.Replace(dbs, "/backup/app", "/data/.app.db-litestream", 1), "FILE: dbs[0].replica.url: lies within Litestream's own folder beside /data/app.db; write one elsewhere, best on another disk"},
		"replica in another's own":    {dbs + "  - path: /data/b.db\n    replica:\n      url: file:///data/.app.db-litestream/ltx\n", "FILE: dbs[1].replica.url: lies within Litestream's own folder beside /data/app.db; write one elsewhere, best on another disk"},
		"replica around the database": {strings.Replace(dbs, "/backup/app", "/data/", 1), "FILE: dbs[0].replica.url: /data/app.db lies within it; write a folder that the replica has for itself"},
		"replica around all":          {strings.Replace(dbs, "/backup/app", "/", 1), "FILE: dbs[0].replica.url: /data/app.db lies within it; write a folder that the replica has for itself"},
		"replica around another's":    {dbs + "  - path: /backup/b/b.db\n    replica:\n      url: file:///other\n  - path: /data/c.db\n    replica:\n      url: file:///backup/b\n", "FILE: dbs[2].replica.url: /backup/b/b.db lies within it; write a folder that the replica has for itself"},
		"restore check in days":       {on + "restore-check: 1d\n" + dbs, "FILE:2:16: restore-check: not a duration such as 24h, or 0s for none"},
		"restore check of zero what":  {on + "restore-check: 0\n" + dbs, "FILE:2:16: restore-check: not a duration such as 24h, or 0s for none"},
		"restore check too often":     {on + "restore-check: 59m\n" + dbs, "FILE:2:16: restore-check: 59m is too often, since each check reads the whole replica; at least 1h, or 0s for none"},
		"restore check before":        {on + dbs + "    restore-check: -1h\n", "FILE:6:20: restore-check: -1h is too often, since each check reads the whole replica; at least 1h, or 0s for none"},
		"restore check for ages":      {on + "restore-check: 9000h\n" + dbs, "FILE:2:16: restore-check: 9000h is more than a year; at most 8760h"},
		"restore check, nobody told":  {"restore-check: 24h\n" + dbs, "FILE: restore-check: no heartbeat stands for any database, so nobody would be told; set heartbeat-url"},
		"own check, nobody told":      {dbs + "    restore-check: 24h\n", "FILE: dbs[0].restore-check: no heartbeat stands for this database, so nobody would be told; set heartbeat-url"},
		"query without a check":       {on + "restore-check-query: SELECT 1\n" + dbs, "FILE: restore-check-query: set without restore-check"},
		"own query without a check":   {on + dbs + "    restore-check-query: SELECT 1\n", "FILE: dbs[0].restore-check-query: set without restore-check"},
		"own query, check turned off": {on + "restore-check: 24h\n" + dbs + "    restore-check: 0s\n    restore-check-query: SELECT 1\n", "FILE: dbs[0].restore-check-query: set without restore-check"},
		"folder without a check":      {on + "restore-check-dir: /tmp\n" + dbs, "FILE: restore-check-dir: set without restore-check"},
		"query that is no SQL":        {on + "restore-check: 24h\nrestore-check-query: count the secrets\n" + dbs, "FILE: restore-check-query: not an SQL statement such as SELECT count(*) > 0 FROM users"},
		"query that writes":           {on + "restore-check: 24h\nrestore-check-query: INSERT INTO users VALUES (1)\n" + dbs, "FILE: restore-check-query: not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA"},
		"query that makes a file":     {on + "restore-check: 24h\nrestore-check-query: VACUUM INTO '/tmp/secret'\n" + dbs, "FILE: restore-check-query: not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA"},
		"query that attaches":         {on + "restore-check: 24h\nrestore-check-query: /* SELECT */ ATTACH 'x' AS y\n" + dbs, "FILE: restore-check-query: not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA"},
		"query that begins":           {on + "restore-check: 24h\nrestore-check-query: begin exclusive\n" + dbs, "FILE: restore-check-query: not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA"},
		"own query that is no SQL":    {on + dbs + "    restore-check: 24h\n    restore-check-query: SELECT (1\n", "FILE: dbs[0].restore-check-query: not an SQL statement such as SELECT count(*) > 0 FROM users"},
		"restore folder missing":      {on + "restore-check: 24h\nrestore-check-dir: /nowhere/scratch\n" + dbs, "FILE: restore-check-dir: /nowhere/scratch does not exist"},
		"restore folder is a file":    {on + "restore-check: 24h\nrestore-check-dir: FILE\n" + dbs, "FILE: restore-check-dir: FILE is not a folder"},
		"restore folder at home":      {on + "restore-check: 24h\nrestore-check-dir: ~/scratch\n" + dbs, "FILE: restore-check-dir: ~ is not expanded; write the whole path, or $HOME"},
		"restore folder in a replica": {on + "restore-check: 24h\nrestore-check-dir: DIR\n" + strings.Replace(dbs, "/backup/app", "DIR", 1), "FILE: restore-check-dir: lies within what belongs to dbs[0] alone"},
		"port without host":           {on + "addr: 8080\n" + dbs, "FILE: addr: not an address such as localhost:9090 or :9090"},
		"unknown backend":             {"dbs:\n  - path: /data/app.db\n    replica:\n      url: tape://drive/secret\n", `FILE: dbs[0].replica.url: unsupported replica URL scheme: "tape"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "config.yml")
			writeFile(t, path, strings.NewReplacer("FILE", path, "DIR", filepath.Dir(path)).Replace(test.text))
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
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a configuration that is taken for a good one runs
	defer cancel()
	assert.Equal(t, exitUsage, run(ctx, []string{"-config", path}, &out, &errs))
	assert.Empty(t, out.String())
	line, rest, _ := strings.Cut(errs.String(), "\n")
	assert.Empty(t, rest, "more than one line")
	return line
}

// What only the files that are there can tell.
func TestLoadConfig_files(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "text.db"), "not a database")
	writeFile(t, filepath.Join(dir, "empty.db"), "")
	require.NoError(t, createDB(t.Context(), filepath.Join(dir, "app.db")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "backup", "app"), 0o700))
	require.NoError(t, os.Symlink("app.db", filepath.Join(dir, "link.db")))
	require.NoError(t, os.Symlink("backup", filepath.Join(dir, "linked")))
	dir, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)

	load := func(pairs ...string) error {
		text := "dbs:\n"
		for i := 0; i < len(pairs); i += 2 {
			text += "  - path: DIR/" + pairs[i] + "\n    replica:\n      url: file://DIR/" + pairs[i+1] + "\n"
		}
		path := filepath.Join(t.TempDir(), "config.yml")
		writeFile(t, path, strings.ReplaceAll(text, "DIR", dir))
		_, err := loadConfig(path)
		if err != nil {
			return errors.New(strings.ReplaceAll(strings.TrimPrefix(err.Error(), path+": "), dir, "DIR"))
		}
		return nil
	}
	require.NoError(t, load("app.db", "backup/app", "empty.db", "backup/app2", "missing.db", "backup/missing"))
	for want, pairs := range map[string][]string{
		"dbs[0].path: DIR/text.db is not an SQLite database":                                                                    {"text.db", "backup/app"},
		"dbs[0].path: DIR/backup is a folder, not a database":                                                                   {"backup", "backup/app"},
		"dbs[0].replica.url: DIR/app.db is a file; a replica is a folder":                                                       {"app.db", "app.db"},
		"dbs[1].path: DIR/link.db is given twice":                                                                               {"app.db", "backup/a", "link.db", "backup/b"},
		"dbs[0].replica.url: lies within Litestream's own folder beside DIR/link.db; write one elsewhere, best on another disk": {"link.db", ".link.db-litestream/x"},
		"dbs[0].replica.url: DIR/app.db lies within it; write a folder that the replica has for itself":                         {"app.db", "./"},
		"dbs[1].replica.url: the same as another database's":                                                                    {"app.db", "backup/app", "b.db", "linked/app"},
		"dbs[1].replica.url: lies within the replica of dbs[0]":                                                                 {"app.db", "backup/app", "b.db", "linked/app/new/b"},
		"dbs[1].replica.url: the replica of dbs[0] lies within it":                                                              {"app.db", "backup/app", "b.db", "linked"},
		"dbs[0].replica.url: not a replica URL such as file:///backup/app or s3://bucket/app":                                   {"app.db\n    replica: {url: /x}\n  - path: DIR/b.db", "backup/app"},
	} {
		assert.EqualError(t, load(pairs...), want)
	}
}

func TestLoadConfig_environment(t *testing.T) {
	t.Setenv("HEARTBEAT_TEST_URL", "https://hc-ping.com/from-env")
	t.Setenv("HEARTBEAT_TEST_DIR", "/data")
	path := filepath.Join(t.TempDir(), "config.yml")
	writeFile(t, path, "heartbeat-url: ${HEARTBEAT_TEST_URL}\ndbs:\n  - path: $HEARTBEAT_TEST_DIR/app.db\n    replica:\n      url: file:///backup/${PID}${HEARTBEAT_TEST_UNSET}\n")
	cfg, err := loadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, "https://hc-ping.com/from-env", cfg.URL)
	assert.Equal(t, "/data/app.db", cfg.DBs[0].Path)
	assert.Equal(t, fmt.Sprintf("file:///backup/%d", os.Getpid()), cfg.DBs[0].Replica.URL)
}

// Which databases a URL stands for.
func TestConfig_beats(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yml")
	text := "heartbeat-url: https://hc.example/global\nheartbeat-interval: 10m\ndbs:\n"
	for i, settings := range []string{
		"",
		"heartbeat-url: https://hc.example/own\n    heartbeat-interval: 2m\n    heartbeat-fail-url: https://hc.example/own/fail\n    heartbeat-fail-body: '{reason}'",
		"heartbeat-url: https://hc.example/both\n    heartbeat-global: true",
		`heartbeat-url: ""`,
		"heartbeat-global: false",
		"heartbeat-urls: [https://hc.example/list]",
	} {
		text += fmt.Sprintf("  - path: /data/%d.db\n    replica: {url: 'file:///backup/%d'}\n    %s\n", i, i, settings)
	}
	writeFile(t, path, text)
	cfg, err := loadConfig(path)
	require.NoError(t, err)
	own := cfg.DBs[1].Config
	assert.Equal(t, heartbeat.Config{URL: "https://hc.example/own", Interval: 2 * time.Minute, FailURL: "https://hc.example/own/fail", FailBody: "{reason}"}, own)
	assert.Equal(t, []beat{
		{"", cfg.Config, []int{0, 2}},
		{"dbs[1].", own, []int{1}},
		{"dbs[2].", heartbeat.Config{URL: "https://hc.example/both", Interval: 10 * time.Minute}, []int{2}},
		{"dbs[5].", heartbeat.Config{URLs: []string{"https://hc.example/list"}, Interval: 10 * time.Minute}, []int{5}},
	}, cfg.beats())

	d, err := newDaemon(cfg, options{})
	require.NoError(t, err)
	var every []time.Duration
	for _, r := range d.reporters {
		every = append(every, r.every)
	}
	assert.Equal(t, []time.Duration{150 * time.Second, 30 * time.Second, 150 * time.Second, 0, 0, 150 * time.Second}, every)
}

// A database is looked at four times in the time that its last sync may be old, and
// in that between two heartbeats.
func TestNewDaemon_maxSyncAge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ interval, age, want time.Duration }{
		{time.Hour, 0, 15 * time.Minute},
		{time.Hour, 4 * time.Minute, time.Minute},
		{time.Hour, 26 * time.Hour, 15 * time.Minute},
	} {
		d, err := newDaemon(&config{
			Config: heartbeat.Config{URL: "https://hc.example/x", Interval: test.interval, MaxSyncAge: test.age},
			DBs:    []dbConfig{{Path: "/data/app.db", Replica: replicaConfig{URL: "file:///backup/app"}}},
		}, options{})
		require.NoError(t, err)
		assert.Equal(t, test.want, d.reporters[0].every)
	}
}

// What is set beneath a database takes the place of what the top has.
func TestConfig_restoreChecks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yml")
	text := "heartbeat-url: https://hc.example/global\nrestore-check: 24h\nrestore-check-query: SELECT 1\nrestore-check-dir: " + dir + "\ndbs:\n"
	for i, settings := range []string{
		"",
		"restore-check: 1h",
		"restore-check: 168h\n    restore-check-query: SELECT 2",
		"restore-check: 0s",
		"restore-check:",
		`heartbeat-url: ""`,
	} {
		text += fmt.Sprintf("  - path: /data/%d.db\n    replica: {url: 'file:///backup/%d'}\n    %s\n", i, i, settings)
	}
	writeFile(t, path, text)
	cfg, err := loadConfig(path)
	require.NoError(t, err)
	d, err := newDaemon(cfg, options{})
	require.NoError(t, err)
	var got []string
	for _, c := range d.checks() {
		got = append(got, fmt.Sprint(c.Path(), " ", c.every, " ", c.query, " ", c.dir == dir))
	}
	assert.Equal(t, []string{
		"/data/0.db (restore check) 24h0m0s SELECT 1 true",
		"/data/1.db (restore check) 1h0m0s SELECT 1 true",
		"/data/2.db (restore check) 168h0m0s SELECT 2 true",
		"/data/4.db (restore check) 24h0m0s SELECT 1 true",
	}, got)
	var watched []string
	for _, db := range d.monitors[0].Status().Databases {
		watched = append(watched, db.Path)
	}
	assert.Contains(t, watched, "/data/0.db (restore check)")
	assert.NotContains(t, watched, "/data/3.db (restore check)")
	assert.Contains(t, watched, "/data/3.db")
	assert.Len(t, watched, 5+4)
}

// The interval that counts is the one that was raised, of which a line tells.
func TestNewDaemon_intervalRaised(t *testing.T) {
	t.Parallel()
	log := &buffer{}
	_, err := newDaemon(&config{
		Config: heartbeat.Config{URL: "https://hc.example/secret", Interval: time.Second},
		DBs:    []dbConfig{{Path: "/data/app.db", Replica: replicaConfig{URL: "file:///backup/app", SyncInterval: 16 * time.Second}}},
	}, options{logger: slog.New(slog.NewTextHandler(log, nil))})
	require.EqualError(t, err, "dbs[0].replica.sync-interval: 16s is too long to prove a sync that is at most 1m0s old; at most 15s")
	assert.True(t, log.has("level=WARN", "interval=1s"), log)
}

func TestLoadConfig_sample(t *testing.T) {
	t.Parallel()
	cfg, err := loadConfig("litestream.yml")
	require.NoError(t, err)
	beats := cfg.beats()
	require.Len(t, beats, 2)
	assert.Equal(t, []int{0}, beats[0].databases)
	assert.Equal(t, []int{1}, beats[1].databases)

	// So are the lines that are commented out.
	sample, err := os.ReadFile("litestream.yml")
	require.NoError(t, err)
	for _, key := range []string{"heartbeat-urls:", "  - https:", "heartbeat-interval:", "heartbeat-max-sync-age:", "heartbeat-fail-url:", "heartbeat-fail-body:", "sync-interval:", "heartbeat-global:", "restore-check:", "restore-check-query:", "restore-check-dir:", "addr:"} {
		require.Contains(t, string(sample), "# "+key)
		sample = bytes.Replace(sample, []byte("# "+key), []byte(key), 1)
	}
	path := filepath.Join(t.TempDir(), "litestream.yml")
	writeFile(t, path, string(sample))
	cfg, err = loadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1}, cfg.beats()[0].databases)
	_, err = newDaemon(cfg, options{})
	require.NoError(t, err)
}
