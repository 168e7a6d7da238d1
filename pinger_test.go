package heartbeat_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// roundTripFunc makes a function an http.RoundTripper. It serves where there is
// no network: in a synctest bubble, and where the fault is the client's.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answerWith(req *http.Request, code int, header http.Header, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// viaFunc are the options of a pinger whose requests go to f.
func viaFunc(f roundTripFunc) *heartbeat.HTTPOptions {
	return &heartbeat.HTTPOptions{Client: &http.Client{Transport: f}}
}

// errorTexts returns the text of err and of all that it wraps, at every level.
func errorTexts(err error) []string {
	if err == nil {
		return nil
	}
	texts := []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		texts = append(texts, errorTexts(w.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range w.Unwrap() {
			texts = append(texts, errorTexts(inner)...)
		}
	}
	return texts
}

// A lineLog keeps each log line as "LEVEL message key=value key=value".
type lineLog struct {
	mu   sync.Mutex
	text []string
}

func (l *lineLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *lineLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lineLog) WithGroup(string) slog.Handler            { return l }
func (l *lineLog) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line)
	return nil
}

func (l *lineLog) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// fresh is a database that has just synced.
func fresh() []heartbeat.SyncReporter {
	r := heartbeattest.NewReporter("/data/app.db")
	r.Set(time.Now())
	return []heartbeat.SyncReporter{r}
}

// beatOnce is what a Monitor makes of one ping of p.
func beatOnce(t *testing.T, p heartbeat.Pinger) (heartbeat.Result, []string) {
	t.Helper()
	log := &lineLog{}
	m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Logger: slog.New(log)})
	require.NoError(t, err)
	return m.Beat(t.Context()), log.lines()
}

func newPinger(t *testing.T, url string, opts *heartbeat.HTTPOptions) *heartbeat.HTTPPinger {
	t.Helper()
	p, err := heartbeat.NewHTTPPinger(url, opts)
	require.NoError(t, err)
	t.Cleanup(p.CloseIdleConnections)
	return p
}

const hint = " hint=unlikely to mend itself: check the ping URL, and the check it names at the service"

// ---- What the services answer -------------------------------------------------

const (
	uuid   = "6f7d4c1e-91c2-4c3a-9f0e-2a52d3a4b1c0"
	apikey = "d41d8cd98f00b204e980"
)

