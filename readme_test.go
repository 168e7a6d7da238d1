package heartbeat_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

const (
	readmeFile   = "README.md"
	servicesFile = ".github/SERVICES.md"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n") // as Git may write it on Windows
}

// codeBlocks returns the blocks of Markdown that are in the given language.
func codeBlocks(markdown, language string) (blocks []string) {
	for _, match := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(markdown, -1) {
		blocks = append(blocks, match[1])
	}
	return blocks
}

// goSnippets returns the README's Go snippets: whole programs, and others.
func goSnippets(t *testing.T) (programs, others []string) {
	t.Helper()
	for _, block := range codeBlocks(read(t, readmeFile), "go") {
		if strings.HasPrefix(block, "package main\n") {
			programs = append(programs, block)
		} else {
			others = append(others, block)
		}
	}
	require.NotEmpty(t, programs)
	require.NotEmpty(t, others)
	return programs, others
}

func requireCompiles(t *testing.T, program string) {
	t.Helper()
	source := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(source, []byte(program), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, source).CombinedOutput()
	require.NoError(t, err, string(out))
}

// Each whole program compiles as it stands, and the first is that of the package
// comment.
func TestReadmePrograms(t *testing.T) {
	programs, _ := goSnippets(t)
	for _, program := range programs {
		requireCompiles(t, program)
	}
	comment, _, _ := strings.Cut(read(t, "heartbeat.go"), "\npackage heartbeat")
	comment = regexp.MustCompile(`(?m)^//\t?`).ReplaceAllString(comment, "")
	require.Contains(t, comment, programs[0])
}

// Each other snippet stands in a test file, where it is compiled and run.
func TestReadmeSnippets(t *testing.T) {
	files, err := filepath.Glob("heartbeattest/*_test.go")
	require.NoError(t, err)
	examples, err := filepath.Glob("*example_test.go")
	require.NoError(t, err)
	var tested strings.Builder
	for _, file := range append(files, examples...) {
		tested.WriteString(read(t, file))
	}
	indent := regexp.MustCompile(`(?m)^\t+`)
	_, snippets := goSnippets(t)
	for _, snippet := range snippets {
		require.Contains(t, indent.ReplaceAllString(tested.String(), ""), indent.ReplaceAllString(snippet, ""))
	}
}

// The README has a row for each key of Config.
func TestReadmeKeys(t *testing.T) {
	config := reflect.TypeFor[heartbeat.Config]()
	for i := range config.NumField() {
		if key := config.Field(i).Tag.Get("yaml"); key != "-" {
			require.Contains(t, read(t, readmeFile), "\n| `"+key+"` | ")
		}
	}
}

// Each figure of "What it is worth" is one of MEASUREMENTS.md, which has the command
// that makes it.
func TestReadmeFigures(t *testing.T) {
	_, section, found := strings.Cut(read(t, readmeFile), "\n## What it is worth\n")
	require.True(t, found)
	number := regexp.MustCompile(`\d+(\.\d+)?`)
	measured := number.FindAllString(read(t, ".github/MEASUREMENTS.md"), -1)
	figures := number.FindAllString(section, -1)
	require.NotEmpty(t, figures)
	for _, figure := range figures {
		require.Contains(t, measured, figure)
	}
}

// Each link to a file, a folder or a heading of these pages leads somewhere.
func TestReadmeLinks(t *testing.T) {
	for _, page := range []string{readmeFile, servicesFile, "CHANGELOG.md", ".github/CONTRIBUTING.md"} {
		for _, match := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(read(t, page), -1) {
			link, heading, _ := strings.Cut(match[1], "#")
			if strings.Contains(link, "://") {
				continue
			}
			target := page
			if link != "" {
				target = filepath.Join(filepath.Dir(page), link)
			}
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", page, match[1])
			if heading != "" {
				require.Contains(t, headings(read(t, target)), heading, "%s links to %s", page, match[1])
			}
		}
	}
}

// Each link to an Example of the documentation leads to one.
func TestReadmeExampleLinks(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var tests strings.Builder
	for _, file := range files {
		tests.WriteString(read(t, file))
	}
	links := regexp.MustCompile(`heartbeat#example-([\w.]+)(?:-(\w+))?\)`).FindAllStringSubmatch(read(t, readmeFile), -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		name := "Example" + strings.ReplaceAll(link[1], ".", "_")
		if link[2] != "" {
			name += "_" + strings.ToLower(link[2][:1]) + link[2][1:]
		}
		require.Contains(t, tests.String(), "\nfunc "+name+"() {\n")
	}
}

