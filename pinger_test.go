package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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
		namedPing{"panics", func(context.Context) error { panic(fmt.Errorf("oops")) }},
		namedPing{"exits", func(context.Context) error {
			runtime.Goexit()
			return nil
		}},
		namedPing{"fine", func(context.Context) error { return nil }},
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

func (e badError) As(any) bool { e.do(); return false }

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