// serviceAnswers has a row for each answer in shared/SERVICES.md.
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
	{name: "Healthchecks paused", path: "/ping/" + uuid, code: 200, answer: http.Header{"Ping-Body-Limit": {"10000"}}, body: "OK"},
	{name: "Healthchecks fail", path: "/ping/" + uuid + "/fail", code: 200, body: "OK"},
	{name: "Healthchecks exit status", path: "/ping/" + uuid + "/255", code: 200, body: "OK"},
	{name: "Healthchecks slug", path: "/ping/" + apikey + "/nightly", code: 200, body: "OK"},
	{name: "Healthchecks slug created", path: "/ping/" + apikey + "/nightly?create=1", code: 201, body: "Created"},
	{name: "Healthchecks unknown", path: "/ping/" + uuid, code: 404, body: "not found", want: "heartbeat: server answered 404 Not Found", hint: true},
	{name: "Healthchecks ambiguous", path: "/ping/" + apikey + "/nightly", code: 409, body: "ambiguous slug", want: "heartbeat: server answered 409 Conflict", hint: true},
	{name: "Healthchecks trailing slash", path: "/ping/" + uuid + "/", code: 404, answer: http.Header{"Content-Type": {"text/html"}}, body: "<html>/ping/" + uuid + "/</html>", want: "heartbeat: server answered 404 Not Found", hint: true},
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
	{name: "Uptime Kuma fail", path: "/api/push/" + apikey + "?status=down", code: 200, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"ok":true}`},
	{name: "Uptime Kuma unknown", path: "/api/push/" + apikey, code: 404, answer: http.Header{"Content-Type": {"application/json"}}, body: `{"ok":false,"msg":"Monitor not found or not active."}`, want: "heartbeat: server answered 404 Not Found", hint: true},
	// Not to be told from an accepted ping: P1 takes any 2xx, and the README warns of it.
	{name: "Uptime Kuma trailing slash", path: "/api/push/" + apikey + "/", code: 200, answer: http.Header{"Content-Type": {"text/html"}}, body: "<!DOCTYPE html>"},
	{name: "Uptime Kuma double slash", path: "//api/push/" + apikey, code: 200, answer: http.Header{"Content-Type": {"text/html"}}, body: "<!DOCTYPE html>"},
	{name: "Gatus", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", header: http.Header{"Authorization": {"Bearer " + apikey}}, code: 200},
	{name: "Gatus fail", path: "/api/v1/endpoints/core_app/external?success=false&error=stale", method: "POST", header: http.Header{"Authorization": {"Bearer " + apikey}}, code: 200},
	{name: "Gatus bad request", path: "/api/v1/endpoints/core_app/external?success=yes", method: "POST", code: 400, want: "heartbeat: server answered 400 Bad Request", hint: true},
	{name: "Gatus bad token", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", code: 401, want: "heartbeat: server answered 401 Unauthorized", hint: true},
	{name: "Gatus unknown", path: "/api/v1/endpoints/core_app/external?success=true", method: "POST", code: 404, want: "heartbeat: server answered 404 Not Found", hint: true},
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
	{name: "any: words are quoted", path: "/x", code: 200, body: "OK (\x1b[31m\n)", want: `heartbeat: ping not accepted: server answered "OK (\x1b[31m\n)"`},
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
				if status, ok := errors.AsType[*heartbeat.StatusError](result.Err); row.code/100 != 2 {
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

// ---- A service in trouble -----------------------------------------------------

// rawServer answers each connection's first request with what handle writes, and
// counts the requests. It may keep the connection and read further requests.
func rawServer(t *testing.T, handle func(conn net.Conn, in *bufio.Reader, req *http.Request)) (base string, requests *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	requests = new(atomic.Int32)
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if req, err := http.ReadRequest(in); err == nil {
					requests.Add(1)
					handle(conn, in, req)
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return "http://" + listener.Addr().String(), requests
}

func reset(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }

// hold waits until the client closes the connection.
func hold(in io.Reader) { _, _ = io.Copy(io.Discard, in) }

// P2, P5, P7: each kind of trouble is one failed ping (or, where the status says
// so, a good one), within the timeout, with one request.
func TestTrouble(t *testing.T) {
	t.Parallel()
	const short = 250 * time.Millisecond // for what only the timeout can end
	for _, row := range []struct {
		name    string
		timeout time.Duration // zero: the default, which is not reached
		handle  func(conn net.Conn, in *bufio.Reader, req *http.Request)
		check   func(t *testing.T, err error)
	}{
		{"empty reply", 0, func(net.Conn, *bufio.Reader, *http.Request) {}, func(t *testing.T, err error) {
			require.ErrorIs(t, err, io.EOF)
		}},
		{"reset before the headers", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) { reset(conn) }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}},
		{"end in the headers", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: te")
		}, func(t *testing.T, err error) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}},
		{"reset in the headers", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: te")
			reset(conn)
		}, func(t *testing.T, err error) {
			require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
		}},
		{"end in the body", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK")
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, "heartbeat: ping: reading the answer's body: unexpected EOF")
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}},
		{"reset in the body", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK")
			reset(conn)
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "heartbeat: ping: ") }},
		{"not accepted, and an end in the body", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nOK (not found)")
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, heartbeat.ErrNotAccepted) }},
		{"end after the first 64 bytes", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"+strings.Repeat("x", 64))
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"1 MB of headers", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for range 1000 {
				_, _ = io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n")
			}
			_, _ = io.WriteString(conn, "\r\n")
		}, func(t *testing.T, err error) {
			require.ErrorContains(t, err, "server response headers exceeded 65536 bytes")
		}},
		{"no answer", short, func(_ net.Conn, in *bufio.Reader, _ *http.Request) { hold(in) }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}},
		{"half the headers", short, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX:")
			hold(in)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"half the body", short, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK")
			hold(in)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"headers in drips", short, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			drip(conn)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"body in drips", short, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n")
			drip(conn)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"endless body", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			flood(conn)
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"endless error page", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Oops\r\n\r\n")
			flood(conn)
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, "heartbeat: server answered 500 Internal Server Error")
		}},
		{"error page in drips", short, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Oops\r\n\r\n")
			drip(conn)
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, "heartbeat: server answered 500 Internal Server Error")
		}},
		{"switching protocols", 0, func(conn net.Conn, in *bufio.Reader, _ *http.Request) { // what follows has no deadline in net/http
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			hold(in)
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, "heartbeat: server answered 101 Switching Protocols")
		}},
		{"informational answers for ever", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			for {
				if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"); err != nil {
					return
				}
			}
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "heartbeat: ping: ") }},
		{"not HTTP", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
		}, func(t *testing.T, err error) {
			require.ErrorContains(t, err, ": net/http: HTTP/1.x transport connection broken: malformed HTTP response")
		}},
		{"proxy wants a password", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, "heartbeat: server answered 407 Proxy Authentication Required")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			base, requests := rawServer(t, row.handle)
			result, lines := beatOnce(t, newPinger(t, base+"/ping/"+uuid, &heartbeat.HTTPOptions{Timeout: row.timeout, RedactURL: true}))
			row.check(t, result.Err)
			require.Len(t, lines, 1)
			require.NotContains(t, fmt.Sprint(errorTexts(result.Err), lines), uuid)
			require.Equal(t, int32(1), requests.Load(), "what has left is not repeated")
		})
	}
}

// P2, P5, P7 over HTTP/2.
func TestTroubleHTTP2(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		timeout time.Duration
		handle  http.HandlerFunc
		check   func(t *testing.T, err error)
	}{
		{"stream reset before the headers", 0, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(t *testing.T, err error) {
			require.ErrorContains(t, err, "stream error")
		}},
		{"stream reset in the body", 0, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "OK")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, func(t *testing.T, err error) {
			require.ErrorContains(t, err, "reading the answer's body: stream error")
		}},
		{"no answer", 250 * time.Millisecond, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}},
		{"half the body", 250 * time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "OK")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"endless body", 0, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 4096)); err != nil {
					return
				}
			}
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1); r.URL.Path == "/first" {
					return
				}
				row.handle(w, r)
			}))
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			opts := &heartbeat.HTTPOptions{Client: server.Client(), Timeout: row.timeout, RedactURL: true}
			require.NoError(t, newPinger(t, server.URL+"/first", &heartbeat.HTTPOptions{Client: server.Client()}).Ping(t.Context())) // and so on a kept connection
			result, lines := beatOnce(t, newPinger(t, server.URL+"/ping/"+uuid, opts))
			row.check(t, result.Err)
			require.NotContains(t, fmt.Sprint(errorTexts(result.Err), lines), uuid)
			require.Equal(t, int32(2), requests.Load(), "what has left is not repeated")
		})
	}
}

// P1, P2: a compressed answer is judged by what it says, whatever it unpacks to.
func TestCompressedAnswer(t *testing.T) {
	t.Parallel()
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(body)
	}))
	defer server.Close()
	p := newPinger(t, server.URL, nil)
	packed := func(text string) []byte {
		var buf bytes.Buffer
		w := gzip.NewWriter(&buf)
		_, _ = io.WriteString(w, text)
		require.NoError(t, w.Close())
		return buf.Bytes()
	}
	body = packed("OK")
	require.NoError(t, p.Ping(t.Context()))
	body = packed("OK (not found)")
	require.ErrorIs(t, p.Ping(t.Context()), heartbeat.ErrNotAccepted)
	body = packed(strings.Repeat("x", 1<<20))
	require.NoError(t, p.Ping(t.Context()))
	body = []byte("OK (not found)")
	require.ErrorIs(t, p.Ping(t.Context()), gzip.ErrHeader)
}

// drip writes a byte now and then until the client has had enough.
func drip(conn net.Conn) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if _, err := io.WriteString(conn, "x"); err != nil {
			return
		}
	}
}

// flood writes until the client has had enough.
func flood(conn net.Conn) {
	chunk := strings.Repeat("x", 4096)
	for {
		if _, err := io.WriteString(conn, chunk); err != nil {
			return
		}
	}
}

// P2: no more than the first 64 bytes and 64 KiB of a body are read, and it is
// closed.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	for _, code := range []int{200, 404} {
		body := &endlessBody{}
		p := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
			resp := answerWith(req, code, nil, "")
			resp.Body, resp.ContentLength = body, -1
			return resp, nil
		}))
		_ = p.Ping(t.Context())
		require.LessOrEqual(t, body.read, 64+64<<10)
		require.GreaterOrEqual(t, body.read, 64<<10, "an ordinary answer is read to its end")
		require.True(t, body.closed)
	}
}

type endlessBody struct {
	read   int
	closed bool
}

func (b *endlessBody) Read(p []byte) (int, error) {
	b.read += len(p)
	return len(p), nil
}

func (b *endlessBody) Close() error {
	b.closed = true
	return nil
}

// P3: ten redirects are followed, no more; a loop ends.
func TestRedirectLimit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		redirects, requests int
		want                string
	}{
		{1, 2, ""},
		{10, 11, ""},
		{11, 11, "stopped after 10 redirects"},
		{1 << 30, 11, "stopped after 10 redirects"},
	} {
		t.Run(strconv.Itoa(row.redirects), func(t *testing.T) {
			t.Parallel()
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests++; requests <= row.redirects {
					http.Redirect(w, r, "/ping/"+uuid, http.StatusFound)
				}
			}))
			defer server.Close()
			err := newPinger(t, server.URL+"/ping/"+uuid, nil).Ping(t.Context())
			if row.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: %s", server.URL, row.want))
			}
			require.Equal(t, row.requests, requests)
		})
	}
}

// P3: from https to http no redirect is followed, nor to another scheme.
func TestRedirectToPlainHTTP(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("pinged over http") }))
	defer plain.Close()
	target := plain.URL + "/" + uuid
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusMovedPermanently) }))
	defer secure.Close()
	err := newPinger(t, secure.URL, &heartbeat.HTTPOptions{Client: secure.Client()}).Ping(t.Context())
	require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: refused a redirect from https to http", secure.URL))

	target = "ftp://ftp.example/" + uuid
	plain.Config.Handler = secure.Config.Handler
	err = newPinger(t, plain.URL, nil).Ping(t.Context())
	require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: unsupported protocol scheme", plain.URL))
}

// newCertificate makes a certificate for name, valid until then, and a pool that
// trusts it.
func newCertificate(t *testing.T, name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: until.AddDate(-1, 0, 0), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// P5, P7: what is wrong with a certificate can be told by errors.As, the error
// does not hold the URL, and no request leaves.
func TestTLSTrouble(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, certFor string
		until         time.Time
		untrusted     bool
		check         func(t *testing.T, err error)
	}{
		{"expired", "localhost", time.Now().AddDate(0, 0, -1), false, func(t *testing.T, err error) {
			invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, x509.Expired, invalid.Reason)
		}},
		{"wrong host", "other.example", time.Now().AddDate(0, 1, 0), false, func(t *testing.T, err error) {
			_, ok := errors.AsType[x509.HostnameError](err)
			require.True(t, ok, "%v", err)
		}},
		{"unknown authority", "localhost", time.Now().AddDate(0, 1, 0), true, func(t *testing.T, err error) {
			_, ok := errors.AsType[x509.UnknownAuthorityError](err)
			require.True(t, ok, "%v", err)
			_, ok = errors.AsType[*tls.CertificateVerificationError](err)
			require.True(t, ok, "%v", err)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cert, pool := newCertificate(t, row.certFor, row.until)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request left") }))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			server.StartTLS()
			defer server.Close()
			if row.untrusted {
				pool = x509.NewCertPool()
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
			_, port, err := net.SplitHostPort(server.Listener.Addr().String())
			require.NoError(t, err)
			result, lines := beatOnce(t, newPinger(t, "https://localhost:"+port+"/ping/"+uuid, &heartbeat.HTTPOptions{
				Client: &http.Client{Transport: transport}, Timeout: 900 * time.Millisecond, RedactURL: true,
			}))
			row.check(t, result.Err)
			require.Len(t, lines, 1)
			require.NotContains(t, fmt.Sprint(errorTexts(result.Err), lines), uuid)
		})
	}
	t.Run("plain HTTP", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request left") }))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		defer server.Close()
		p := newPinger(t, strings.Replace(server.URL, "http", "https", 1), &heartbeat.HTTPOptions{Timeout: 900 * time.Millisecond})
		require.ErrorContains(t, p.Ping(t.Context()), "server gave HTTP response to HTTPS client")
	})
}

// P5, P7: a proxy that refuses the tunnel, and a proxy that answers for itself.
func TestProxyTrouble(t *testing.T) {
	t.Parallel()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	proxyURL.User = url.UserPassword("me", "hunter22")
	transport := &http.Transport{Proxy: http.ProxyURL(proxyURL)}
	defer transport.CloseIdleConnections()
	opts := &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}, Timeout: 900 * time.Millisecond}

	err = newPinger(t, "https://server.invalid/"+uuid, opts).Ping(t.Context())
	require.EqualError(t, err, `heartbeat: ping: Get "https://server.invalid": Proxy Authentication Required`)
	err = newPinger(t, "http://server.invalid/"+uuid, opts).Ping(t.Context())
	require.EqualError(t, err, "heartbeat: server answered 407 Proxy Authentication Required")
}

// P5: malformed answers are quoted by net/http, and repeat whatever the server
// puts there; also what comes out escaped, or cut short.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	const echoed = "/ping/s3cr\"et-töken/abc"
	for _, answer := range []string{
		"%s\r\n\r\n",
		"HTTP/1.1 %s\r\n\r\n",
		"HTTP/1.1 2%s0 OK\r\n\r\n",
		"HTTP/%s 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
		"HTTP/1.1 200 OK\r\n %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\n: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\n(%s): x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length, %s\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%s\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://[%s\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: http://host%%zz%s\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: ://%s\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nOK (%s)",
		"HTTP/1.1 200 OK\r\n\r\nOK (........................................................%s)",
	} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			for _, echo := range []string{echoed, "s3cr\"et-töken", "S3CR\"ET-TÖKEN", "s3cr%22et-t%C3%B6ken"} {
				base, requests := rawServer(t, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
					_, _ = fmt.Fprintf(conn, answer, echo)
				})
				err := newPinger(t, base+echoed, nil).Ping(t.Context())
				require.Error(t, err)
				for _, text := range errorTexts(err) {
					text = strings.ToLower(text)
					require.NotContains(t, text, "s3cr")
					require.NotContains(t, text, "öken")
					require.NotContains(t, text, "b6ken")
				}
				require.Equal(t, int32(1), requests.Load())
			}
		})
	}
}

// ---- P7: what never left is tried again ---------------------------------------

// pipeTransport is an http.Transport without a network: dial gets the number of
// the connection and serves its other end. It must be closed within the bubble.
func pipeTransport(serve func(n int, conn net.Conn) error) *http.Transport {
	var n atomic.Int32
	return &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		if err := serve(int(n.Add(1)), server); err != nil {
			return nil, err
		}
		return client, nil
	}}
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// P7: a ping that never left goes out again after 1 s and after 3 s more, within
// its deadline; one that may have left does not.
func TestRetryOfWhatNeverLeft(t *testing.T) {
	t.Parallel()
	dnsError := &net.DNSError{Err: "no such host", Name: "server.example", IsNotFound: true}
	type attempt func(req *http.Request) (*http.Response, error)
	fails := func(err error) attempt {
		return func(*http.Request) (*http.Response, error) { return nil, err }
	}
	accepts := func(req *http.Request) (*http.Response, error) { return answerWith(req, 200, nil, "OK"), nil }
	for _, row := range []struct {
		name    string
		timeout time.Duration
		fail    []attempt // one for each attempt; the last one goes on
		want    []time.Duration
		wantErr string
	}{
		{"refused", 0, []attempt{fails(refused())}, []time.Duration{0, time.Second, 4 * time.Second}, "connection refused"},
		{"DNS", 0, []attempt{fails(dnsError)}, []time.Duration{0, time.Second, 4 * time.Second}, "no such host"},
		{"certificate", 0, []attempt{fails(&tls.CertificateVerificationError{Err: errors.New("expired")})}, []time.Duration{0, time.Second, 4 * time.Second}, "expired"},
		{"not TLS", 0, []attempt{fails(tls.RecordHeaderError{Msg: "not TLS"})}, []time.Duration{0, time.Second, 4 * time.Second}, "not TLS"},
		{"second succeeds", 0, []attempt{fails(refused()), accepts}, []time.Duration{0, time.Second}, ""},
		{"third succeeds", 0, []attempt{fails(refused()), fails(refused()), accepts}, []time.Duration{0, time.Second, 4 * time.Second}, ""},
		{"second leaves", 0, []attempt{fails(refused()), fails(io.ErrUnexpectedEOF)}, []time.Duration{0, time.Second}, "unexpected EOF"},
		{"write", 0, []attempt{fails(&net.OpError{Op: "write", Err: syscall.EPIPE})}, []time.Duration{0}, "broken pipe"},
		{"read", 0, []attempt{fails(&net.OpError{Op: "read", Err: syscall.ECONNRESET})}, []time.Duration{0}, "connection reset"},
		{"unknown", 0, []attempt{fails(errors.New("boom"))}, []time.Duration{0}, "boom"},
		{"status", 0, []attempt{func(req *http.Request) (*http.Response, error) { return answerWith(req, 500, nil, ""), nil }}, []time.Duration{0}, "500"},
		{"not accepted", 0, []attempt{func(req *http.Request) (*http.Response, error) { return answerWith(req, 200, nil, "OK (x)"), nil }}, []time.Duration{0}, "OK (x)"},
		{"deadline before the first retry", time.Second, []attempt{fails(refused())}, []time.Duration{0}, "connection refused"},
		{"deadline before the second retry", 4 * time.Second, []attempt{fails(refused())}, []time.Duration{0, time.Second}, "connection refused"},
		{"deadline just after the second retry", 4*time.Second + 1, []attempt{fails(refused())}, []time.Duration{0, time.Second, 4 * time.Second}, "connection refused"},
		{"deadline while dialling", time.Second, []attempt{func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, &net.OpError{Op: "dial", Err: req.Context().Err()}
		}}, []time.Duration{0}, "deadline exceeded"},
		{"redirect to a host that refuses", 0, []attempt{func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 302, http.Header{"Location": {"/elsewhere"}}, ""), nil
		}, fails(refused())}, []time.Duration{0, 0}, "connection refused"}, // the first request left
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var at []time.Duration
				opts := viaFunc(func(req *http.Request) (*http.Response, error) {
					at = append(at, time.Since(start))
					return row.fail[min(len(at), len(row.fail))-1](req)
				})
				opts.Timeout = row.timeout
				err := newPinger(t, "https://server.example", opts).Ping(t.Context())
				if row.wantErr == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, row.wantErr)
				}
				require.Equal(t, row.want, at)
			})
		})
	}
}

// P7 with net/http's own transport, which asks for a connection before it writes.
func TestRetryWithRealTransport(t *testing.T) {
	t.Parallel()
	serveOnce := func(answer string) func(net.Conn) {
		return func(conn net.Conn) {
			defer conn.Close()
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, answer)
		}
	}
	for _, row := range []struct {
		name, url string
		serve     func(n int, conn net.Conn) error
		want      []time.Duration
		wantErr   string
	}{
		{"dial", "http://server.example", func(int, net.Conn) error { return errors.New("no route") }, []time.Duration{0, time.Second, 4 * time.Second}, "no route"},
		{"TLS handshake", "https://server.example", func(_ int, conn net.Conn) error {
			conn.Close()
			return nil
		}, []time.Duration{0, time.Second, 4 * time.Second}, "closed pipe"},
		{"second accepts", "http://server.example", func(n int, conn net.Conn) error {
			if n == 1 {
				return refused()
			}
			go serveOnce("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")(conn)
			return nil
		}, []time.Duration{0, time.Second}, ""},
		{"closed after the request", "http://server.example", func(_ int, conn net.Conn) error {
			go serveOnce("")(conn)
			return nil
		}, []time.Duration{0}, "EOF"},
		{"closed at the request", "http://server.example", func(_ int, conn net.Conn) error {
			conn.Close()
			return nil
		}, []time.Duration{0}, ""},
		{"redirect to a host that refuses", "http://server.example", func(n int, conn net.Conn) error {
			if n > 1 {
				return refused()
			}
			go serveOnce("HTTP/1.1 302 Found\r\nLocation: http://other.example\r\nContent-Length: 0\r\n\r\n")(conn)
			return nil
		}, []time.Duration{0, 0}, "connection refused"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var at []time.Duration
				transport := pipeTransport(func(n int, conn net.Conn) error {
					at = append(at, time.Since(start))
					return row.serve(n, conn)
				})
				defer transport.CloseIdleConnections()
				err := newPinger(t, row.url, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}}).Ping(t.Context())
				if row.name == "second accepts" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, row.wantErr)
				}
				require.Equal(t, row.want, at)
			})
		})
	}
}

// P7, L3: a ctx that ends in the pause ends the ping at once.
func TestCancelBetweenAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, attempts := time.Now(), 0
		p := newPinger(t, "http://server.example", viaFunc(func(*http.Request) (*http.Response, error) {
			attempts++
			return nil, refused()
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		time.AfterFunc(2500*time.Millisecond, cancel)
		require.ErrorIs(t, p.Ping(ctx), syscall.ECONNREFUSED)
		require.Equal(t, 2500*time.Millisecond, time.Since(start))
		require.Equal(t, 2, attempts)

		log := &lineLog{}
		m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Logger: slog.New(log)})
		require.NoError(t, err)
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		require.Equal(t, heartbeat.Failed, m.Beat(ctx).Outcome)
		require.Empty(t, log.lines(), "a ping that was cut short is not logged as failed")
	})
}

// P7 on a real network: nobody listens, so nothing left.
func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	var dials atomic.Int32
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	p := newPinger(t, "http://"+listener.Addr().String()+"/"+uuid, &heartbeat.HTTPOptions{
		Client: &http.Client{Transport: transport}, Timeout: 3 * time.Second, // room for one retry
	})
	err = p.Ping(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.EqualError(t, err, fmt.Sprintf(`heartbeat: ping: Get "http://%[1]s": dial tcp %[1]s: connect: connection refused`, listener.Addr()))
	require.Equal(t, int32(2), dials.Load())
}

// P7 on a kept connection: net/http itself would repeat a GET that broke there
// before the answer, though the server has read it and may have acted on it.
func TestKeptConnectionBreaks(t *testing.T) {
	t.Parallel()
	for range 20 { // what net/http does depends on who is first
		var second atomic.Bool
		base, requests := rawServer(t, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			if second.Load() { // a repeated request, on a new connection
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
			second.Store(true)
			_, _ = http.ReadRequest(in) // and no answer
		})
		p := newPinger(t, base+"/"+uuid, nil)
		require.NoError(t, p.Ping(t.Context()))
		err := p.Ping(t.Context())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: connection lost before the answer: unexpected EOF", base))
		require.Equal(t, int32(1), requests.Load(), "the lost one is not repeated") // the second is read by the handler
	}
}

// P7 with HTTP/2: what a server has refused, net/http would repeat.
func TestRefusedByHTTP2(t *testing.T) {
	t.Parallel()
	frame := func(kind byte, stream uint32, payload ...byte) []byte {
		b := []byte{0, 0, byte(len(payload)), kind, 0}
		return append(binary.BigEndian.AppendUint32(b, stream), payload...)
	}
	const headers, resetStream, settings, goAway = 1, 3, 4, 7
	for name, refusal := range map[string][]byte{
		"REFUSED_STREAM": frame(resetStream, 1, 0, 0, 0, 7),
		"GOAWAY":         frame(goAway, 0, 0, 0, 0, 0, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, pool := newCertificate(t, "localhost", time.Now().AddDate(0, 1, 0))
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
			require.NoError(t, err)
			var accepting, serving sync.WaitGroup
			var conns []net.Conn
			var requests atomic.Int32
			accepting.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					conns = append(conns, conn)
					serving.Go(func() {
						in := bufio.NewReader(conn)
						_, _ = io.CopyN(io.Discard, in, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
						_, _ = conn.Write(frame(settings, 0))
						for {
							head := make([]byte, 9)
							if _, err := io.ReadFull(in, head); err != nil {
								return
							}
							_, _ = io.CopyN(io.Discard, in, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
							if head[3] == headers {
								requests.Add(1)
								_, _ = conn.Write(refusal)
							}
						}
					})
				}
			})
			_, port, _ := net.SplitHostPort(listener.Addr().String())
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
			base := "https://localhost:" + port
			err = newPinger(t, base+"/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}}).Ping(t.Context())
			require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: connection lost before the answer: unexpected EOF", base))
			require.NotErrorIs(t, err, context.Canceled)
			require.Equal(t, int32(1), requests.Load())
			transport.CloseIdleConnections()
			listener.Close()
			accepting.Wait()
			for _, conn := range conns {
				conn.Close()
			}
			serving.Wait()
		})
	}
}

// P7: a kept connection that the server has closed in the meantime costs nothing.
func TestKeptConnectionClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		transport := pipeTransport(func(n int, conn net.Conn) error {
			dials.Store(int32(n))
			go func() {
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
			}()
			return nil
		})
		p := newPinger(t, "http://server.example", &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}})
		for n := range 3 {
			require.NoError(t, p.Ping(t.Context()))
			require.Equal(t, int32(n+1), dials.Load())
			synctest.Wait()
		}
	})
}

// P7: a pinger's own client keeps a connection for less than MinInterval, so that
// no beat goes out on one that the server is about to close; CloseIdleConnections
// closes it, which a caller's client is spared.
func TestKeptConnectionTimesOut(t *testing.T) { // not parallel: it changes http.DefaultTransport
	defer func(old http.RoundTripper) { http.DefaultTransport = old }(http.DefaultTransport)
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int32
		transport := pipeTransport(func(_ int, conn net.Conn) error {
			go func() {
				in := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(in); err != nil {
						closed.Add(1)
						conn.Close()
						return
					}
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
				}
			}()
			return nil
		})
		http.DefaultTransport = transport
		own := newPinger(t, "http://server.example", nil)
		require.NoError(t, own.Ping(t.Context()))
		synctest.Wait()
		require.Zero(t, closed.Load())
		time.Sleep(heartbeat.MinInterval - 1) // on the bubble's clock
		synctest.Wait()
		require.Equal(t, int32(1), closed.Load())

		require.NoError(t, own.Ping(t.Context()))
		own.CloseIdleConnections()
		synctest.Wait()
		require.Equal(t, int32(2), closed.Load())

		theirs := newPinger(t, "http://server.example", &heartbeat.HTTPOptions{Client: &http.Client{}})
		require.NoError(t, theirs.Ping(t.Context()))
		theirs.CloseIdleConnections()
		synctest.Wait()
		require.Equal(t, int32(2), closed.Load())
		transport.CloseIdleConnections()
	})
}

// The pinger works where http.DefaultTransport is not a *http.Transport.
func TestForeignDefaultTransport(t *testing.T) { // not parallel: it changes http.DefaultTransport
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	defer func(old http.RoundTripper) { http.DefaultTransport = old }(http.DefaultTransport)
	http.DefaultTransport = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("not mine") })
	require.NoError(t, newPinger(t, server.URL, nil).Ping(t.Context()))
}

// ---- Retry-After --------------------------------------------------------------

// S6: what RetryAfter holds.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const date = "Tue, 24 Nov 2026 08:00:00 GMT"
	for _, row := range []struct {
		code        int
		value, date string
		want        time.Duration
	}{
		{429, "30", "", 30 * time.Second},
		{503, "30", "", 30 * time.Second},
		{429, " 30 ", "", 30 * time.Second},
		{429, "0", "", 0},
		{429, "3600", "", time.Hour},
		{429, "3601", "", time.Hour},
		{429, "99999999999999999999999999", "", time.Hour},
		{429, "Tue, 24 Nov 2026 08:05:00 GMT", date, 5 * time.Minute},
		{429, "Tuesday, 24-Nov-26 08:05:00 GMT", date, 5 * time.Minute},
		{503, "Tue, 24 Nov 2026 09:00:01 GMT", date, time.Hour},
		{503, "Tue, 24 Nov 2026 07:59:59 GMT", date, 0},
		{429, "Fri, 31 Dec 9999 23:59:59 GMT", "", time.Hour},
		{429, "Fri, 31 Dec 9999 23:59:59 GMT", "no date", time.Hour},
		{429, "Sat, 01 Jan 2000 00:00:00 GMT", "", 0},
		{429, "-30", "", 0},
		{429, "+30", "", 0},
		{429, "1.5", "", 0},
		{429, "soon", "", 0},
		{429, "", "", 0},
		{408, "30", "", 0},
		{425, "30", "", 0},
		{500, "30", "", 0},
		{502, "30", "", 0},
		{504, "30", "", 0},
		{404, "30", "", 0},
	} {
		t.Run(fmt.Sprintf("%d %s %s", row.code, row.value, row.date), func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil // none
				if row.date != "" {
					w.Header().Set("Date", row.date)
				}
				w.Header().Set("Retry-After", row.value)
				w.WriteHeader(row.code)
			}))
			defer server.Close()
			status, ok := errors.AsType[*heartbeat.StatusError](newPinger(t, server.URL, nil).Ping(t.Context()))
			require.True(t, ok)
			require.Equal(t, heartbeat.StatusError{Code: row.code, RetryAfter: row.want}, *status)
		})
	}
}

// S6: without a Date of the server's, a date is taken against our own clock.
func TestRetryAfterDateWithoutDate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
			after := time.Now().UTC().Add(7 * time.Minute).Format(http.TimeFormat)
			return answerWith(req, 503, http.Header{"Retry-After": {after}}, ""), nil
		}))
		require.EqualError(t, p.Ping(t.Context()), "heartbeat: server answered 503 Service Unavailable, retry after 7m0s")
	})
}

// S6: a Retry-After pushes back the next attempt on its own target, by an hour at
// most, and no other.
func TestRetryAfterDelaysItsTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		code  int
		after string
		want  []time.Duration
	}{
		{429, "30", []time.Duration{0, time.Minute}},
		{429, "150", []time.Duration{0, 150 * time.Second}},
		{503, "150", []time.Duration{0, 150 * time.Second}},
		{500, "150", []time.Duration{0, time.Minute}},
		{429, "600", []time.Duration{0, 10 * time.Minute}},
		{429, "7200", []time.Duration{0, time.Hour}},
	} {
		t.Run(fmt.Sprint(row.code, " ", row.after), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var busy, other []time.Duration
				busyPinger := newPinger(t, "http://busy.example", viaFunc(func(req *http.Request) (*http.Response, error) {
					if busy = append(busy, time.Since(start)); len(busy) == 1 {
						return answerWith(req, row.code, http.Header{"Retry-After": {row.after}}, ""), nil
					}
					return answerWith(req, 200, nil, "OK"), nil
				}))
				otherPinger := heartbeat.PingerFunc(func(context.Context) error {
					other = append(other, time.Since(start))
					return nil
				})
				runFor(t, 61*time.Minute, heartbeat.MultiPinger(busyPinger, otherPinger), &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: 24 * time.Hour})
				require.Equal(t, row.want, busy[:2])
				require.Len(t, other, 13)
				for k, at := range other {
					require.Equal(t, time.Duration(k)*5*time.Minute, at)
				}
			})
		})
	}
}

// S6: a Beat does not get past a Retry-After either.
func TestRetryAfterHoldsBeat(t *testing.T) {
	t.Parallel()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	code, pings := 429, 0
	p := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
		pings++
		return answerWith(req, code, http.Header{"Retry-After": {"5400"}}, ""), nil
	}))
	m, err := heartbeat.New(p, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: clock, MaxSyncAge: 24 * time.Hour, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
	code = 200
	clock.Advance(time.Hour - 1)
	result := m.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonRateLimited, result.Reason)
	require.Equal(t, 1, pings)
	clock.Advance(1)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Equal(t, 2, pings)
}

// runFor runs a Monitor of p over a healthy database, in a synctest bubble.
func runFor(t *testing.T, d time.Duration, p heartbeat.Pinger, opts *heartbeat.Options) []string {
	t.Helper()
	log := &lineLog{}
	opts.Logger = slog.New(log)
	m, err := heartbeat.New(p, fresh(), opts)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.NoError(t, m.Run(ctx))
	return log.lines()
}

// ---- Redirects and headers ----------------------------------------------------

// P3: what the options' headers say stays on the URL's host and port, the ping
// URL is in no Referer, and a host that is not the first one gets a plain request.
func TestHeadersOnRedirect(t *testing.T) {
	t.Parallel()
	header := http.Header{
		"Authorization": {"Bearer s3cr3t-t0ken"}, "X-Api-Key": {"k3y-of-the-service"}, "x-small": {"s3cr3t-small"}, "Cookie": {"session=s3cr3t"},
		"Proxy-Authorization": {"Basic s3cr3t"}, "Referer": {"http://me.example/s3cr3t"}, "User-Agent": {"s3cr3t-agent"}, "Host": {"s3cr3t-virtual.example"},
	}
	type seen struct{ host, path string }
	for _, location := range []string{"http://localhost:{port}/b", "http://127.0.0.1:{other}/b", "http://127.0.0.1:{port}/same", "/same"} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			var requests []seen
			var headers []http.Header
			handler := func(w http.ResponseWriter, r *http.Request) {
				requests = append(requests, seen{r.Host, r.URL.Path})
				headers = append(headers, r.Header)
				if strings.HasPrefix(r.URL.Path, "/ping") {
					http.Redirect(w, r, w.Header().Get("To"), http.StatusFound)
				}
			}
			var to string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("To", to)
				handler(w, r)
			}))
			defer server.Close()
			other := httptest.NewServer(http.HandlerFunc(handler))
			defer other.Close()
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			_, otherPort, _ := net.SplitHostPort(other.Listener.Addr().String())
			to = strings.NewReplacer("{port}", port, "{other}", otherPort).Replace(location)

			pingURL := strings.Replace(server.URL, "http://", "http://me:hunter22@", 1) + "/ping/" + uuid + "?token=s3cr3t"
			opts := &heartbeat.HTTPOptions{Header: header.Clone()}
			opts.Header.Del("Authorization")
			require.NoError(t, newPinger(t, pingURL, opts).Ping(t.Context())) // with the URL's password
			require.NoError(t, newPinger(t, pingURL, &heartbeat.HTTPOptions{Header: header}).Ping(t.Context()))

			require.Len(t, requests, 4)
			require.Equal(t, "s3cr3t-virtual.example", requests[0].host)
			require.Equal(t, "Basic "+base64.StdEncoding.EncodeToString([]byte("me:hunter22")), headers[0].Get("Authorization"))
			require.Equal(t, "Bearer s3cr3t-t0ken", headers[2].Get("Authorization"))
			for _, i := range []int{1, 3} {
				require.NotContains(t, headers[i].Get("Referer"), "127.0.0.1")
				if requests[i].path == "/same" {
					require.Equal(t, header["X-Api-Key"], headers[i]["X-Api-Key"])
					require.Equal(t, header["x-small"], headers[i]["X-Small"])
					require.Equal(t, header["Cookie"], headers[i]["Cookie"])
					require.Equal(t, "s3cr3t-agent", headers[i].Get("User-Agent"))
					continue
				}
				require.Equal(t, "/b", requests[i].path)
				require.NotContains(t, requests[i].host, "s3cr3t")
				require.Equal(t, http.Header{
					"Accept-Encoding": {"gzip"}, "User-Agent": {"go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"},
				}, headers[i])
			}
			if requests[3].path == "/same" {
				require.Equal(t, "Bearer s3cr3t-t0ken", headers[3].Get("Authorization"))
			}
		})
	}
}

// P3: a redirect from another host back to the first brings the headers back, and
// one from http to https on the same host keeps them.
func TestHeadersOnRedirectAndBack(t *testing.T) {
	t.Parallel()
	var got []string
	p := newPinger(t, "http://a.example/1", &heartbeat.HTTPOptions{
		Header: http.Header{"X-Api-Key": {"k3y"}, "Host": {"virtual.example"}},
		Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.Empty(t, req.Header.Get("Referer"))
			got = append(got, strings.TrimSpace(req.URL.String()+" "+req.Header.Get("X-Api-Key")+" "+req.Host))
			if next := map[string]string{"/1": "http://b.example/2", "/2": "/3", "/3": "http://A.example:80/4", "/4": "https://a.example/5"}[req.URL.Path]; next != "" {
				return answerWith(req, 307, http.Header{"Location": {next}}, ""), nil
			}
			return answerWith(req, 200, nil, "OK"), nil
		})},
	})
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, []string{"http://a.example/1 k3y virtual.example", "http://b.example/2", "http://b.example/3", "http://A.example:80/4 k3y", "https://a.example/5 k3y"}, got)
}

// P3: the caller's CheckRedirect is asked as well, after ours, and may end it.
func TestCallersCheckRedirect(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			http.Redirect(w, r, "/next", http.StatusFound)
		}
	}))
	defer server.Close()
	errTheirs := errors.New("no redirects here")
	for _, row := range []struct {
		theirs error
		want   string
	}{
		{nil, ""},
		{errTheirs, fmt.Sprintf("heartbeat: ping: Get %q: no redirects here", server.URL)},
		{http.ErrUseLastResponse, "heartbeat: server answered 302 Found"},
	} {
		calls := 0
		client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
			calls++
			require.Equal(t, "/next", req.URL.Path)
			require.Len(t, via, 1)
			return row.theirs
		}}
		err := newPinger(t, server.URL+"/ping", &heartbeat.HTTPOptions{Client: client}).Ping(t.Context())
		require.Equal(t, 1, calls)
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, row.want)
		require.Equal(t, row.theirs == errTheirs, errors.Is(err, errTheirs))
	}
}

// exported lists the exported fields of a struct: plain ones and slices by value,
// the others by what they point to.
func exported(v any) map[string]string {
	fields := map[string]string{}
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Name, value.Field(i)
		if !value.Type().Field(i).IsExported() {
			continue
		}
		if field.Kind() == reflect.Interface {
			field = field.Elem()
		}
		switch field.Kind() {
		case reflect.Func, reflect.Pointer, reflect.Map, reflect.Chan:
			fields[name] = fmt.Sprint(field.Pointer())
		case reflect.Invalid:
			fields[name] = "nil"
		default:
			fields[name] = fmt.Sprintf("%#v", field.Interface())
		}
	}
	return fields
}

// P3 (and issue 3): the caller's client, its transport and http.DefaultTransport
// are left as they were.
func TestCallersClientIsNotModified(t *testing.T) { // not parallel: others use http.DefaultTransport
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		if r.URL.Path == "/ping" {
			http.Redirect(w, r, "/next", http.StatusFound)
		}
	}))
	defer server.Close()
	client := server.Client()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client.Jar, client.Timeout = jar, time.Minute
	transport := client.Transport.(*http.Transport)
	std := http.DefaultTransport.(*http.Transport)
	_ = std.Clone() // what net/http sets up at a transport's first use is not ours
	_ = transport.Clone()
	header := http.Header{"x-api-key": {"k3y"}}
	opts := &heartbeat.HTTPOptions{Client: client, Header: header, Method: "get"}

	before := []map[string]string{exported(client), exported(transport), exported(transport.TLSClientConfig), exported(std), exported(opts), exported(http.DefaultClient)}
	for range 2 {
		p, err := heartbeat.NewHTTPPinger(server.URL+"/ping", opts)
		require.NoError(t, err)
		require.NoError(t, p.Ping(t.Context()))
		p.CloseIdleConnections()
		own, err := heartbeat.NewHTTPPinger(server.URL+"/ping", nil)
		require.NoError(t, err)
		own.CloseIdleConnections()
	}
	after := []map[string]string{exported(client), exported(transport), exported(transport.TLSClientConfig), exported(std), exported(opts), exported(http.DefaultClient)}
	require.Equal(t, before, after)
	require.Same(t, transport, client.Transport)
	require.Nil(t, client.CheckRedirect)
	require.Equal(t, http.Header{"x-api-key": {"k3y"}}, header)
}

// ---- Credentials --------------------------------------------------------------

// P5: no fault of a server or transport brings a credential of any service's URL
// or header into an error, a log line, a Status, a Result or a printed value.
func TestCredentials(t *testing.T) {
	t.Parallel()
	services := []struct {
		url     string
		header  http.Header
		secrets []string
	}{
		{"https://hc.example/ping/" + uuid, nil, []string{uuid}},
		{"https://hc.example/ping/" + apikey + "/my-slug?create=1", nil, []string{apikey, "my-slug"}},
		{"https://hc-ping.example/" + uuid + "/fail", nil, []string{uuid}},
		{"https://cronitor.example/p/" + apikey + "/nightly-job?state=complete", nil, []string{apikey, "nightly-job", "complete"}},
		{"https://uptime.example/api/v1/heartbeat/" + apikey + "/fail", nil, []string{apikey}},
		{"https://nosnch.example/c0ffee1234?m=all%20good&t=tok%20en1", nil, []string{"c0ffee1234", "all%20good", "all good", "tok%20en1", "tok en1"}},
		{"https://kuma.example/api/push/kumaT0ken?status=down&msg=OK&ping=", nil, []string{"kumaT0ken", "down"}},
		{"https://gatus.example/api/v1/endpoints/core_app/external?success=true", http.Header{"Authorization": {"Bearer gatusT0ken"}}, []string{"core_app", "gatusT0ken"}},
		{"https://opsgenie.example/v2/heartbeats/my-heartbeat/ping", http.Header{"Authorization": {"GenieKey 0p5g3n1e-key"}, "x-other": {"0ther-key"}}, []string{"my-heartbeat", "0p5g3n1e-key", "0ther-key"}},
		{"https://sentry.example/api/42/cron/my-monitor/5entryKey/?status=ok", nil, []string{"my-monitor", "5entryKey"}},
		{"https://me-user:hunter22@any.example/p%41thy/b%2Fcd?tok%65n=querySecr%65t&bareS3cret;x#fragS3cret", nil, []string{
			"hunter22", "me-user", "p%41thy", "pAthy", "b%2Fcd", "querySecr%65t", "querySecret", "bareS3cret", "fragS3cret", base64.StdEncoding.EncodeToString([]byte("me-user:hunter22")),
		}},
		{"http://hc:8000/x/xhcyhcz", nil, []string{"xhcyhcz"}}, // the host's name is in the path
		{"http://hc:8000/x/y?t=hchchc", nil, []string{"hchchc"}},
		{"http://ping-host/ping-host/" + apikey + "/host", nil, []string{apikey, "ping-host/" + apikey}},
	}
	// Each fault gets the request and a text that repeats all that a request holds.
	faults := map[string]roundTripFunc{
		"error":         func(req *http.Request) (*http.Response, error) { return nil, errors.New(dump(req)) },
		"wrapped error": func(req *http.Request) (*http.Response, error) { return nil, &quietError{errors.New(dump(req))} },
		"joined error": func(req *http.Request) (*http.Response, error) {
			return nil, &quietErrors{errors.New("harmless"), errors.New(dump(req))}
		},
		"URL error": func(req *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("upstream: %w", &url.Error{Op: "Get", URL: req.URL.String(), Err: context.DeadlineExceeded})
		},
		"refused": func(*http.Request) (*http.Response, error) { return nil, refused() },
		"timeout": func(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded },
		"DNS": func(req *http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: dump(req), Name: req.URL.Hostname()}
		},
		"TLS": func(req *http.Request) (*http.Response, error) {
			return nil, &tls.CertificateVerificationError{Err: errors.New(dump(req))}
		},
		"panic":    func(req *http.Request) (*http.Response, error) { panic(dump(req)) },
		"panic(v)": func(req *http.Request) (*http.Response, error) { panic(req.URL) },
		"panic(h)": func(req *http.Request) (*http.Response, error) { panic(req.Header) },
		"token only": func(req *http.Request) (*http.Response, error) {
			words := strings.Fields(req.Header.Get("Authorization"))
			return nil, fmt.Errorf("bad token %v", words[min(1, len(words)):])
		},
		"nothing": func(*http.Request) (*http.Response, error) { return nil, nil },
		"404 page": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 404, http.Header{"X-Url": {req.URL.String()}}, dump(req)), nil
		},
		"503 page": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 503, http.Header{"Retry-After": {dump(req)}}, dump(req)), nil
		},
		"not accepted": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 200, nil, "OK ("+strings.TrimPrefix(req.URL.Path, "/")+")"), nil
		},
		"not accepted, cut": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 200, nil, "OK ("+strings.Repeat(".", 50)+dump(req)+")"), nil
		},
		"body error": func(req *http.Request) (*http.Response, error) {
			resp := answerWith(req, 200, nil, "")
			resp.Body, resp.ContentLength = io.NopCloser(&failingReader{errors.New(dump(req))}), -1
			return resp, nil
		},
		"redirect elsewhere": func(req *http.Request) (*http.Response, error) {
			if req.URL.Hostname() == "elsewhere.example" {
				return nil, fmt.Errorf("lost at %s", req.URL)
			}
			return answerWith(req, 302, http.Header{"Location": {"https://elsewhere.example" + req.URL.RequestURI()}}, ""), nil
		},
		"redirect loop": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 302, http.Header{"Location": {req.URL.String()}}, ""), nil
		},
		"redirect to plain": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 302, http.Header{"Location": {strings.Replace(req.URL.String(), "https", "http", 1)}}, ""), nil
		},
		"redirect to a bad URL": func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 302, http.Header{"Location": {"https://[" + req.URL.RequestURI()}}, ""), nil
		},
		"fine": func(req *http.Request) (*http.Response, error) { return answerWith(req, 200, nil, "OK"), nil },
	}
	for _, service := range services {
		for name, fault := range faults {
			for _, redact := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/redact=%v", service.url, name, redact), func(t *testing.T) {
					t.Parallel()
					opts := viaFunc(fault)
					opts.RedactURL, opts.Header, opts.Timeout = redact, service.header, 900*time.Millisecond
					p := newPinger(t, service.url, opts)
					log := &lineLog{}
					m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Logger: slog.New(log), FailPinger: p})
					require.NoError(t, err)
					result := m.Beat(t.Context())
					if name != "fine" {
						require.Equal(t, heartbeat.Failed, result.Outcome, "%v", result.Err)
					}
					multi := heartbeat.MultiPinger(p, heartbeat.MultiPinger(p))

					private := errorTexts(result.Err) // what never may have one
					private = append(private, errorTexts(multi.Ping(t.Context()))...)
					for _, v := range []any{result, m.Status(), m, struct{ M *heartbeat.Monitor }{m}, []any{m}} {
						private = append(private, printed(v)...)
					}
					shown := log.lines() // what may have the URL, without RedactURL
					for _, v := range []any{p, *p, multi, struct{ P *heartbeat.HTTPPinger }{p}, struct{ P heartbeat.HTTPPinger }{*p}, []heartbeat.Pinger{p}, p.String()} {
						shown = append(shown, printed(v)...)
					}
					for _, secret := range service.secrets {
						requireNone(t, private, secret)
						if redact {
							requireNone(t, shown, secret)
						}
					}
					requireNone(t, shown, "hunter22")
					for value := range maps.Values(service.header) {
						requireNone(t, shown, value[0])
					}
					if redact {
						u, err := url.Parse(service.url)
						require.NoError(t, err)
						require.Equal(t, u.Scheme+"://"+u.Host, p.String())
					} else {
						require.Equal(t, strings.Replace(service.url, "hunter22", "xxxxx", 1), p.String())
					}
				})
			}
		}
	}
}

// dump has all that a transport can know of a request.
func dump(req *http.Request) string {
	return fmt.Sprintf("%s %s %s %s %v %s", req.URL, req.URL.Path, req.URL.RawQuery, req.URL.Query(), req.Header, req.URL.User)
}

// printed is v in all the ways that package fmt, JSON and log/slog print it.
func printed(v any) (texts []string) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%c", "%U", "%T", "%p"} {
		texts = append(texts, fmt.Sprintf(verb, v))
	}
	if text, err := json.Marshal(v); err == nil {
		texts = append(texts, string(text))
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "v", v)
	return append(texts, buf.String())
}

// requireNone fails if a text has the secret in it, plain, escaped or in hex.
func requireNone(t *testing.T, texts []string, secret string) {
	t.Helper()
	for _, text := range texts {
		for _, form := range []string{secret, url.PathEscape(secret), url.QueryEscape(secret), hex.EncodeToString([]byte(secret)), fmt.Sprintf("% x", secret)} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				require.Fail(t, "a credential is shown", "%q is in %q", form, text)
			}
		}
	}
}

// A quietError says nothing of what it wraps.
type quietError struct{ inner error }

func (e *quietError) Error() string { return "quiet" }
func (e *quietError) Unwrap() error { return e.inner }

type quietErrors []error

func (e *quietErrors) Error() string   { return "quiet" }
func (e *quietErrors) Unwrap() []error { return *e }

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// P5: an HTTPPinger prints as its String, whatever the verb.
func TestPingerFormat(t *testing.T) {
	t.Parallel()
	p := newPinger(t, "https://me:hunter22@host.example/abc", nil)
	require.Equal(t, "https://me:xxxxx@host.example/abc", p.String())
	for verb, want := range map[string]string{"%v": p.String(), "%+v": p.String(), "%s": p.String(), "%q": strconv.Quote(p.String()), "%40s": fmt.Sprintf("%40s", p.String())} {
		require.Equal(t, want, fmt.Sprintf(verb, p))
		require.Equal(t, want, fmt.Sprintf(verb, *p))
	}
	require.Equal(t, "heartbeat.HTTPPinger{}", fmt.Sprint(heartbeat.HTTPPinger{}))
	require.Equal(t, "<nil>", fmt.Sprint((*heartbeat.HTTPPinger)(nil)))
}

// P5: where a part of an error must be withheld, errors.Is goes on working, and
// where nothing must, errors.As does.
func TestErrorsIsAndAs(t *testing.T) {
	t.Parallel()
	ping := func(err error) error {
		opts := viaFunc(func(*http.Request) (*http.Response, error) { return nil, err })
		opts.Timeout = 900 * time.Millisecond
		return newPinger(t, "http://server.example/"+uuid, opts).Ping(t.Context())
	}
	err := ping(&url.Error{Op: "Get", URL: "http://proxy.example/" + uuid, Err: syscall.ECONNRESET})
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": Get`)
	err = ping(fmt.Errorf("fetching %s: %w", uuid, context.DeadlineExceeded))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": (withheld, since it repeats the ping URL)`)
	err = ping(&quietErrors{errors.New("harmless"), io.ErrShortBuffer})
	_, ok := errors.AsType[*quietErrors](err)
	require.True(t, ok)
	err = ping(refused())
	op, ok := errors.AsType[*net.OpError](err)
	require.True(t, ok)
	require.Equal(t, "dial", op.Op)
	urlErr, ok := errors.AsType[*url.Error](err)
	require.True(t, ok)
	require.Equal(t, "http://server.example", urlErr.URL)
	tlsErr, ok := errors.AsType[*tls.CertificateVerificationError](ping(&tls.CertificateVerificationError{Err: errors.New(`not "trusted"`)}))
	require.True(t, ok, "what comes before the request may quote")
	require.ErrorContains(t, tlsErr, `not "trusted"`)
	dns, ok := errors.AsType[*net.DNSError](ping(&net.DNSError{Err: "no such host", Name: "server.example", IsNotFound: true}))
	require.True(t, ok)
	require.True(t, dns.IsNotFound)
}

