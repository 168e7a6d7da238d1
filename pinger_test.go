package heartbeat_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

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
		namedPing("a", func(context.Context) error { return errA }),
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
	code, ok := errorAs[*heartbeat.StatusError](err)
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

func (panickingName) String() string { panic("no name") }

// P6: a Monitor takes a panic, and a goroutine that a pinger ends, for a failed
// ping of that target, with a log line.
func TestPingerPanics(t *testing.T) {
	t.Parallel()
	p := heartbeat.MultiPinger(
		namedPing("panics", func(context.Context) error { panic(fmt.Errorf("oops")) }),
		namedPing("exits", func(context.Context) error {
			runtime.Goexit()
			return nil
		}),
		namedPing("fine", func(context.Context) error { return nil }),
	)
	result, lines := beatOnce(t, p)
	require.Equal(t, heartbeat.Failed, result.Outcome)
	require.EqualError(t, result.Err, "panics: heartbeat: pinger panicked: oops\nexits: heartbeat: pinger ended its goroutine")
	slices.Sort(lines)
	require.Equal(t, []string{
		"ERROR heartbeat failed url=exits error=heartbeat: pinger ended its goroutine",
		"ERROR heartbeat failed url=panics error=heartbeat: pinger panicked: oops",
		"INFO heartbeat sent url=fine",
	}, lines)
}

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
		{"https://host/s3cr3t?msg=db#1&status=down", hasFragment},
		{"https://host/s3cr3t#", hasFragment},
		{"https://https://host/s3cr3t", hasSecondURL},
		{"https://http://host/s3cr3t", hasSecondURL},
		{"https://https//host/s3cr3t", hasSecondURL},
		{"https://http//host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3thttps://host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3t,https://host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3t HTTPS://host/s3cr3t", hasSecondURL},
		{"https://host/https://host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3t?s=1https://host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3t?s=1,HTTP://host/s3cr3t", hasSecondURL},
		{"https://host/s3cr3t?s=1&https://host/s3cr3t", hasSecondURL},
		{"https://host/${UUID}s3cr3t", hasPlaceholder},
		{"https://${HOST}/s3cr3t", hasPlaceholder},
		{"https://host/s3cr3t?token=${TOKEN}", hasPlaceholder},
		{"https://host/<your-uuid>s3cr3t", hasPlaceholder},
		{"https://<host>/s3cr3t", hasPlaceholder},
		{"https://host/s3cr3t?token=<token>", hasPlaceholder},
		{"https://host/{uuid}/s3cr3t", hasPlaceholder},
		{"https://host/{{ .UUID }}/s3cr3t", hasPlaceholder},
		{"https://host/s3cr3t?m={resaon}", hasPlaceholder},
		{"https://host/{reason}/s3cr3t", hasMisplaced},
		{"https://host/s3cr3t/%7Breason%7D", hasMisplaced},
		{"https://me:{reason}@host/s3cr3t", hasMisplaced},
		{"https://{reason}.host/s3cr3t?m={reason}", hasMisplaced},
		{"https://host/s3cr3t?m={Reason}", hasMisspelt},
		{"https://host/s3cr3t?m={ reason }", hasMisspelt},
		{"https://host/s3cr3t?m={%20reason}", hasMisspelt},
		{"https://host/s3cr3t?m={reasons}", hasMisspelt},
		{"https://host/s3cr3t?m={{reason}}", hasMisspelt},
		{"https://host/s3cr3t?m=${reason}", hasMisspelt},
		{"https://host/s3cr3t?m=$reason", hasMisspelt},
		{"https://host/s3cr3t?m=%7Breason%7D", hasMisspelt},
		{"https://host/s3cr3t?m={reason", hasMisspelt},
		{"https://host/s3cr3t?m=reason}", hasMisspelt},
		{"https://host/s3cr3t?m={reason}&n={REASON}", hasMisspelt},
		{"http://::1/s3cr3t", hasColons},
		{"http://::1:8000/s3cr3t", hasColons},
		{"http://fe80::1%25eth0/s3cr3t", hasColons},
		{"http://me:hunter22@2001:db8::1?s3cr3t", hasColons},
		{"http://host:80:90/s3cr3t", hasColons},
	} {
		p, err := heartbeat.NewHTTPPinger(row.url, nil)
		require.Nil(t, p, row.url)
		require.EqualError(t, err, urlProblem(row.want), row.url)
		require.Contains(t, append(urlProblems, urlMistakes...), row.want)
		requireNone(t, errorTexts(err), "s3cr3t")
		requireNone(t, errorTexts(err), "hunter22")
	}
	for _, row := range []struct {
		opts heartbeat.HTTPOptions
		want string
	}{
		{heartbeat.HTTPOptions{Timeout: -1}, "heartbeat: ping timeout is negative (-1ns); use a positive one, or zero for 10s"},
		{heartbeat.HTTPOptions{Body: "down: { Reason }"}, "heartbeat: ping body has {reason} misspelt; write it in small letters, without spaces or further braces"},
		{heartbeat.HTTPOptions{Body: "{{reason}}"}, "heartbeat: ping body has {reason} misspelt; write it in small letters, without spaces or further braces"},
		{heartbeat.HTTPOptions{Body: "${reason}"}, "heartbeat: ping body has {reason} misspelt; write it in small letters, without spaces or further braces"},
		{heartbeat.HTTPOptions{Header: http.Header{"X-Why": {"down: {reason}"}}}, "heartbeat: header X-Why has {reason} in its value, where nothing takes its place; use the URL's query or the body"},
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
		"http://host", "HTTP://HOST/", "https://host:/x", "https://host:65535/", "https://host:1", "http://[::1]:8080/x", "http://[fe80::1%25eth0]/", "https://host/a b?x=%20%23y",
		"https://user@host/", "https://host/%41%zz"[:16] + "%41", "http://host?x", "https://https/x", "https://host/x//y", "https://host/a:b:c",
		// A URL in the query is a part of the first, escaped or not.
		"https://relay.example/hook?url=https://hc-ping.com/" + uuid, "https://relay.example/hook?a=1&url=https%3A%2F%2Fhc-ping.com%2F" + uuid,
		"https://relay.example/?https://hc-ping.com/" + uuid, "https://relay.example/https%3A%2F%2Fhc-ping.com%2F" + uuid,
		"https://kuma.example/api/push/T?status=down&msg=see+https://wiki.example/runbook", "https://kuma.example/api/push/T?msg=see%20https://wiki.example/runbook",
		// Braces and signs that stand for nothing.
		`https://host/x?q={"a":{"b":1}}`, "https://host/{6f7d4c1e-91c2-4c3a-9f0e-2a52d3a4b1c0}", "https://host/{D41D8CD98F00}", "https://host/x?$filter=a&price=5$", "https://host/x?a<b",
		"https://host/reason/x?reason=y&the-reason={reason}", "https://host/x?a={reason}{reason}", "https://host/x?f[reason]=y", "https://host/x?m=%7Ba%7D",
	} {
		_, err := heartbeat.NewHTTPPinger(good, nil)
		require.NoError(t, err, good)
	}
	for _, body := range []string{"{reason}", `{"text": "{reason}"}`, `{"reason":{"text":"{reason}"}}`, "<reason>{reason}</reason>", "no reason", "{\n  reason: {reason}\n}", "$5"} {
		_, err := heartbeat.NewHTTPPinger("http://host", &heartbeat.HTTPOptions{Body: body})
		require.NoError(t, err, body)
	}
	for _, name := range []string{"X-Api-Key", "x", "!#$%&'*+-.^_`|~09"} {
		_, err := heartbeat.NewHTTPPinger("http://host", &heartbeat.HTTPOptions{Header: http.Header{name: {"a\tb é"}}})
		require.NoError(t, err, name)
	}
}

