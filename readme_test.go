package heartbeat_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(text)
}

// goSnippets returns the README's Go snippets: whole programs, and others.
func goSnippets(t *testing.T) (programs, others []string) {
	t.Helper()
	for _, match := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		if strings.HasPrefix(match[1], "package main\n") {
			programs = append(programs, match[1])
		} else {
			others = append(others, match[1])
		}
	}
	require.NotEmpty(t, programs)
	require.NotEmpty(t, others)
	return programs, others
}

// Each whole program compiles as it stands, and the first is that of the package
// comment.
func TestReadmePrograms(t *testing.T) {
	programs, _ := goSnippets(t)
	for _, program := range programs {
		source := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(source, []byte(program), 0o600))
		out, err := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, source).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	source, err := os.ReadFile("heartbeat.go")
	require.NoError(t, err)
	comment, _, _ := strings.Cut(string(source), "\npackage heartbeat")
	comment = regexp.MustCompile(`(?m)^//\t?`).ReplaceAllString(comment, "")
	require.Contains(t, comment, programs[0])
}

// Each other snippet stands in a test file, where it is compiled and run.
func TestReadmeSnippets(t *testing.T) {
	files, err := filepath.Glob("heartbeattest/*_test.go")
	require.NoError(t, err)
	var tested strings.Builder
	for _, file := range append(files, "example_test.go") {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		tested.Write(source)
	}
	indent := regexp.MustCompile(`(?m)^\t+`)
	_, snippets := goSnippets(t)
	for _, snippet := range snippets {
		require.Contains(t, indent.ReplaceAllString(tested.String(), ""), indent.ReplaceAllString(snippet, ""))
	}
}

// A recipe is a row of the README's table of services.
type recipe struct {
	service, url, failURL, failBody string
	opts                            heartbeat.HTTPOptions
}

// recipes parses the table as an operator reads it.
func recipes(t *testing.T) (all []recipe) {
	t.Helper()
	_, table, found := strings.Cut(readme(t), "| service | ping URL, fail URL, and what to know |\n| --- | --- |\n")
	require.True(t, found)
	code := func(cell, before string) string {
		match := regexp.MustCompile(before + " `([^`]+)`").FindStringSubmatch(cell)
		if match == nil {
			return ""
		}
		return match[1]
	}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		cells := strings.SplitN(line, " | ", 2)
		r := recipe{service: strings.TrimPrefix(cells[0], "| "), url: code(" "+cells[1], "^"),
			failURL: code(cells[1], "fail URL"), failBody: code(cells[1], "fail body")}
		r.opts.Method = code(cells[1], "Method")
		if header := code(cells[1], "[Hh]eader"); header != "" {
			key, value, _ := strings.Cut(header, ": ")
			r.opts.Header = http.Header{key: {value}}
		}
		all = append(all, r)
	}
	return all
}

// A standIn answers as a service does, for the check that the README's recipes
// name. It says what it has recorded: "up", or "down" and what it was told.
type standIn func(r *http.Request, body string) (code int, answer, recorded string)

// pathService records pings of path, and failures of path + "/fail".
func pathService(path string) standIn {
	return func(r *http.Request, body string) (int, string, string) {
		switch r.URL.Path {
		case path:
			return http.StatusOK, "OK", "up"
		case path + "/fail":
			return http.StatusOK, "OK", "down " + body
		}
		return http.StatusNotFound, "not found", ""
	}
}

// queryService records pings of path. A query whose key has one of the values
// failures is a failure, with a message of its own.
func queryService(path, key, message string, failures ...string) standIn {
	return func(r *http.Request, _ string) (int, string, string) {
		if r.URL.Path != path {
			return http.StatusNotFound, "", ""
		}
		for _, failure := range failures {
			if r.URL.Query().Get(key) == failure {
				return http.StatusAccepted, "", strings.TrimSpace("down " + r.URL.Query().Get(message))
			}
		}
		return http.StatusAccepted, "", "up"
	}
}

// authorized asks for a method and an Authorization header.
func authorized(method, authorization string, next standIn) standIn {
	return func(r *http.Request, body string) (int, string, string) {
		switch {
		case r.Method != method:
			return http.StatusMethodNotAllowed, "", ""
		case r.Header.Get("Authorization") != authorization:
			return http.StatusUnauthorized, "", ""
		}
		return next(r, body)
	}
}