// ---- Connections --------------------------------------------------------------

// P2: an ordinary answer leaves the connection reusable.
func TestOneConnectionForManyPings(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"OK": "OK", "10 KB": strings.Repeat("x", 10<<10), "error page": strings.Repeat("y", 10<<10)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if name == "error page" {
					w.WriteHeader(http.StatusBadGateway)
				}
				_, _ = io.WriteString(w, body)
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			// net/http gives a connection up when its goroutine that writes has not
			// come to run within 50 ms of real time after the answer. So a starved
			// machine may have another try.
			for try := 1; ; try++ {
				connections.Store(0)
				p := newPinger(t, server.URL+"/"+uuid, nil)
				for range 1000 {
					err := p.Ping(t.Context())
					require.Equal(t, name == "error page", err != nil)
				}
				if connections.Load() == 1 {
					return
				}
				require.Less(t, try, 5, "%d connections", connections.Load())
			}
		})
	}
}

// ---- Several targets ----------------------------------------------------------

// A namedPing is a PingerFunc with a name.
type namedPing struct {
	name string
	heartbeat.PingerFunc
}

func (p namedPing) String() string { return p.name }

// P6, S2, S3: of three targets the second hangs until its timeout. The others are
// pinged while it does, and only it is pinged again a minute later.
func TestOneOfThreeHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		called := func(name string) (n int) {
			mu.Lock()
			defer mu.Unlock()
			at[name] = append(at[name], time.Since(start))
			return len(at[name])
		}
		first, third := make(chan struct{}), make(chan struct{})
		errNotReached := errors.New("the others were not pinged")
		p := heartbeat.MultiPinger(
			namedPing{"first", func(context.Context) error {
				if called("first") == 1 {
					close(first)
				}
				return nil
			}},
			namedPing{"second", func(ctx context.Context) error {
				if called("second") != 1 {
					return nil
				}
				for _, c := range []chan struct{}{first, third} {
					select {
					case <-c:
					case <-ctx.Done():
						return errNotReached
					}
				}
				<-ctx.Done() // the others have arrived, and this one hangs
				return ctx.Err()
			}},
			heartbeat.MultiPinger(namedPing{"third", func(context.Context) error {
				if called("third") == 1 {
					close(third)
				}
				return nil
			}}),
		)
		var results []heartbeat.Result
		lines := runFor(t, 11*time.Minute, p, &heartbeat.Options{
			Interval: 5 * time.Minute, MaxSyncAge: time.Hour, OnResult: func(r heartbeat.Result) { results = append(results, r) },
		})
		grid := []time.Duration{0, 5 * time.Minute, 10 * time.Minute}
		require.Equal(t, map[string][]time.Duration{
			"first": grid, "second": {0, time.Minute, 5 * time.Minute, 10 * time.Minute}, "third": grid,
		}, at)
		require.Len(t, results, 4)
		require.Equal(t, heartbeat.Failed, results[0].Outcome)
		require.EqualError(t, results[0].Err, "second: context deadline exceeded")
		require.ErrorIs(t, results[0].Err, context.DeadlineExceeded)
		for _, r := range results[1:] {
			require.Equal(t, heartbeat.Sent, r.Outcome)
		}
		slices.Sort(lines[:2])
		require.Equal(t, []string{ // L1: one for each check and target
			"INFO heartbeat sent url=first",
			"INFO heartbeat sent url=third",
			"ERROR heartbeat failed url=second error=context deadline exceeded",
			"INFO heartbeat sent url=second",
		}, lines[:4])
		require.Len(t, lines, 10)
	})
}

