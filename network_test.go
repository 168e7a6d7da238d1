package heartbeat_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

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
			require.ErrorContains(t, err, `": the server closed the connection without an answer`)
			require.NotContains(t, err.Error(), "EOF")
			require.NotErrorIs(t, err, heartbeat.ErrNotSent)
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
			require.NoError(t, err, "the status line has arrived, and so had the ping")
		}},
		{"reset in the body", 0, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK")
			reset(conn)
		}, func(t *testing.T, err error) {
			if err != nil { // the reset may overtake the status line
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
		}},
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
			require.EqualError(t, err, "heartbeat: ping: no answer within 250ms: context deadline exceeded")
			require.NotErrorIs(t, err, heartbeat.ErrNotSent)
		}},
		{"half the headers", short, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX:")
			hold(in)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"half the body", short, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK")
			hold(in)
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"half the words of a refusal", short, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nOK (not")
			hold(in)
		}, func(t *testing.T, err error) {
			require.EqualError(t, err, `heartbeat: ping not accepted: server answered "OK (…)"`)
		}},
		{"thanks without an end", 0, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nGot it, thanks!")
			hold(in)
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"bytes after the answer", 0, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\nno check at /ping/"+uuid)
			hold(in)
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"headers in drips", short, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			drip(conn)
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.DeadlineExceeded) }},
		{"body in drips", short, func(conn net.Conn, _ *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n")
			drip(conn)
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
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
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
		{"no answer", 250 * time.Millisecond, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, err error) {
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}},
		{"half the body", 250 * time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "OK")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, func(t *testing.T, err error) { require.NoError(t, err) }},
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
	encoding := "gzip"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", encoding)
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
	require.ErrorIs(t, p.Ping(t.Context()), heartbeat.ErrNotAccepted, "it only says that it is packed")
	for _, end := range []int{1, 12} {
		body = packed("OK (not found)")[:end] // cut
		require.NoError(t, p.Ping(t.Context()))
	}
	body, encoding = packed("OK (not found)"), "identity"
	require.NoError(t, p.Ping(t.Context()), "it does not say that it is packed, and does not begin with OK")
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
		{"common name only", "", time.Now().AddDate(0, 1, 0), false, func(t *testing.T, err error) {
			_, ok := errorAs[x509.HostnameError](err)
			require.True(t, ok, "%v", err)
			require.ErrorContains(t, err, "relies on legacy Common Name field, use SANs instead")
			require.NotContains(t, err.Error(), "other names")
		}},
		{"expired", "localhost", time.Now().AddDate(0, 0, -1), false, func(t *testing.T, err error) {
			invalid, ok := errorAs[x509.CertificateInvalidError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, x509.Expired, invalid.Reason)
		}},
		{"wrong host", "other.example", time.Now().AddDate(0, 1, 0), false, func(t *testing.T, err error) {
			_, ok := errorAs[x509.HostnameError](err)
			require.True(t, ok, "%v", err)
		}},
		{"unknown authority", "localhost", time.Now().AddDate(0, 1, 0), true, func(t *testing.T, err error) {
			_, ok := errorAs[x509.UnknownAuthorityError](err)
			require.True(t, ok, "%v", err)
			_, ok = errorAs[*tls.CertificateVerificationError](err)
			require.True(t, ok, "%v", err)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cert, pool := newCertificate(t, row.certFor, row.until)
			if row.certFor == "" {
				cert, pool = certify(row.until, &x509.Certificate{Subject: pkix.Name{CommonName: "localhost"}})
			}
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
	require.EqualError(t, err, `heartbeat: ping: Get "https://server.invalid": proxy answered 407 Proxy Authentication Required`)
	err = newPinger(t, "http://server.invalid/"+uuid, opts).Ping(t.Context())
	require.EqualError(t, err, "heartbeat: server answered 407 Proxy Authentication Required")
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
		Client: &http.Client{Transport: transport},
	})
	err = p.Ping(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.EqualError(t, err, fmt.Sprintf(`heartbeat: ping: Get "http://%[1]s": dial tcp %[1]s: connect: connection refused`, listener.Addr()))
	require.ErrorIs(t, err, heartbeat.ErrNotSent)
	require.Equal(t, int32(1), dials.Load())

	err = newPinger(t, "http://"+listener.Addr().String()+"/"+uuid, nil).Ping(t.Context())
	require.EqualError(t, err, fmt.Sprintf(`heartbeat: ping: Get "http://%[1]s": dial tcp %[1]s: connect: connection refused`, listener.Addr()))
	require.ErrorIs(t, err, heartbeat.ErrNotSent)
}

// The pinger works where http.DefaultTransport is not a *http.Transport.
func TestForeignDefaultTransport(t *testing.T) { // not parallel: it changes http.DefaultTransport
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	defer func(old http.RoundTripper) { http.DefaultTransport = old }(http.DefaultTransport)
	http.DefaultTransport = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("not mine") })
	require.NoError(t, newPinger(t, server.URL, nil).Ping(t.Context()))
}

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
			status, ok := errorAs[*heartbeat.StatusError](newPinger(t, server.URL, nil).Ping(t.Context()))
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