const badHeaderName = "heartbeat: a header's name is empty or has a character that it must not have, such as a colon or a space"

// P4: the names of headers that net/http would refuse at each ping are refused at once, and
// no others.
func TestHeaderNames(t *testing.T) {
	accepted := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errRefused }}
	for r := range rune(0x100) {
		name := "X" + string(r) + "Key"
		header := http.Header{name: {"v"}}
		_, err := heartbeat.NewHTTPPinger("http://server.example", &heartbeat.HTTPOptions{Header: header})
		req := &http.Request{URL: &url.URL{Scheme: "http", Host: "server.example"}, Header: header}
		if _, refused := accepted.RoundTrip(req); errors.Is(refused, errRefused) {
			require.NoError(t, err, "%q", name)
		} else {
			require.EqualError(t, err, badHeaderName, "%q", name)
		}
	}
}

// P5, P6: what a pinger returns is its code too. It may panic, wrap itself, ask the
// Monitor, or be a nil pointer: no method of the library ends for that, or does not
// end.
func TestPingerErrorMisbehaves(t *testing.T) {
	t.Parallel()
	var m *heartbeat.Monitor
	boom := func() { panic("boom") }
	often := badError{} // to look at each part would take a minute
	parts := make([]error, 1<<18)
	often.unwrap = func() []error { return parts }
	for i := range parts {
		parts[i] = often
	}
	for name, result := range map[string]error{
		"nil StatusError":         (*heartbeat.StatusError)(nil),
		"nil ConfigError":         (*heartbeat.ConfigError)(nil),
		"nil net.OpError":         (*net.OpError)(nil),
		"nil url.Error":           (*url.Error)(nil),
		"nil net.DNSError":        (*net.DNSError)(nil),
		"nil tls error":           (*tls.CertificateVerificationError)(nil),
		"nil os.PathError":        (*os.PathError)(nil),
		"wrapped nil":             fmt.Errorf("wrapped: %w", (*heartbeat.StatusError)(nil)),
		"joined nil":              errors.Join((*heartbeat.StatusError)(nil), (*net.OpError)(nil)),
		"panics in As":            badError{as: boom},
		"panics in Is":            badError{is: boom},
		"panics in Error":         badError{text: boom},
		"panics in Unwrap":        badError{unwrap: func() []error { panic("boom") }},
		"re-entrant":              badError{as: func() { m.Status() }},
		"wraps itself":            &selfWrapper{},
		"joins itself twice":      &selfJoiner{},
		"joins itself often":      often,
		"joined, wrapping itself": errors.Join(&selfWrapper{}, errors.New("x")),
	} {
		t.Run(name, func(t *testing.T) {
			var results []heartbeat.Result
			lone := heartbeat.PingerFunc(func(context.Context) error { return result })
			for _, pinger := range []heartbeat.Pinger{lone, heartbeat.MultiPinger(lone, sent)} {
				var err error
				m, err = heartbeat.New(pinger, fresh(), &heartbeat.Options{Logger: quiet})
				require.NoError(t, err)
				results = append(results, m.Beat(t.Context()))
				answer := httptest.NewRecorder()
				m.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
				require.Contains(t, answer.Body.String(), `"error":`)
				require.Equal(t, heartbeat.ReasonRateLimited, m.Beat(t.Context()).Reason)
			}
			for _, r := range results {
				require.Equal(t, heartbeat.Failed, r.Outcome)
				require.Contains(t, r.String(), "heartbeat failed: ")
				text, err := json.Marshal(r)
				require.NoError(t, err)
				require.Contains(t, string(text), `"error":`)
				for _, v := range []any{r, &r} {
					require.NotEmpty(t, printed(v))
				}
			}
		})
	}
	require.EqualError(t, (*heartbeat.StatusError)(nil), "<nil>")
	require.EqualError(t, (*heartbeat.ConfigError)(nil), "<nil>")
	require.NoError(t, (*heartbeat.ConfigError)(nil).Unwrap())
	require.EqualError(t, &heartbeat.ConfigError{Key: "heartbeat-url"}, "heartbeat: heartbeat-url: <nil>")
}

