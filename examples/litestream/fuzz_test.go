package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var tokenIsKey = regexp.MustCompile(`t0k3n[^\n]*:|\?`)

// Whatever an operator writes is a configuration, or one line that says what is
// wrong with it and does not repeat the ping URL.
func FuzzLoadConfig(f *testing.F) {
	const token = "s3cr3t-t0k3n"
	for _, seed := range []string{
		"",
		"dbs: []",
		"heartbeat-url: https://hc-ping.com/" + token + "\ndbs:\n  - path: /data/app.db\n    replica:\n      url: file:///backup/app\n",
		"heartbeat_url: https://hc-ping.com/" + token,
		"heartbeat-url: hc-ping.com/" + token + "\ndbs: [{path: a, replica: {url: 'file:///b', sync-interval: 1s}}]",
		"heartbeat-url: [https://hc-ping.com/" + token + "]",
		"heartbeat-urls: [https://hc-ping.com/" + token + ", 'https://hc-ping.com/" + token + "']\ndbs: [{path: a, replica: {url: 'file:///b'}}]",
		"heartbeat-interval: 5\nheartbeat-fail-url: https://hc-ping.com/" + token,
		"heartbeat-url: https://hc-ping.com/" + token + "\nrestore-check: 24h\nrestore-check-query: SELECT 1; -- x\nrestore-check-dir: /tmp\naddr: ':1'\n" +
			"dbs:\n  - path: a\n    restore-check: 0s\n    replica: {url: 'file:///b'}\n  - path: c\n    restore-check: 1h\n    replica: {url: 'file:///d'}\n",
		"restore-check: [" + token + "]\ndbs: [{path: a, restore-check: {x: " + token + "}, replica: {url: 'file://h/b'}}]",
		"&a [*a]",
		"dbs: [{path: a, replica: {url: '%zz://b'}}]",
		"---\n---\n",
		"\xff\x00",
	} {
		f.Add(seed)
	}
	f.Add("a" + token + ": b") // an unknown key
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "config.yml")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		cfg, err := loadConfig(path)
		if err == nil {
			_, err = newDaemon(cfg, options{})
		}
		if err == nil {
			require.NotEmpty(t, cfg.DBs)
			return
		}
		if !tokenIsKey.MatchString(text) { // a key is named, whatever it is
			require.NotContains(t, err.Error(), token)
		}
		require.NotContains(t, strings.TrimRight(err.Error(), "\n"), "\n", "one line")
	})
}