// P6, S2, S3: a pinger that blocks past its ctx holds up the checks, and so the
// beats, of the others. Nobody is pinged twice for it, and nothing overlaps.
func TestPingerBlocksPastItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var slow, quick []time.Duration
		p := heartbeat.MultiPinger(
			heartbeat.PingerFunc(func(ctx context.Context) error {
				slow = append(slow, time.Since(start))
				time.Sleep(90 * time.Second) // on the bubble's clock
				return ctx.Err()
			}),
			heartbeat.PingerFunc(func(context.Context) error {
				quick = append(quick, time.Since(start))
				return nil
			}),
		)
		runFor(t, 7*time.Minute, p, &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: time.Hour})
		// The grid point at 5:00 falls into the slow one's fourth attempt.
		require.Equal(t, []time.Duration{0, 6 * time.Minute}, quick)
		require.Equal(t, []time.Duration{0, 90 * time.Second, 180 * time.Second, 270 * time.Second, 360 * time.Second}, slow)
	})
}

// P6: MultiPinger without a Monitor: all are pinged, each error is named, a panic
// and an ended goroutine are errors, and nested ones are taken apart.
func TestMultiPinger(t *testing.T) {
	t.Parallel()
	errA, errB := errors.New("a is down"), errors.New("b is down")
	var pings atomic.Int32
	fine := heartbeat.PingerFunc(func(context.Context) error {
		pings.Add(1)
		return nil
	})
	status := newPinger(t, "http://me:hunter22@server.example/"+uuid, viaFunc(func(req *http.Request) (*http.Response, error) {
		return answerWith(req, 410, nil, ""), nil
	}))
	multi := heartbeat.MultiPinger(
		namedPing{"a", func(context.Context) error { return errA }},
		heartbeat.MultiPinger(fine, heartbeat.MultiPinger(), heartbeat.MultiPinger(heartbeat.PingerFunc(func(context.Context) error { return errB }))),
		heartbeat.PingerFunc(func(context.Context) error { panic("oops") }),
		heartbeat.PingerFunc(func(context.Context) error {
			runtime.Goexit()
			return nil
		}),
		status,
		nil,
		panickingName{},
	)
	err := multi.Ping(t.Context())
	require.Equal(t, int32(1), pings.Load())
	require.ErrorIs(t, err, errA)
	require.ErrorIs(t, err, errB)
	code, ok := errors.AsType[*heartbeat.StatusError](err)
	require.True(t, ok)
	require.Equal(t, 410, code.Code)
	require.EqualError(t, err, strings.Join([]string{
		"a: a is down",
		"target 3: b is down",
		"target 4: heartbeat: pinger panicked: oops",
		"target 5: heartbeat: pinger ended its goroutine",
		"http://server.example: heartbeat: server answered 410 Gone",
		"target 7: heartbeat: pinger panicked: runtime error: invalid memory address or nil pointer dereference",
		"target 8: no name",
	}, "\n"))

	for _, empty := range []heartbeat.Pinger{heartbeat.MultiPinger(), heartbeat.MultiPinger(heartbeat.MultiPinger())} {
		require.EqualError(t, empty.Ping(t.Context()), "heartbeat: MultiPinger has no pingers")
		_, err := heartbeat.New(empty, nil, nil)
		require.EqualError(t, err, "heartbeat: MultiPinger has no pingers; give it at least one")
	}
	require.NoError(t, heartbeat.MultiPinger(fine).Ping(t.Context()))
	require.NoError(t, heartbeat.MultiPinger(fine, fine).Ping(t.Context()))
	_, err = heartbeat.New(heartbeat.MultiPinger(fine, nil), nil, nil)
	require.EqualError(t, err, "heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc")

	// A caller's change to its slice does not reach the MultiPinger.
	pingers := []heartbeat.Pinger{fine, fine}
	multi = heartbeat.MultiPinger(pingers...)
	pingers[0], pingers[1] = nil, nil
	require.NoError(t, multi.Ping(t.Context()))
}