// P5, P6: an error that ends the goroutine in which it is asked ends no request of the
// health page.
func TestPingerErrorEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]badError{
		"in Error": {text: runtime.Goexit},
		"in Is":    {is: runtime.Goexit},
		"in As":    {as: runtime.Goexit},
		"in Unwrap": {unwrap: func() []error {
			runtime.Goexit()
			return nil
		}},
	} {
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return result }), fresh(), &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome, name)
		answer := httptest.NewRecorder()
		served := make(chan bool, 1)
		go func() {
			defer close(served)
			m.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			served <- true
		}()
		require.True(t, <-served, name)
		require.Equal(t, http.StatusOK, answer.Code, name)
		require.Contains(t, answer.Body.String(), `"error":`, name)
	}
}

// A badError calls back from its methods.
type badError struct {
	text, is, as func()
	unwrap       func() []error
}

func (e badError) Error() string {
	if e.text != nil {
		e.text()
	}
	return "bad"
}

func (e badError) Is(error) bool {
	if e.is != nil {
		e.is()
	}
	return false
}

func (e badError) As(any) bool {
	if e.as != nil {
		e.as()
	}
	return false
}

func (e badError) Unwrap() []error {
	if e.unwrap != nil {
		return e.unwrap()
	}
	return nil
}