// headings returns the anchors that GitHub gives to the headings of a page.
func headings(markdown string) (anchors []string) {
	for _, match := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(markdown, -1) {
		anchor := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(match[1]), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	return anchors
}

// A recipe is what an operator sets for a service.
type recipe struct {
	service string
	config  heartbeat.Config
}

// recipes returns the recipes of SERVICES.md, and the README's for Healthchecks.io.
func recipes(t *testing.T) (all []recipe) {
	t.Helper()
	for _, section := range strings.Split(read(t, servicesFile), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		if strings.Contains(text, "\nheartbeat-url: ") {
			all = append(all, recipe{title, parseRecipe(t, text)})
		}
	}
	return append(all, recipe{readmeFile, parseRecipe(t, read(t, readmeFile))})
}

// parseRecipe reads the first block with heartbeat's keys, and the settings in Go.
func parseRecipe(t *testing.T, text string) (config heartbeat.Config) {
	t.Helper()
	for _, block := range codeBlocks(text, "yaml") {
		if !strings.HasPrefix(block, "heartbeat-url: ") {
			continue
		}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			value = strings.Trim(value, `"`)
			switch key {
			case "heartbeat-url":
				config.URL = value
			case "heartbeat-fail-url":
				config.FailURL = value
			case "heartbeat-fail-body":
				config.FailBody = value
			case "heartbeat-interval":
				interval, err := time.ParseDuration(value)
				require.NoError(t, err)
				config.Interval = interval
			default:
				t.Fatalf("a recipe has the unknown key %s", key)
			}
		}
		break
	}
	require.NotEmpty(t, config.URL)
	config.HTTP = &heartbeat.HTTPOptions{}
	for _, block := range codeBlocks(text, "go") {
		if !strings.HasPrefix(block, "config.HTTP = ") {
			continue
		}
		requireCompiles(t, "package main\n\nimport (\n\t\"net/http\"\n\n\t\"github.com/go-heartbeat/heartbeat\"\n)\n\n"+
			"func main() {\n\tvar config heartbeat.Config\n\t"+block+"\n}\n")
		if strings.Contains(block, "Method: http.MethodPost,") {
			config.HTTP.Method = http.MethodPost
		}
		header := regexp.MustCompile(`Header: http\.Header\{"([^"]+)": \{"([^"]+)"\}\},`).FindStringSubmatch(block)
		require.NotNil(t, header)
		config.HTTP.Header = http.Header{header[1]: {header[2]}}
	}
	return config
}

// The endpoint in the recipe for Gatus has the key that is in its URL. Gatus takes
// silence, and one failure signal, for a failure of it.
func TestReadmeGatusEndpoint(t *testing.T) {
	_, section, found := strings.Cut(read(t, servicesFile), "\n## Gatus\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	endpoint := codeBlocks(section, "yaml")[1]
	value := func(key string) string {
		match := regexp.MustCompile(key + `: (\S+)`).FindStringSubmatch(endpoint)
		require.NotNil(t, match, key)
		return match[1]
	}
	key := regexp.MustCompile(`[ ./_,#+&]`)
	require.Contains(t, section, "/api/v1/endpoints/"+
		key.ReplaceAllString(strings.ToLower(value("group")), "-")+"_"+key.ReplaceAllString(strings.ToLower(value("name")), "-")+"/external?")
	require.Contains(t, section, `"Bearer `+value("token")+`"`)
	silence, err := time.ParseDuration(value("heartbeat:\n *interval"))
	require.NoError(t, err)
	require.Greater(t, silence, heartbeat.DefaultInterval)
	require.Equal(t, "1", value("failure-threshold"))
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

// standIns are the services of SERVICES.md, by the titles of their sections.
var standIns = map[string]standIn{
	readmeFile:                  pathService("/your-uuid-here"),
	"Healthchecks.io":           pathService("/UUID"),
	"Healthchecks, self-hosted": pathService("/ping/UUID"),
	"Cronitor":                  queryService("/p/APIKEY/MONITOR", "state", "message", "fail"),
	"Better Stack":              pathService("/api/v1/heartbeat/TOKEN"),
	"Dead Man's Snitch":         queryService("/TOKEN", "s", "m", "1"),
	"Uptime Kuma":               uptimeKuma,
	"Gatus": authorized(http.MethodPost, "Bearer TOKEN",
		queryService("/api/v1/endpoints/core_app-db/external", "success", "error", "false")),
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

// Each recipe does what it says, where a server stands for the service: a healthy
// database is recorded as up, and a stale one as down, with the reason where the
// recipe has one.
func TestReadmeRecipes(t *testing.T) {
	all := recipes(t)
	require.Len(t, all, len(standIns))
	for _, r := range all {
		t.Run(r.service, func(t *testing.T) {
			service := standIns[r.service]
			require.NotNil(t, service)
			server, next := serve(t, service)
			config := r.config
			require.NoError(t, config.Validate(), "as it is written")
			config.URL = atHost(t, r.config.URL, server)
			if r.config.FailURL != "" {
				config.FailURL = atHost(t, r.config.FailURL, server)
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
			case strings.Contains(config.FailURL+config.FailBody, "{reason}"):
				require.Equal(t, "down "+stale.String(), next())
			case config.FailURL != "":
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
