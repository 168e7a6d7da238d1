package heartbeat_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

// serviceAnswers has a row for each answer in .github/SERVICES.md.
var serviceAnswers = []struct {
	name   string
	path   string // after the service's host
	method string // empty: GET
	header http.Header
	code   int
	answer http.Header
	body   string
	want   string // the error; empty: the ping is accepted
	hint   bool
}{
	{name: "Healthchecks", path: "/ping/" + uuid, code: 200, answer: http.Header{"Ping-Body-Limit": {"10000"}}, body: "OK"},
	{name: "Healthchecks paused, resumes", path: "/ping/" + uuid, code: 200, answer: http.Header{"Ping-Body-Limit": {"10000"}}, body: "OK"},
	{name: "Healthchecks fail", path: "/ping/" + uuid + "/fail", code: 200, body: "OK"},
	{name: "Healthchecks exit status", path: "/ping/" + uuid + "/255", code: 200, body: "OK"},
	{name: "Healthchecks slug", path: "/ping/" + apikey + "/nightly", code: 200, body: "OK"},
	{name: "Healthchecks slug created", path: "/ping/" + apikey + "/nightly?create=1", code: 201, body: "Created"},
	{name: "Healthchecks unknown", path: "/ping/" + uuid, code: 404, body: "not found", want: "heartbeat: server answered 404 Not Found", hint: true},
	{name: "Healthchecks ambiguous", path: "/ping/" + apikey + "/nightly", code: 409, body: "ambiguous slug", want: "heartbeat: server answered 409 Conflict", hint: true},
	{name: "Healthchecks slash after a UUID", path: "/ping/" + uuid + "/", code: 200, body: "OK"},
	{name: "Healthchecks slash after a slug", path: "/ping/" + apikey + "/nightly/", code: 404, answer: http.Header{"Content-Type": {"text/html"}}, body: "<html>/ping/" + uuid + "/</html>", want: "heartbeat: server answered 404 Not Found", hint: true},
	// These look like an accepted ping, and the recipe warns of them.
	{name: "Healthchecks paused, manual resume", path: "/ping/" + uuid, code: 200, body: "OK"},
	{name: "Healthchecks POST only", path: "/ping/" + uuid, code: 200, body: "OK"},
	{name: "Healthchecks filters bodies", path: "/ping/" + uuid, code: 200, body: "OK"},
	{name: "Healthchecks filters bodies, POST without a keyword", path: "/ping/" + uuid + "/fail", method: "POST", code: 200, body: "OK"},
	{name: "Healthchecks.io", path: "/" + uuid, code: 200, body: "OK"},
	{name: "Healthchecks.io fail", path: "/" + uuid + "/fail", code: 200, body: "OK"},
	{name: "Healthchecks.io deleted", path: "/" + uuid, code: 200, body: "OK (not found)", want: `heartbeat: ping not accepted: server answered "OK (not found)"`, hint: true},
	{name: "Healthchecks.io rate-limited", path: "/" + uuid, code: 200, body: "OK (rate-limited)", want: `heartbeat: ping not accepted: server answered "OK (rate-limited)"`},
	{name: "Cronitor", path: "/p/" + apikey + "/nightly?state=complete", code: 200},
	{name: "Cronitor bare", path: "/p/" + apikey + "/nightly", code: 200, body: "OK"},
	{name: "Cronitor fail", path: "/p/" + apikey + "/nightly?state=fail", code: 200, body: "OK"},
	{name: "Cronitor busy", path: "/p/" + apikey + "/nightly", code: 429, answer: http.Header{"Retry-After": {"30"}}, want: "heartbeat: server answered 429 Too Many Requests, retry after 30s"},
	{name: "Better Stack", path: "/api/v1/heartbeat/" + apikey, code: 200},
	{name: "Better Stack fail", path: "/api/v1/heartbeat/" + apikey + "/fail", code: 200},
	{name: "Better Stack exit status", path: "/api/v1/heartbeat/" + apikey + "/3", code: 202},
	{name: "Dead Man's Snitch", path: "/" + apikey + "?m=all%20good", code: 200, body: "Got it, thanks!"},
	{name: "Dead Man's Snitch accepted", path: "/" + apikey, code: 202, body: "Got it, thanks!"},
	{name: "Dead Man's Snitch fail", path: "/" + apikey + "?s=1", code: 202, body: "Got it, thanks!"},
	{name: "Uptime Kuma", path: "/api/push/" + apikey + "?status=up&msg=OK&ping=", code: 200, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"ok":true}`},
	{name: "Uptime Kuma fail", path: "/api/push/" + apikey + "?status=down&msg=stale&ping=", code: 200, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"ok":true}`},
	{name: "Uptime Kuma unknown", path: "/api/push/" + apikey, code: 404, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"ok":false,"msg":"Monitor not found or not active."}`, want: "heartbeat: server answered 404 Not Found", hint: true},
	// These look like an accepted ping, since P1 takes any 2xx. The recipe warns of them.
	{name: "Uptime Kuma trailing slash", path: "/api/push/" + apikey + "/", code: 200, answer: http.Header{"Content-Type": {"text/html"}}, body: "<!DOCTYPE html>"},
	{name: "Uptime Kuma double slash", path: "//api/push/" + apikey, code: 200, answer: http.Header{"Content-Type": {"text/html"}}, body: "<!DOCTYPE html>"},
	{name: "Gatus", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", header: http.Header{"Authorization": {"Bearer " + apikey}}, code: 200},
	{name: "Gatus fail", path: "/api/v1/endpoints/core_app/external?success=false&error=stale", method: "POST", header: http.Header{"Authorization": {"Bearer " + apikey}}, code: 200},
	{name: "Gatus bad request", path: "/api/v1/endpoints/core_app/external?success=yes", method: "POST", code: 400, want: "heartbeat: server answered 400 Bad Request", hint: true},
	{name: "Gatus bad token", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", code: 401, want: "heartbeat: server answered 401 Unauthorized", hint: true},
	{name: "Gatus unknown", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", code: 404, want: "heartbeat: server answered 404 Not Found", hint: true},
	{name: "Gatus by GET", path: "/api/v1/endpoints/core_app/external?success=true", method: "GET", code: 405, want: "heartbeat: server answered 405 Method Not Allowed", hint: true},
	{name: "Gatus without a group", path: "/api/v1/endpoints/_app/external?success=true", method: "POST", header: http.Header{"Authorization": {"Bearer " + apikey}}, code: 200},
	{name: "Gatus broken", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", code: 500, want: "heartbeat: server answered 500 Internal Server Error"},
	{name: "Opsgenie", path: "/v2/heartbeats/nightly/ping", header: http.Header{"Authorization": {"GenieKey " + apikey}}, code: 202, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"result":"PONG - Heartbeat received","took":0.1}`},
	{name: "Opsgenie plain", path: "/v2/heartbeats/nightly/ping", header: http.Header{"Authorization": {"GenieKey " + apikey}}, code: 200, body: "PONG"},
	{name: "Sentry", path: "/api/42/cron/nightly/" + apikey + "/?status=ok", code: 202},
	{name: "Sentry fail", path: "/api/42/cron/nightly/" + apikey + "/?status=error", code: 202},
	{name: "any: no content", path: "/", code: 204},
	{name: "any: highest 2xx", path: "", code: 299, body: "OK(not this form)"},
	{name: "any: escapes and an odd query", path: "/a%2Fb/c%20d?x=%41&y=a+b&z&=;", code: 200, body: "ok (lower case)"},
	{name: "any: later OK", path: "/x", code: 200, body: " OK (not found)"},
	{name: "any: HTML", path: "/x", code: 200, answer: http.Header{"Content-Type": {"text/html"}}, body: "<html>log in</html>"},
	{name: "any: lower-case method", path: "/x", method: "put", code: 200},
	{name: "any: not modified", path: "/x", code: 304, want: "heartbeat: server answered 304 Not Modified"},
	{name: "any: 302 to nowhere", path: "/x", code: 302, want: "heartbeat: server answered 302 Found"},
	{name: "any: forbidden", path: "/x", code: 403, want: "heartbeat: server answered 403 Forbidden", hint: true},
	{name: "any: timeout", path: "/x", code: 408, want: "heartbeat: server answered 408 Request Timeout"},
	{name: "any: gone", path: "/x", code: 410, want: "heartbeat: server answered 410 Gone", hint: true},
	{name: "any: bad gateway", path: "/x", code: 502, body: "<html>bad gateway</html>", want: "heartbeat: server answered 502 Bad Gateway"},
	{name: "any: unavailable", path: "/x", code: 503, answer: http.Header{"Retry-After": {"120"}}, want: "heartbeat: server answered 503 Service Unavailable, retry after 2m0s"},
	{name: "any: unknown status", path: "/x", code: 599, want: "heartbeat: server answered 599"},
	{name: "any: unknown words are not shown", path: "/x", code: 200, body: "OK (\x1b[31m\n)", want: `heartbeat: ping not accepted: server answered "OK (…)"`},
	{name: "any: known words among others", path: "/x", code: 200, body: "OK (check not found: ping)", want: `heartbeat: ping not accepted: server answered "OK (… not found …)"`, hint: true},
	{name: "any: no end of the words", path: "/x", code: 200, body: "OK (" + strings.Repeat("x", 100), want: `heartbeat: ping not accepted: server answered "OK (…)"`},
}