type selfWrapper struct{}

func (*selfWrapper) Error() string { return "self" }

func (e *selfWrapper) Unwrap() error { return e }

type selfJoiner struct{}

func (*selfJoiner) Error() string { return "self" }

func (e *selfJoiner) Unwrap() []error { return []error{e, e} }

// P5: a name that a pinger gives itself is shown in errors and on the health page only
// if it could not be a URL. HTTPOptions.Name is shown as it is.
func TestP5_NamesOfTargets(t *testing.T) {
	t.Parallel()
	broken := func(context.Context) error { return errors.New("broken") }
	for name, want := range map[string]string{
		"chat":                           "chat",
		"chat of the office: #ops":       "chat of the office: #ops",
		"hc-ping.com/s3cr3t":             "target 1",
		"ping of hc-ping.com/s3cr3t":     "target 1",
		"hc-ping.com?s3cr3t":             "target 1",
		"s3cr3t@hc-ping.com":             "target 1",
		"telegram:s3cr3t":                "target 1",
		"%2Fs3cr3t":                      "target 1",
		`hc-ping.com\s3cr3t`:             "target 1",
		"//hc-ping.com/s3cr3t":           "target 1",
		"pushbullet://s3cr3t":            "target 1", // where the host is the credential
		"ifttt://s3cr3t/?events=down":    "target 1",
		"https://hc-ping.com/s3cr3t":     "https://hc-ping.com",
		"x (https://hc-ping.com/s3cr3t)": "target 1",
		"":                               "target 1",
	} {
		m, err := heartbeat.New(heartbeat.MultiPinger(namedPing(name, broken), sent), fresh(), &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		result := m.Beat(t.Context())
		require.Equal(t, want, result.Targets[0].Name, name)
		require.EqualError(t, result.Err, want+": broken")
		answer := httptest.NewRecorder()
		m.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		require.NotContains(t, answer.Body.String(), "s3cr3t")
	}
	named := newPinger(t, "http://server.example/s3cr3t", &heartbeat.HTTPOptions{Name: "ops/main", Client: &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, refused() })}})
	m, err := heartbeat.New(heartbeat.MultiPinger(named, sent), fresh(), &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	require.Equal(t, "ops/main", m.Beat(t.Context()).Targets[0].Name)
}

// P4: two spellings of one check are one. New and Config say so of the same ones, and
// Config names the key.
func TestP4_TwoSpellingsOfOneCheck(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"https://host.example/x", "https://host.example/x/", true},
		{"https://host.example/x", "http://host.example/x", true},
		{"https://host.example/x", "https://host.example./x", true},
		{"https://host.example/x", "https://HOST.example/x", true},
		{"https://host.example/x", "https://host.example:443/x", true},
		{"https://host.example/x", "http://host.example:80/x", true},
		{"https://host.example/x", "https://host.example/x?", true},
		{"https://host.example/x", "https://host.example:/x", true},
		{"https://host.example", "https://host.example/", true},
		{"https://host.example/x", "https://host.example/%78", true},
		{"https://me:pass@host.example/x", "https://host.example/x", true},
		{"https://bücher.example/x", "https://xn--bcher-kva.example/x", true},
		{"http://[::1]/x", "http://[0:0::1]/x", true},
		{"https://host.example/x", "https://host.example/X", false},
		{"https://host.example/x", "https://host.example/x/fail", false},
		{"https://host.example/x", "https://host.example/x?a", false},
		{"https://host.example/x?s=1", "https://host.example/x?s=0", false},
		{"https://host.example/x", "https://host.example:8443/x", false},
		{"https://host.example/x", "https://other.example/x", false},
		{"https://k.example/x", "https://\u212a.example/x", false}, // the Kelvin sign
	} {
		pa, pb := newPinger(t, row.a, nil), newPinger(t, row.b, nil)
		_, err := heartbeat.New(pa, nil, &heartbeat.Options{FailPinger: pb})
		for _, config := range []struct {
			heartbeat.Config
			key string
		}{
			{heartbeat.Config{URL: row.a, FailURL: row.b}, "heartbeat-fail-url"},
			{heartbeat.Config{URL: row.b, URLs: []string{"https://else.example", row.a}}, "heartbeat-urls[1]"},
		} {
			_, newErr := config.NewMonitor(nil, &heartbeat.Options{Logger: quiet})
			validErr := config.Validate()
			if !row.same {
				require.NoError(t, err, row)
				require.NoError(t, validErr, row)
				require.NoError(t, newErr, row)
				continue
			}
			require.ErrorContains(t, err, "FailPinger pings what the pinger pings", row)
			require.EqualError(t, validErr, "heartbeat: "+config.key+": the same URL as heartbeat-url; leave one of them out", row)
			require.Equal(t, validErr, newErr)
		}
	}
	err := heartbeat.Config{URL: "https://host/x", FailURL: "host/y", FailBody: "{Reason}"}.Validate()
	require.ErrorContains(t, err, "heartbeat-fail-url: ping URL has no scheme")
	err = heartbeat.Config{URL: "https://host/x", FailURL: "https://host/y", FailBody: "{Reason}"}.Validate()
	require.EqualError(t, err, "heartbeat: heartbeat-fail-body: ping body has {reason} misspelt; write it in small letters, without spaces or further braces")
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