type panickingName struct{}

func (panickingName) Ping(context.Context) error { return errors.New("no name") }
func (panickingName) String() string             { panic("no name") }

// P6: a Monitor takes a panic, and a goroutine that a pinger ends, for a failed
// ping of that target, with a log line.
func TestPingerPanics(t *testing.T) {
	t.Parallel()
	p := heartbeat.MultiPinger(
		namedPing{"panics", func(context.Context) error { panic(fmt.Errorf("oops")) }},
		namedPing{"exits", func(context.Context) error {
			runtime.Goexit()
			return nil
		}},
		namedPing{"fine", func(context.Context) error { return nil }},
		(*heartbeat.HTTPPinger)(nil),
		&heartbeat.HTTPPinger{},
	)
	result, lines := beatOnce(t, p)
	require.Equal(t, heartbeat.Failed, result.Outcome)
	const nilPointer = "heartbeat: pinger panicked: runtime error: invalid memory address or nil pointer dereference"
	require.EqualError(t, result.Err, "panics: heartbeat: pinger panicked: oops\nexits: heartbeat: pinger ended its goroutine\n"+
		"target 4: "+nilPointer+"\ntarget 5: "+nilPointer)
	slices.Sort(lines)
	require.Equal(t, []string{
		"ERROR heartbeat failed error=" + nilPointer,
		"ERROR heartbeat failed error=" + nilPointer,
		"ERROR heartbeat failed url=exits error=heartbeat: pinger ended its goroutine",
		"ERROR heartbeat failed url=panics error=heartbeat: pinger panicked: oops",
		"INFO heartbeat sent url=fine",
	}, lines)
}