// P5, P7: each alert that a server may send is shown, once.
func TestP5_TLSAlerts(t *testing.T) {
	t.Parallel()
	for alert := range 256 {
		base, done := greeter(t, func(conn net.Conn) {
			hello := make([]byte, 5)
			_, _ = io.ReadFull(conn, hello)
			_, _ = io.CopyN(io.Discard, conn, int64(hello[3])<<8|int64(hello[4]))
			_, _ = conn.Write([]byte{21, 3, 3, 0, 2, 2, byte(alert)})
		})
		origin := strings.Replace(base, "http", "https", 1)
		err := newPinger(t, origin+"/"+uuid, nil).Ping(t.Context())
		want := "remote error: " + tls.AlertError(alert).Error()
		if alert == 0 { // close_notify
			want = "the server closed the connection in the TLS handshake"
		}
		require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: %s", origin, want))
		require.ErrorIs(t, err, heartbeat.ErrNotSent)
		done()
	}
}

// P5: what a real server says that wants a certificate, or another version of TLS.
func TestP5_TLSAlertsOfAServer(t *testing.T) {
	t.Parallel()
	cert, _ := trustedCertificate()
	for name, row := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"1.3": {&tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}, "remote error: tls: certificate required"},
		"1.2": {&tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, "remote error: tls: handshake failure"},
		"1.0": {&tls.Config{MaxVersion: tls.VersionTLS10}, "remote error: tls: protocol version not supported"},
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
		server.TLS = row.config
		server.TLS.Certificates = []tls.Certificate{cert}
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.StartTLS()
		_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
		origin := "https://localhost:" + port
		for range 100 {
			err := newPinger(t, origin+"/"+uuid, nil).Ping(t.Context())
			require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: %s", origin, row.want), name)
		}
		server.Close()
	}
}

// greeter serves each connection with greet, and counts no requests.
func greeter(t *testing.T, greet func(conn net.Conn)) (base string, done func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepting, serving sync.WaitGroup
	var conns []net.Conn
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			serving.Go(func() {
				defer conn.Close()
				greet(conn)
			})
		}
	})
	done = sync.OnceFunc(func() {
		listener.Close()
		accepting.Wait()
		for _, conn := range conns { // a caller's transport goes on with a handshake
			conn.Close()
		}
		serving.Wait()
	})
	t.Cleanup(done)
	return "http://" + listener.Addr().String(), done
}

// P5: what a caller's dialer says in plain words is shown where it is known, and
// nothing else of it.
func TestP5_PlainWordsOfADialer(t *testing.T) {
	t.Parallel()
	for _, words := range []string{"connection refused", "no route to host", "network is unreachable", "i/o timeout", "host is unreachable", "no such host", "too many open files"} {
		for _, around := range []string{"%s", "tailnet: cannot reach peer s3cr3t: %s", "dial tcp 10.0.0.1:443: connect: %s"} {
			text := fmt.Sprintf(around, words)
			transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New(text) }}
			err := newPinger(t, "http://server.example/s3cr3t", &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}}).Ping(t.Context())
			require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": `+words)
			require.ErrorIs(t, err, heartbeat.ErrNotSent)
		}
	}
}

// P5: a SOCKS proxy's refusal is shown by its name.
func TestP5_SOCKSReplies(t *testing.T) {
	t.Parallel()
	var reply atomic.Int32
	base, _ := greeter(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		_, _ = io.CopyN(io.Discard, in, 3) // version, one method: none needed
		_, _ = conn.Write([]byte{5, 0})
		_, _ = io.CopyN(io.Discard, in, 4+1+int64(len("server.example"))+2)
		_, _ = conn.Write([]byte{5, byte(reply.Load()), 0, 1, 0, 0, 0, 0, 0, 0})
		hold(in)
	})
	proxy, err := url.Parse(strings.Replace(base, "http", "socks5", 1))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}
	for i, name := range []string{
		"general SOCKS server failure", "connection not allowed by ruleset", "network unreachable", "host unreachable",
		"connection refused", "TTL expired", "command not supported", "address type not supported",
	} {
		reply.Store(int32(i) + 1)
		err := newPinger(t, "http://server.example/"+uuid, &heartbeat.HTTPOptions{Client: client}).Ping(t.Context())
		require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": socks connect tcp: `+name)
		require.ErrorIs(t, err, heartbeat.ErrNotSent)
	}
}