// urlProblems are all that NewHTTPPinger can say of a URL (P4). None has a part
// that changes, so none can repeat a password or a path.
var urlProblems = []string{
	"is empty",
	"begins or ends with white space",
	"has a space in its query; write it as %20",
	"has a % that is not followed by two hexadecimal digits",
	"cannot be parsed",
	"has no scheme (http or https)",
	"has a scheme other than http and https",
	"has no host",
	"has a port outside 1 to 65535",
}

const (
	hasFragment    = "has a #, and what follows that is never sent; write it as %23"
	hasSecondURL   = "has a second URL in it; give one, and escape a URL that is a part of it, as in https%3A%2F%2F"
	hasMisplaced   = "has {reason} outside its query, where nothing takes its place"
	hasMisspelt    = "has {reason} misspelt; write it in small letters, without spaces and not escaped"
	hasPlaceholder = "has a placeholder left in it, such as ${NAME}, <name> or {name}; write what it stands for"
	hasColons      = "has a host with several colons; write an IPv6 address in brackets, as in http://[::1]:8000"
)

// urlMistakes say by themselves what would be right.
var urlMistakes = []string{hasFragment, hasSecondURL, hasMisplaced, hasMisspelt, hasPlaceholder, hasColons}

func urlProblem(text string) string {
	if slices.Contains(urlMistakes, text) {
		return "heartbeat: ping URL " + text
	}
	return "heartbeat: ping URL " + text + "; it must be absolute, such as https://hc-ping.com/your-uuid-here"
}

// FuzzNewHTTPPingerURL: whatever the URL, NewHTTPPinger does not panic; its error
// is one of the fixed texts (P4); with RedactURL only scheme and host are shown;
// and an error of the transport that quotes the URL comes out without it (P5).
func FuzzNewHTTPPingerURL(f *testing.F) {
	for _, seed := range []string{
		"", " ", "https://hc-ping.com/abc123", "http://user:hunter22@host.example/path?token=s3cr3t#frag",
		"hc-ping.com/abc123", "ftp://host/abc123", "https://", "https:///abc123", "http://host:0/", "http://host:99999/",
		"http://host:port/", "http://user:pa%zzss@host/", "http://host/%zz", "http://host/\x00abc", "http://[::1]:80/abc123",
		"http://[::1/abc123", "http:abc123", "http://hc:8000/ping/abchc123", "http://a/banana", "http://host/a%2Fbcdef?x=%31234",
		"http://host/?a=b c", "https://ho st/abc123", "HTTP://HOST:/ABC123", "http://host/?token=s3;cr3t", "http://ünïcødé/pässwörd",
		"http://host/quo\"ted", "http://hc:8000/ping/abchc123", "http://h\"st/quoted", "http://host/?1\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := heartbeat.NewHTTPPinger(raw, nil); err != nil {
			problem, _ := strings.CutPrefix(err.Error(), "heartbeat: ping URL ")
			problem, _, _ = strings.Cut(problem, "; it must be absolute")
			require.Equal(t, urlProblem(problem), err.Error())
			require.Contains(t, append(urlProblems, urlMistakes...), problem)
			return
		}
		pinger, err := heartbeat.NewHTTPPinger(raw, &heartbeat.HTTPOptions{
			RedactURL: true,
			Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return nil, fmt.Errorf("cannot get %s, that is %s", req.URL, req.URL.Path)
			})},
		})
		require.NoError(t, err)
		u, err := url.Parse(raw)
		require.NoError(t, err)
		origin := u.Scheme + "://" + u.Host
		require.Equal(t, origin, pinger.String())

		text := pinger.Ping(t.Context()).Error()
		prefix := "heartbeat: ping: " + (&url.Error{Op: "Get", URL: origin, Err: errors.New("")}).Error()
		require.True(t, strings.HasPrefix(text, prefix), text)
		text = strings.ToLower(text[len(prefix):])
		require.Equal(t, "unknown error (its text is withheld, since it may repeat the ping url)", text)
	})
}