// P1, L1 and the hint: what each service gets, and what a Monitor makes of its
// answer, over HTTP/1.1, HTTPS and HTTP/2.
func TestServices(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"HTTP/1.1", "HTTPS/1.1", "HTTP/2.0"} {
		for _, row := range serviceAnswers {
			t.Run(proto+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				requests := make(chan *http.Request, 10)
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests <- r
					maps.Copy(w.Header(), row.answer)
					w.WriteHeader(row.code)
					_, _ = io.WriteString(w, row.body)
				}))
				defer server.Close()
				opts := &heartbeat.HTTPOptions{Method: row.method, Header: row.header}
				if proto == "HTTP/1.1" {
					server.Start()
				} else {
					server.EnableHTTP2 = proto == "HTTP/2.0"
					server.StartTLS()
					opts.Client = server.Client()
				}
				pingURL := server.URL + row.path

				result, lines := beatOnce(t, newPinger(t, pingURL, opts))

				require.Len(t, requests, 1)
				req := <-requests
				wantMethod, wantURI := strings.ToUpper(row.method), row.path
				if wantMethod == "" {
					wantMethod = "GET"
				}
				if wantURI == "" {
					wantURI = "/"
				}
				require.Equal(t, wantMethod, req.Method)
				require.Equal(t, wantURI, req.RequestURI, "path and query are untouched")
				require.Equal(t, strings.TrimPrefix(server.URL[strings.Index(server.URL, ":"):], "://"), req.Host)
				require.Equal(t, strings.ReplaceAll(proto, "HTTPS", "HTTP"), req.Proto)
				require.Equal(t, "go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)", req.UserAgent())
				require.Equal(t, row.header.Get("Authorization"), req.Header.Get("Authorization"))
				require.Empty(t, req.TransferEncoding)
				require.Zero(t, req.ContentLength)

				if row.want == "" {
					require.NoError(t, result.Err)
					require.Equal(t, heartbeat.Sent, result.Outcome)
					require.Equal(t, []string{"INFO heartbeat sent url=" + pingURL}, lines)
					return
				}
				require.Equal(t, heartbeat.Failed, result.Outcome)
				require.EqualError(t, result.Err, row.want)
				if status, ok := errorAs[*heartbeat.StatusError](result.Err); row.code/100 != 2 {
					require.True(t, ok)
					require.Equal(t, row.code, status.Code)
					require.NotErrorIs(t, result.Err, heartbeat.ErrNotAccepted)
				} else {
					require.False(t, ok)
					require.ErrorIs(t, result.Err, heartbeat.ErrNotAccepted)
				}
				line := "ERROR heartbeat failed url=" + pingURL + " error=" + row.want
				if row.hint {
					line += hint
				}
				require.Equal(t, []string{line}, lines)
			})
		}
	}
}

// P1: a User-Agent in the options takes the place of the pinger's own, and a Host
// that of the URL's; several values and small letters in a name are kept.
func TestPingHeaders(t *testing.T) {
	t.Parallel()
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer server.Close()
	header := http.Header{"User-Agent": {"mine"}, "Host": {"virtual.example"}, "X-Api-Key": {"a", "b"}, "x-small": {"tab\tin"}}
	p := newPinger(t, server.URL, &heartbeat.HTTPOptions{Header: header})
	header["X-Api-Key"][0] = "changed later"
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, "mine", got.UserAgent())
	require.Equal(t, "virtual.example", got.Host)
	require.Equal(t, []string{"a", "b"}, got.Header["X-Api-Key"])
	require.Equal(t, []string{"tab\tin"}, got.Header["X-Small"])
}

// P1: a HEAD has no body to judge by.
func TestPingHead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "OK (not found)")
	}))
	defer server.Close()
	require.NoError(t, newPinger(t, server.URL, &heartbeat.HTTPOptions{Method: "HEAD"}).Ping(t.Context()))
}