// P7: where there is no connection in time, the error says what it waited for.
func TestP7_StuckAt(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	silent, _ := greeter(t, func(conn net.Conn) { hold(conn) })
	proxy, err := url.Parse(silent)
	require.NoError(t, err)
	for want, row := range map[string]struct {
		url       string
		transport http.RoundTripper
	}{
		" (waiting for the lookup)": {"http://server.example", &http.Transport{DialContext: (&net.Dialer{Resolver: &net.Resolver{
			PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, hang(ctx) },
		}}).DialContext}},
		" (waiting for the connect)": {silent, &http.Transport{DialContext: (&net.Dialer{
			ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error { return hang(ctx) },
		}).DialContext}},
		" (waiting for the TLS handshake)":                 {strings.Replace(silent, "http", "https", 1), &http.Transport{}},
		" (connected, waiting for a proxy or a handshake)": {"https://server.example", &http.Transport{Proxy: http.ProxyURL(proxy)}},
		"": {"http://server.example", &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, hang(ctx) }}},
	} {
		err := newPinger(t, row.url+"/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: row.transport}, Timeout: 100 * time.Millisecond}).Ping(t.Context())
		require.EqualError(t, err, "heartbeat: ping: no connection within 100ms"+want+": context deadline exceeded")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, heartbeat.ErrNotSent)
	}
}

// P5: a lookup that no server answers is told from a name that there is not.
func TestP5_NoDNSServer(t *testing.T) {
	t.Parallel()
	transport := &http.Transport{DialContext: (&net.Dialer{Resolver: &net.Resolver{
		PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, refused() },
	}}).DialContext}
	err := newPinger(t, "http://server.example/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}}).Ping(t.Context())
	require.ErrorContains(t, err, `Get "http://server.example": dial tcp: lookup server.example: no DNS server answers: connection refused`)
	require.ErrorIs(t, err, heartbeat.ErrNotSent)
}

// P5: who closed a connection before there was an answer.
func TestP5_ClosedWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	base, _ := greeter(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
	for scheme, want := range map[string]string{
		"http":  "the server closed the connection without an answer",
		"https": "the server closed the connection in the TLS handshake",
	} {
		origin := strings.Replace(base, "http", scheme, 1)
		err := newPinger(t, origin+"/"+uuid, nil).Ping(t.Context())
		require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: %s", origin, want))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, scheme == "https", errors.Is(err, heartbeat.ErrNotSent))
	}
}

// P2: what a server sends beyond its answer is not printed to the process's log, as
// net/http does where it arrives on an idle connection.
func TestProcessLogIsSilent(t *testing.T) { // not parallel: it takes over the log
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	for _, answer := range []string{"204 No Content\r\n", "404 Not Found\r\nContent-Length: 0\r\n", "200 OK\r\nContent-Length: 2\r\n\r\nOK"} {
		gone := make(chan struct{})
		base, _ := rawServer(t, func(conn net.Conn, in *bufio.Reader, req *http.Request) {
			defer close(gone)
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nno check at %s", answer, req.URL)
			hold(in) // ends when the client closes the connection
		})
		_ = newPinger(t, base+"/"+uuid, nil).Ping(t.Context())
		<-gone
	}
	require.Empty(t, printed.String())
}

// A pack holds back what is written to it until something is read, or it is flushed:
// so a server's last words in a handshake, and what it says next, arrive as one.
type pack struct {
	net.Conn
	held []byte
}

func (p *pack) Write(b []byte) (int, error) {
	p.held = append(p.held, b...)
	return len(b), nil
}

func (p *pack) Read(b []byte) (int, error) {
	p.flush()
	return p.Conn.Read(b)
}

func (p *pack) flush() {
	_, _ = p.Conn.Write(p.held)
	p.held = nil
}

// P2, P5: a server that speaks before it is asked is not printed to the process's log.
// What it says is taken for the answer.
func TestP5_ServerSpeaksFirst(t *testing.T) { // not parallel: it takes over the log
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	cert, _ := trustedCertificate()
	for name, row := range map[string]struct {
		answer, want string
	}{
		"an answer":        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX: /" + uuid + "\r\n\r\n", "heartbeat: server answered 404 Not Found"},
		"not HTTP":         {"220 no check at /" + uuid + "\r\n", "malformed HTTP"},
		"half the headers": {"HTTP/1.1 200 OK\r\nX: /" + uuid, "unexpected EOF"},
	} {
		for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			base, done := greeter(t, func(conn net.Conn) {
				if version == 0 {
					_, _ = io.WriteString(conn, row.answer)
					_ = conn.(*net.TCPConn).CloseWrite()
					hold(conn)
					return
				}
				packed := &pack{Conn: conn}
				server := tls.Server(packed, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version})
				if server.Handshake() == nil {
					_, _ = io.WriteString(server, row.answer)
					packed.flush()
					_ = conn.(*net.TCPConn).CloseWrite()
					hold(conn)
				}
			})
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
			origin := "http://127.0.0.1:" + port
			if version != 0 {
				origin = "https://localhost:" + port
			}
			p := newPinger(t, origin+"/"+uuid, nil)
			for range 50 { // what net/http does depends on who is first
				err := p.Ping(t.Context())
				require.ErrorContains(t, err, row.want, "%s, TLS %x", name, version)
				requireNone(t, errorTexts(err), uuid)
				require.NotErrorIs(t, err, heartbeat.ErrNotSent)
			}
			done()
			require.Empty(t, printed.String(), "%s, TLS %x", name, version)
		}
	}
}