// FuzzResponse: whatever bytes a server answers with, a ping does not panic, no
// error at any level repeats the URL's credential (P5), and what it makes of the
// answer agrees with a small model (P1).
func FuzzResponse(f *testing.F) {
	const secret = "s3cr3t-t0ken"
	for _, seed := range []string{
		"", "\r\n", "HTTP/1.1 200 OK\r\n\r\nOK", "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nOK (not found)",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nPing-Body-Limit: 10000\r\n\r\nOK",
		"HTTP/1.0 202 Accepted\r\n\r\nGot it, thanks!", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nOK (\r\nc\r\nrate-limited)\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK", "HTTP/1.1 404 Not Found\r\n\r\nno /ping/" + secret,
		"HTTP/1.1 302 Found\r\nLocation: /ping/" + secret + "\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: http://[/" + secret + "\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: " + secret + "://x/\r\n\r\n", "HTTP/1.1 302 Found\r\n\r\n",
		"HTTP/1.1 200 OK\r\n/ping/" + secret + "\r\n\r\n", "HTTP/1.1 /ping/" + secret + " OK\r\n\r\n", "/ping/" + secret + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: /ping/" + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + secret,
		"HTTP/1.1 200 OK\r\n\r\nOK (" + secret + ")", "HTTP/1.1 200 OK\r\n\r\nOK (" + strings.Repeat(".", 50) + secret + ")",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secret, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: " + secret + ": \r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n", "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhi",
		"HTTP/1.1 429 Slow\r\nRetry-After: 30\r\n\r\n", "HTTP/1.1 000 x\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				if _, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
					_, _ = server.Write(answer)
				}
			}()
			return client, nil
		}}
		defer transport.CloseIdleConnections()
		pinger, err := heartbeat.NewHTTPPinger("http://server.example/ping/"+secret, &heartbeat.HTTPOptions{
			Client: &http.Client{Transport: transport},
		})
		require.NoError(t, err)
		err = pinger.Ping(t.Context())
		for _, text := range errorTexts(err) {
			require.NotContains(t, text, secret)
		}

		model := bufio.NewReader(bytes.NewReader(answer))
		resp, modelErr := http.ReadResponse(model, nil)
		for n := 0; modelErr == nil && resp.StatusCode/100 == 1 && resp.StatusCode != 101 && n < 5; n++ {
			resp, modelErr = http.ReadResponse(model, nil)
		}
		switch {
		case modelErr != nil:
			require.Error(t, err)
		case resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "", resp.StatusCode == 100:
			require.Error(t, err) // where it leads answers the same
		case resp.StatusCode/100 != 2:
			status, ok := errorAs[*heartbeat.StatusError](err)
			if resp.StatusCode/100 == 1 && !ok { // one informational answer too many
				require.Error(t, err)
				break
			}
			require.True(t, ok, "%v", err)
			require.Equal(t, resp.StatusCode, status.Code)
		default:
			body, bodyErr := io.ReadAll(io.LimitReader(resp.Body, 64))
			switch {
			case bytes.HasPrefix(body, []byte("OK (")):
				require.ErrorIs(t, err, heartbeat.ErrNotAccepted)
			case bodyErr != nil && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip"):
			default: // also where the body breaks: the ping has arrived
				require.NoError(t, err)
			}
		}
	})
}