// ---- Failure signal -----------------------------------------------------------

// signalTest drives a Monitor by Beat on a fake clock.
type signalTest struct {
	*testing.T
	clock    *heartbeattest.Clock
	a, b     *heartbeattest.Reporter
	signal   *heartbeattest.Pinger
	monitor  *heartbeat.Monitor
	log      *lineLog
	reported int
}

func newSignalTest(t *testing.T) *signalTest {
	t.Helper()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := &signalTest{
		T: t, clock: clock, log: &lineLog{}, signal: heartbeattest.NewPinger(clock),
		a: heartbeattest.NewReporter("a.db"), b: heartbeattest.NewReporter("b.db"),
	}
	var err error
	s.monitor, err = heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{s.a}, &heartbeat.Options{
		Clock: clock, Logger: slog.New(s.log), FailPinger: namedPing{"fail", s.signal.Ping},
	})
	require.NoError(t, err)
	return s
}

// beat lets the given databases sync, makes a check two minutes later, and returns
// the log lines of it that are about the signal.
func (s *signalTest) beat(healthy bool, synced ...*heartbeattest.Reporter) (lines []string) {
	s.Helper()
	s.clock.Advance(6 * time.Minute)
	for _, r := range synced {
		r.Set(s.clock.Now())
	}
	result := s.monitor.Beat(s.Context())
	require.Equal(s, healthy, result.Outcome == heartbeat.Sent, "%+v", result)
	all := s.log.lines()
	for _, line := range all[s.reported:] {
		if strings.Contains(line, "heartbeat failure signal") {
			lines = append(lines, line)
		}
	}
	s.reported = len(all)
	return lines
}