// standIns are the services of DESIGN.md's table, by their names in the README.
var standIns = map[string]standIn{
	"Healthchecks.io":           pathService("/UUID"),
	"Healthchecks, self-hosted": pathService("/ping/UUID"),
	"Cronitor":                  queryService("/p/APIKEY/MONITOR", "state", "message", "fail"),
	"Better Stack":              pathService("/api/v1/heartbeat/TOKEN"),
	"Dead Man's Snitch":         queryService("/TOKEN", "s", "m", "1"),
	"Uptime Kuma":               uptimeKuma,
	"Gatus": authorized(http.MethodPost, "Bearer TOKEN",
		queryService("/api/v1/endpoints/GROUP_NAME/external", "success", "error", "false")),
	"Opsgenie":     authorized(http.MethodGet, "GenieKey KEY", pathService("/v2/heartbeats/NAME/ping")),
	"Sentry Crons": queryService("/api/ID/cron/SLUG/KEY/", "status", "", "error"),
}

// uptimeKuma serves its web page for each path that it does not know.
func uptimeKuma(r *http.Request, _ string) (int, string, string) {
	query := r.URL.Query()
	switch {
	case r.URL.Path != "/api/push/TOKEN":
		return http.StatusOK, "<!DOCTYPE html>", ""
	case query.Get("status") == "up":
		return http.StatusOK, `{"ok":true}`, "up"
	}
	return http.StatusOK, `{"ok":true}`, "down " + query.Get("msg")
}

// serve starts a stand-in. It returns its URL, and a function that returns what it
// has recorded, one at a time, and "nothing" when that was all.
func serve(t *testing.T, service standIn) (url string, next func() string) {
	t.Helper()
	recorded := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		code, answer, record := service(req, string(body))
		if record != "" {
			recorded <- record // before the answer
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() string {
		select {
		case record := <-recorded:
			return record
		default:
			return "nothing"
		}
	}
}

// Each recipe of the README does what it says, where a server stands for the
// service: a healthy database is recorded as up, and a stale one as down, with
// the reason where the recipe has one.
func TestReadmeRecipes(t *testing.T) {
	all := recipes(t)
	require.Len(t, all, len(standIns))
	for _, r := range all {
		t.Run(r.service, func(t *testing.T) {
			service := standIns[r.service]
			require.NotNil(t, service)
			server, next := serve(t, service)
			config := heartbeat.Config{URL: atHost(t, r.url, server), FailBody: r.failBody, HTTP: &r.opts}
			if r.failURL != "" {
				config.FailURL = atHost(t, r.failURL, server)
			}
			clock := heartbeattest.NewClock(epoch)
			db := heartbeattest.NewReporter("/data/app.db")
			db.Set(epoch)
			monitor, err := config.NewMonitor([]heartbeat.SyncReporter{db}, &heartbeat.Options{Clock: clock, Logger: quiet})
			require.NoError(t, err)
			require.NoError(t, monitor.Beat(t.Context()).Err)
			require.Equal(t, "up", next())

			clock.Advance(6 * time.Minute)
			stale := monitor.Beat(t.Context())
			require.Equal(t, heartbeat.ReasonStale, stale.Reason)
			switch {
			case strings.Contains(r.failURL+r.failBody, "{reason}"):
				require.Equal(t, "down "+stale.String(), next())
			case r.failURL != "":
				require.Equal(t, "down", strings.TrimSpace(next()))
			}
			require.Equal(t, "nothing", next())
		})
	}
}

// atHost returns rawURL, as the README has it, at the host of a stand-in. The
// placeholders for hosts are not hosts, so the URL is cut and not parsed.
func atHost(t *testing.T, rawURL, host string) string {
	t.Helper()
	_, afterScheme, found := strings.Cut(rawURL, "https://")
	require.True(t, found, rawURL)
	_, path, found := strings.Cut(afterScheme, "/")
	require.True(t, found, rawURL)
	_, err := url.Parse(rawURL)
	require.NoError(t, err)
	return host + "/" + path
}