// FuzzRetryAfter: whatever the server asks for, RetryAfter is 0 to 1 hour (S6),
// and agrees with a small model.
func FuzzRetryAfter(f *testing.F) {
	const date = "Tue, 24 Nov 2026 08:00:00 GMT"
	for _, seed := range []struct {
		code        int
		after, date string
	}{
		{429, "30", ""}, {503, "3600", ""}, {503, "3601", ""}, {429, "99999999999999999999999", ""}, {429, "-1", ""}, {429, "+1", ""},
		{429, " 7 ", ""}, {429, "1.5", ""}, {429, "", ""}, {429, "soon", ""}, {200, "30", ""}, {500, "30", ""}, {404, "30", ""},
		{429, "Tue, 24 Nov 2026 08:05:00 GMT", date}, {503, "Tue, 24 Nov 2026 07:05:00 GMT", date}, {503, "Tue, 24 Nov 2026 12:05:00 GMT", date},
		{503, "Tuesday, 24-Nov-26 08:05:00 GMT", "Tue Nov 24 08:00:00 2026"}, {503, "Fri, 31 Dec 9999 23:59:59 GMT", ""},
		{503, "Mon, 01 Jan 0001 00:00:00 GMT", date}, {429, "1e3", date}, {429, "0x10", date}, {429, "18700000000000000000A", "0"}, {429, "1_0", date},
	} {
		f.Add(seed.code, seed.after, seed.date)
	}
	f.Fuzz(func(t *testing.T, code int, after, date string) {
		pinger, err := heartbeat.NewHTTPPinger("http://server.example/ping", &heartbeat.HTTPOptions{
			Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return answerWith(req, code, http.Header{"Retry-After": {after}, "Date": {date}}, ""), nil
			})},
		})
		require.NoError(t, err)
		before := time.Now()
		err = pinger.Ping(t.Context())
		if code/100 == 2 {
			require.NoError(t, err)
			return
		}
		status, ok := errorAs[*heartbeat.StatusError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, code, status.Code)
		require.GreaterOrEqual(t, status.RetryAfter, time.Duration(0))
		require.LessOrEqual(t, status.RetryAfter, time.Hour)

		low, high := time.Duration(0), time.Duration(0)
		after = strings.TrimSpace(after)
		if code != 429 && code != 503 {
			require.Zero(t, status.RetryAfter)
		} else if after != "" && strings.Trim(after, "0123456789") == "" {
			low = time.Hour
			if n, err := strconv.Atoi(after); err == nil && n < 3600 {
				low = time.Duration(n) * time.Second
			}
			high = low
		} else if until, err := http.ParseTime(after); err == nil {
			now, err := http.ParseTime(date)
			low, high = until.Sub(now), until.Sub(now)
			if err != nil {
				low, high = time.Until(until), until.Sub(before)
			}
		}
		require.GreaterOrEqual(t, status.RetryAfter, min(max(low, 0), time.Hour))
		require.LessOrEqual(t, status.RetryAfter, min(max(high, 0), time.Hour))
	})
}

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

// P1: a GET has no body, also not an empty one.
func TestP1_NoBody(t *testing.T) {
	var body io.ReadCloser
	require.NoError(t, newPinger(t, "http://server.example/", viaFunc(func(r *http.Request) (*http.Response, error) {
		body = r.Body
		return answerWith(r, 200, http.Header{}, ""), nil
	})).Ping(t.Context()))
	require.Nil(t, body)
}

// S6: only a 429 or 503 may put off the next attempt, whoever says so.
func TestS6_RetryAfterOfAStatus(t *testing.T) {
	at := offsets(t, 9*time.Minute, heartbeat.Options{Logger: quiet}, func(n int) error {
		if n == 1 {
			return &heartbeat.StatusError{Code: 500, RetryAfter: time.Hour}
		}
		return nil
	})
	require.Equal(t, minutes(0, 1, 5), at)
}

// A strictIs panics when it is compared with an error of another type, as a hasty Is does.
type strictIs struct{ inner error }

func (strictIs) Error() string          { return "x" }
func (e strictIs) Is(target error) bool { return target.(strictIs) == e }
func (e strictIs) Unwrap() error        { return e.inner }

// P7: what an error wraps is found also if a method of the error panics.
func TestP7_PanickingIs(t *testing.T) {
	at := offsets(t, 4*time.Minute, heartbeat.Options{Logger: quiet}, func(n int) error {
		if n == 1 {
			return strictIs{heartbeat.ErrNotSent} // P7: "An error that wraps such an error also matches it"
		}
		return nil
	})
	require.Equal(t, seconds(0, 10), at)
}
