package heartbeat_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

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
		"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
		"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%s\r\n\r\n",
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
		{"https://me-user:hunter22@any.example/p%41thy/b%2Fcd?tok%65n=querySecr%65t&bareS3cret;x", nil, []string{
			"hunter22", "me-user", "p%41thy", "pAthy", "b%2Fcd", "querySecr%65t", "querySecret", "bareS3cret", base64.StdEncoding.EncodeToString([]byte("me-user:hunter22")),
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
					log := &logBuffer{}
					m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Logger: slog.New(log), FailPinger: newPinger(t, "http://signal.example", opts)})
					require.NoError(t, err)
					result := m.Beat(t.Context())
					if name != "fine" && name != "body error" { // a body that breaks has an arrival before it
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

func (e *quietErrors) Error() string { return "quiet" }

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
	require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": connection reset by peer`)
	err = ping(fmt.Errorf("fetching %s: %w", uuid, io.ErrShortBuffer))
	require.ErrorIs(t, err, io.ErrShortBuffer)
	require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": short buffer`)
	err = ping(fmt.Errorf("fetching %s: %w", uuid, context.DeadlineExceeded))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no answer within ")
	err = ping(&quietErrors{errors.New("harmless"), io.ErrShortBuffer})
	require.ErrorIs(t, err, io.ErrShortBuffer)
	_, ok := errorAs[*quietErrors](err)
	require.False(t, ok, "a foreign type may hold anything")
	err = ping(refused())
	op, ok := errorAs[*net.OpError](err)
	require.True(t, ok)
	require.Equal(t, "dial", op.Op)
	urlErr, ok := errorAs[*url.Error](err)
	require.True(t, ok)
	require.Equal(t, "http://server.example", urlErr.URL)
	tlsErr, ok := errorAs[*tls.CertificateVerificationError](ping(&tls.CertificateVerificationError{Err: errors.New(`not "trusted"`)}))
	require.True(t, ok)
	require.NotContains(t, tlsErr.Error(), "trusted")
	_, ok = errorAs[*net.OpError](ping(&net.OpError{Op: uuid, Net: uuid, Err: errors.New(uuid)}))
	require.True(t, ok)
	dns, ok := errorAs[*net.DNSError](ping(&net.DNSError{Err: "no such host", Name: "server.example", IsNotFound: true}))
	require.True(t, ok)
	require.True(t, dns.IsNotFound)
}

// P5: options print none of their credentials, and Name stands for the URL.
func TestOptionsAndName(t *testing.T) {
	t.Parallel()
	opts := heartbeat.HTTPOptions{Header: http.Header{"Authorization": {"Bearer s3cr3t"}}, Body: "s3cr3t", Method: "s3cr3t", Name: "office"}
	for _, v := range []any{opts, &opts, struct{ O *heartbeat.HTTPOptions }{&opts}, heartbeat.Config{HTTP: &opts}} {
		requireNone(t, slices.DeleteFunc(printed(v), func(text string) bool {
			return strings.HasPrefix(text, "%!p(") // the one verb for which fmt asks no method
		}), "s3cr3t")
	}
	p := newPinger(t, "http://me:hunter22@server.example/s3cr3t", &heartbeat.HTTPOptions{Name: "office", Client: &http.Client{
		Transport: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, refused() }),
	}})
	type holder struct {
		p heartbeat.HTTPPinger
		q *heartbeat.HTTPPinger
	}
	requireNone(t, printed(holder{*p, p}), "s3cr3t")
	for _, verb := range []string{"%w", "%p", "%t", "%!", "%s"} { // also those that do not fit
		for _, v := range []any{p, *p, holder{*p, p}, &holder{*p, p}, []any{p, *p}, map[string]any{"p": *p}} {
			requireNone(t, []string{fmt.Sprintf(verb, v)}, "s3cr3t")
		}
		for _, v := range []any{opts, &opts, struct{ O *heartbeat.HTTPOptions }{&opts}, struct{ O heartbeat.HTTPOptions }{opts}} {
			if verb != "%w" && verb != "%p" {
				requireNone(t, []string{fmt.Sprintf(verb, v)}, "s3cr3t")
			}
		}
	}
	requireNone(t, printed(&holder{*p, p}), "hunter22")
	require.Equal(t, "office", p.String())
	result, lines := beatOnce(t, heartbeat.MultiPinger(p, heartbeat.PingerFunc(func(context.Context) error { return nil })))
	require.EqualError(t, result.Err, `office: heartbeat: ping: Get "office": dial tcp: connect: connection refused`)
	require.Contains(t, strings.Join(lines, "\n"), "url=office")
}

// P5: errors.Is works as before, also if a method panics, or if a target cannot be compared.
func TestP5_ErrorsIs(t *testing.T) {
	inner := errors.New("a caller's own")
	err := newPinger(t, "http://server.example/", viaFunc(func(*http.Request) (*http.Response, error) { return nil, strictIs{inner} })).Ping(t.Context())
	require.ErrorIs(t, err, inner)
	require.ErrorIs(t, list{"a"}, list{}, "as package errors has it")
	err = newPinger(t, "http://server.example/", viaFunc(func(*http.Request) (*http.Response, error) { return nil, list{"a"} })).Ping(t.Context())
	require.ErrorIs(t, err, list{})
}

type list []string

func (list) Error() string        { return "x" }
func (list) Is(target error) bool { _, ok := target.(list); return ok }

// P5: errors.As finds what went wrong with a record or an address.
func TestP5_RecordHeaderError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
		hold(conn)
	}()
	err = newPinger(t, "https://"+listener.Addr().String()+"/", nil).Ping(t.Context())
	var header tls.RecordHeaderError
	require.ErrorAs(t, err, &header)
}

func TestP5_AddrError(t *testing.T) {
	err := newPinger(t, "http://server.example/", viaFunc(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.AddrError{Err: "missing port in address", Addr: "secret"}}
	})).Ping(t.Context())
	require.ErrorContains(t, err, "missing port in address")
}

// An error is a net.Error as net/http's are.
func TestP5_NetError(t *testing.T) {
	err := newPinger(t, "http://server.example/", viaFunc(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}}
	})).Ping(t.Context())
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}