// Failure signal: once for each outage, never at start-up.
func TestFailureSignal(t *testing.T) {
	t.Parallel()
	const sent = "INFO heartbeat failure signal sent url=fail"
	s := newSignalTest(t)
	require.Empty(t, s.beat(false), "nothing was healthy yet")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false), "once")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false), "a second outage")
	require.Len(t, s.signal.Times(), 2)
}

// Failure signal: a failed one is tried again at the following checks, until it is
// out or the databases have recovered.
func TestFailureSignalIsRetried(t *testing.T) {
	t.Parallel()
	const sent, failed = "INFO heartbeat failure signal sent url=fail", "ERROR heartbeat failure signal failed url=fail error=no route"
	s := newSignalTest(t)
	s.signal.Fail(errors.New("no route"))
	s.beat(true, s.a)
	require.Equal(t, []string{failed}, s.beat(false))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false))

	s.beat(true, s.a)
	s.signal.Fail(errors.New("no route"))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Empty(t, s.beat(true, s.a), "recovered")
	require.Len(t, s.signal.Times(), 4)
}

// Failure signal: a database that was added later and has never synced was never
// healthy, and so raises no alarm of its own.
func TestFailureSignalOfNewDatabase(t *testing.T) {
	t.Parallel()
	s := newSignalTest(t)
	s.beat(true, s.a)
	require.NoError(t, s.monitor.Add(s.b))
	require.Empty(t, s.beat(false, s.a), "b has never synced")
	require.Len(t, s.beat(false), 1, "a was healthy")
	require.Empty(t, s.beat(true, s.a, s.b))
	require.Len(t, s.beat(false, s.a), 1, "and now b was")
	require.True(t, s.monitor.Remove("b.db"))
	require.Empty(t, s.beat(true, s.a))
}

// Failure signal under Run: a failed one goes out again a minute later, and a
// Retry-After is minded.
func TestFailureSignalUnderRun(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want []time.Duration
	}{
		{errors.New("no route"), []time.Duration{5*time.Minute + 1, 6*time.Minute + 1}},
		{&heartbeat.StatusError{Code: 503, RetryAfter: 150 * time.Second}, []time.Duration{5*time.Minute + 1, 5*time.Minute + 1 + 150*time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			fail := heartbeat.PingerFunc(func(context.Context) error {
				if at = append(at, time.Since(start)); len(at) == 1 {
					return row.err
				}
				return nil
			})
			lines := runFor(t, 30*time.Minute, heartbeat.PingerFunc(func(context.Context) error { return nil }), &heartbeat.Options{FailPinger: fail})
			require.Equal(t, row.want, at)
			require.Contains(t, lines, "ERROR heartbeat failure signal failed error="+row.err.Error())
			require.Contains(t, lines, "INFO heartbeat failure signal sent")
		})
	}
}

// ---- Input errors -------------------------------------------------------------

// P4, P5: what is wrong is said, and neither password nor path repeated.
func TestNewHTTPPingerErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ url, want string }{
		{"", "is empty"},
		{" ", "begins or ends with white space"},
		{" https://host/s3cr3t", "begins or ends with white space"},
		{"https://host/s3cr3t\n", "begins or ends with white space"},
		{"host/s3cr3t", "has no scheme (http or https)"},
		{"/s3cr3t", "has no scheme (http or https)"},
		{"//host/s3cr3t", "has no scheme (http or https)"},
		{"https", "has no scheme (http or https)"},
		{"://host/s3cr3t", "cannot be parsed"},
		{"host:8000/s3cr3t", "has a scheme other than http and https"},
		{"ftp://host/s3cr3t", "has a scheme other than http and https"},
		{"https:/host/s3cr3t", "has no host"},
		{"https:s3cr3t", "has no host"},
		{"https://", "has no host"},
		{"https:///s3cr3t", "has no host"},
		{"https://:443/s3cr3t", "has no host"},
		{"https://me:hunter22@/s3cr3t", "has no host"},
		{"https://host:0/s3cr3t", "has a port outside 1 to 65535"},
		{"https://host:65536/s3cr3t", "has a port outside 1 to 65535"},
		{"https://host:99999999999999999999/s3cr3t", "has a port outside 1 to 65535"},
		{"https://host:s3cr3t/", "cannot be parsed"},
		{"https://me:hunter22/s3cr3t", "cannot be parsed"}, // the @host was forgotten
		{"https://host:-1/s3cr3t", "cannot be parsed"},
		{"https://host/%zzs3cr3t", "has a % that is not followed by two hexadecimal digits"},
		{"https://me:hunter%zz22@host/s3cr3t", "has a % that is not followed by two hexadecimal digits"},
		{"https://me:hunter 22@host/s3cr3t", "cannot be parsed"},
		{"https://ho st/s3cr3t", "cannot be parsed"},
		{"https://host/s3cr\n3t", "cannot be parsed"},
		{"https://host/s3cr\x003t", "cannot be parsed"},
		{"https://host/s3cr\x7f3t", "cannot be parsed"},
		{"https://[::1/s3cr3t", "cannot be parsed"},
		{"https://host/s3cr3t?m=all good", "has a space in its query; write it as %20"},
	} {
		p, err := heartbeat.NewHTTPPinger(row.url, nil)
		require.Nil(t, p, row.url)
		require.EqualError(t, err, urlProblem(row.want), row.url)
		require.Contains(t, urlProblems, row.want)
		requireNone(t, errorTexts(err), "s3cr3t")
		requireNone(t, errorTexts(err), "hunter22")
	}
	for _, row := range []struct {
		opts heartbeat.HTTPOptions
		want string
	}{
		{heartbeat.HTTPOptions{Timeout: -1}, "heartbeat: ping timeout is negative (-1ns); use a positive one, or zero for 10s"},
		{heartbeat.HTTPOptions{Method: "GET /"}, `heartbeat: ping method "GET /" is not an HTTP method; use GET or POST`},
		{heartbeat.HTTPOptions{Method: "GÉT"}, `heartbeat: ping method "GÉT" is not an HTTP method; use GET or POST`},
		{heartbeat.HTTPOptions{Header: http.Header{"": {"x"}}}, badHeaderName},
		{heartbeat.HTTPOptions{Header: http.Header{"Authorization: Bearer s3cr3t": {""}}}, badHeaderName},
		{heartbeat.HTTPOptions{Header: http.Header{"X\n": {"x"}}}, badHeaderName},
		{heartbeat.HTTPOptions{Header: http.Header{"Ünicode": {"x"}}}, badHeaderName},
		{heartbeat.HTTPOptions{Header: http.Header{"a\x7fb": {"x"}}}, badHeaderName},
		{heartbeat.HTTPOptions{Header: http.Header{"Authorization": {"fine", "Bearer s3cr3t\n"}}}, "heartbeat: header Authorization has a line end or another control character in its value"},
		{heartbeat.HTTPOptions{Header: http.Header{"Authorization": {"s3cr3t\x7f"}}}, "heartbeat: header Authorization has a line end or another control character in its value"},
		{heartbeat.HTTPOptions{Header: http.Header{"Authorization": {"s3cr3t\x00"}}}, "heartbeat: header Authorization has a line end or another control character in its value"},
	} {
		p, err := heartbeat.NewHTTPPinger("https://me:hunter22@host/s3cr3t", &row.opts)
		require.Nil(t, p)
		require.EqualError(t, err, row.want)
		requireNone(t, errorTexts(err), "s3cr3t")
		requireNone(t, errorTexts(err), "hunter22")
	}
	for _, good := range []string{
		"http://host", "HTTP://HOST/", "https://host:/x", "https://host:65535/", "https://host:1", "http://[::1]:8080/x", "http://[fe80::1%25eth0]/", "https://host/a b?x=%20#y",
		"https://user@host/", "https://host/%41%zz"[:16] + "%41", "http://host?x",
	} {
		_, err := heartbeat.NewHTTPPinger(good, nil)
		require.NoError(t, err, good)
	}
	for _, name := range []string{"X-Api-Key", "x", "!#$%&'*+-.^_`|~09"} {
		_, err := heartbeat.NewHTTPPinger("http://host", &heartbeat.HTTPOptions{Header: http.Header{name: {"a\tb é"}}})
		require.NoError(t, err, name)
	}
}

const badHeaderName = "heartbeat: a header's name is empty or has a character that it must not have, such as a colon or a space"

// ---- Config -------------------------------------------------------------------

func TestConfigEnabled(t *testing.T) {
	t.Parallel()
	require.False(t, heartbeat.Config{}.Enabled())
	require.False(t, heartbeat.Config{URLs: []string{"", ""}, Interval: time.Hour, FailURL: "http://host/fail"}.Enabled())
	require.True(t, heartbeat.Config{URL: "x"}.Enabled())
	require.True(t, heartbeat.Config{URLs: []string{"", "x"}}.Enabled())
}

// P4, P5: errors name the key they are about and hold no URL.
func TestConfigErrors(t *testing.T) {
	t.Parallel()
	const a, b = "https://a.example/s3cr3t-a", "https://b.example/s3cr3t-b"
	about := func(key, problem string) string {
		return "heartbeat: " + key + ": " + strings.TrimPrefix(urlProblem(problem), "heartbeat: ")
	}
	for _, row := range []struct {
		config heartbeat.Config
		want   string
	}{
		{heartbeat.Config{}, "heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off"},
		{heartbeat.Config{FailURL: a}, "heartbeat: heartbeat-fail-url: set without a URL to ping; set heartbeat-url too"},
		{heartbeat.Config{URL: "ftp://s3cr3t"}, about("heartbeat-url", "has a scheme other than http and https")},
		{heartbeat.Config{URL: a, URLs: []string{b, "s3cr3t"}}, about("heartbeat-urls[1]", "has no scheme (http or https)")},
		{heartbeat.Config{URLs: []string{a, ""}}, about("heartbeat-urls[1]", "is empty")},
		{heartbeat.Config{URL: a, FailURL: "https:///s3cr3t"}, about("heartbeat-fail-url", "has no host")},
		{heartbeat.Config{URL: a, URLs: []string{b, a}}, "heartbeat: heartbeat-urls[1]: the same URL as heartbeat-url; leave one of them out"},
		{heartbeat.Config{URLs: []string{a, b, b}}, "heartbeat: heartbeat-urls[2]: the same URL as heartbeat-urls[1]; leave one of them out"},
		{heartbeat.Config{URL: a, FailURL: a}, "heartbeat: heartbeat-fail-url: the same URL as heartbeat-url; leave one of them out"},
		{heartbeat.Config{URLs: []string{a, b}, FailURL: b}, "heartbeat: heartbeat-fail-url: the same URL as heartbeat-urls[1]; leave one of them out"},
	} {
		m, err := row.config.NewMonitor(fresh(), nil)
		require.Nil(t, m)
		require.EqualError(t, err, row.want)
		requireNone(t, errorTexts(err), "s3cr3t")
	}
	_, err := heartbeat.Config{URL: a}.NewMonitor(append(fresh(), fresh()...), nil)
	require.ErrorIs(t, err, heartbeat.ErrDuplicatePath)
	_, err = heartbeat.Config{URL: a}.NewMonitor(nil, &heartbeat.Options{MaxSyncAge: -1})
	require.Error(t, err)
}

// A Config's URLs are all pinged, its fail URL when the databases turn unhealthy;
// what it sets takes the place of the like in the options, which stay as they are.
func TestConfigNewMonitor(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, r.RequestURI)
	}))
	defer server.Close()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	replaced := heartbeattest.NewPinger(clock)
	opts := heartbeat.Options{Clock: clock, Interval: time.Minute, Logger: slog.New(slog.DiscardHandler), FailPinger: replaced}
	before := opts
	m, err := heartbeat.Config{
		URL: server.URL + "/1", URLs: []string{server.URL + "/2", server.URL + "/3?x"}, Interval: 10 * time.Minute, FailURL: server.URL + "/fail",
	}.NewMonitor([]heartbeat.SyncReporter{reporter}, &opts)
	require.NoError(t, err)
	require.Equal(t, before, opts)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	slices.Sort(paths)
	require.Equal(t, []string{"/1", "/2", "/3?x"}, paths)
	clock.Advance(10 * time.Minute) // MaxSyncAge is the Config's interval
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(time.Minute)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Equal(t, "/fail", paths[len(paths)-1])
	require.Empty(t, replaced.Times())

	// What it does not set is the options'.
	m, err = heartbeat.Config{URL: server.URL + "/1"}.NewMonitor([]heartbeat.SyncReporter{reporter}, &opts)
	require.NoError(t, err)
	reporter.Set(clock.Now())
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(time.Minute + 1)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Len(t, replaced.Times(), 1)
}

// P5: a header's value counts as a credential from eight bytes on, whole and
// without the word before it; the shorter ones are words such as "close".
func TestHeaderSecrets(t *testing.T) {
	for _, row := range []struct {
		value, said string
		withheld    bool
	}{
		{"12345678", "12345678", true},
		{"Bearer 12345678", "12345678", true},
		{"1234567", "1234567", false},
		{"Bearer 1234567", "1234567", false},
	} {
		opts := viaFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("proxy refused " + row.said) })
		opts.Header = http.Header{"X-Key": {row.value}}
		p, err := heartbeat.NewHTTPPinger("http://server.example", opts)
		require.NoError(t, err)
		err = p.Ping(t.Context())
		require.Error(t, err)
		require.Equal(t, !row.withheld, strings.Contains(err.Error(), row.said), err)
	}
}

// P4: every character that ends a header's name is refused, the space too.
func TestHeaderNameWithSpace(t *testing.T) {
	for _, name := range []string{"X Key", " X-Key", "X-Key "} {
		_, err := heartbeat.NewHTTPPinger("http://server.example", &heartbeat.HTTPOptions{Header: http.Header{name: {"v"}}})
		require.EqualError(t, err, badHeaderName)
	}
	_, err := heartbeat.NewHTTPPinger("http://server.example", &heartbeat.HTTPOptions{Header: http.Header{"X!~": {"v"}}})
	require.NoError(t, err)
}

// P6: what a pinger returns is its code too, and may panic or ask the Monitor.
func TestPingerErrorMisbehaves(t *testing.T) {
	var m *heartbeat.Monitor
	for name, result := range map[string]error{
		"nil StatusError": (*heartbeat.StatusError)(nil),
		"panics":          badError{func() { panic("boom") }},
		"re-entrant":      badError{func() { m.Status() }},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			m, err = heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return result }),
				[]heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
			require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
		})
	}
}

type badError struct{ do func() }

func (e badError) Error() string { return "bad" }
func (e badError) As(any) bool   { e.do(); return false }

// P6: a pinger that is a nil pointer fails, and Run ends as ever.
func TestNilHTTPPinger(t *testing.T) {
	for _, p := range []*heartbeat.HTTPPinger{nil, {}} {
		m, err := heartbeat.New(heartbeat.MultiPinger(p, p), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		cancel()
		require.NoError(t, <-done)
	}
}

// P5: a pinger that wraps an HTTPPinger shows its URL in the log, and in no error.
func TestWrappedPingerInErrors(t *testing.T) {
	inner := newPinger(t, "http://server.example/s3cr3t", viaFunc(func(req *http.Request) (*http.Response, error) {
		return answerWith(req, 500, nil, ""), nil
	}))
	m, err := heartbeat.New(heartbeat.MultiPinger(struct{ *heartbeat.HTTPPinger }{inner}, heartbeat.PingerFunc(func(context.Context) error { return nil })),
		[]heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	require.EqualError(t, m.Beat(t.Context()).Err, "http://server.example: heartbeat: server answered 500 Internal Server Error")
}

// P5: a path whose parts are short is a credential as a whole.
func TestShortPathSegments(t *testing.T) {
	p := newPinger(t, "http://server.example/a1b/c2d", viaFunc(func(req *http.Request) (*http.Response, error) {
		return nil, errors.New("cannot reach " + req.URL.Path)
	}))
	require.NotContains(t, p.Ping(t.Context()).Error(), "a1b")
}
