// The pinger's own client trusts the roots of x509.SetFallbackRoots in place of the
// system's.
//go:debug x509usefallbackroots=1

package heartbeat_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// The ways in which a server breaks off after it has read a request.
var breaks = map[string]func(conn net.Conn, in *bufio.Reader){
	"closes":                 func(net.Conn, *bufio.Reader) {},
	"resets":                 func(conn net.Conn, _ *bufio.Reader) { reset(conn) },
	"half a status line":     answers("HTTP/1."),
	"half the headers":       answers("HTTP/1.1 200 OK\r\nX: y"),
	"103, then the end":      answers("HTTP/1.1 103 Early Hints\r\n\r\n"),
	"100, then the end":      answers("HTTP/1.1 100 Continue\r\n\r\n"),
	"half the body":          answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nOK"),
	"half a chunk":           answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nOK"),
	"408":                    answers("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"),
	"421":                    answers("HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n"),
	"500":                    answers("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
	"bytes after a 204":      answers("HTTP/1.1 204 No Content\r\n\r\nno check at /SECRET"),
	"bytes after the length": answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOKno check at /SECRET"),
}

func answers(text string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(conn, text) }
}

// acceptor serves HTTP/1.1, or HTTPS, by hand: the first request on the first
// connection is answered and its connection kept; all others break.
func acceptor(t *testing.T, config *tls.Config, breakOff func(net.Conn, *bufio.Reader)) (address string, requests *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	requests = new(atomic.Int32)
	var wg sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		in, out := bufio.NewReader(conn), conn
		if config != nil {
			out = tls.Server(conn, config)
			defer out.Close()
			in = bufio.NewReader(out)
		}
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if req.URL.Path == "/warm" {
				_, _ = io.WriteString(out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
				continue
			}
			requests.Add(1)
			if config != nil { // to reset is TCP's business
				if _, ok := out.(*tls.Conn); ok {
					breakOff(tlsConn{out, conn}, in)
					return
				}
			}
			breakOff(out, in)
			return
		}
	}
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return listener.Addr().String(), requests
}

// trustedCertificate returns a certificate for localhost that the pinger's own client
// trusts too, and a pool that trusts it.
var trustedCertificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	cert, pool := makeCertificate("localhost", time.Now().AddDate(0, 1, 0))
	x509.SetFallbackRoots(pool)
	return cert, pool
})

// A tlsConn can be reset as its TCP connection can.
type tlsConn struct {
	net.Conn
	tcp net.Conn
}

// P2, P7: whatever a server does, one Ping is one request: with the pinger's own
// client, and with a caller's on a kept connection, its transport wrapped or not.
func TestOnePingIsOneRequest(t *testing.T) {
	t.Parallel()
	cert, pool := trustedCertificate()
	for name, breakOff := range breaks {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			for _, scheme := range []string{"http", "https"} {
				for _, kind := range []string{"own", "caller's", "wrapped"} {
					t.Run(strings.Join([]string{name, method, scheme, kind}, "/"), func(t *testing.T) {
						t.Parallel()
						var config *tls.Config
						if scheme == "https" {
							config = &tls.Config{Certificates: []tls.Certificate{cert}}
						}
						address, requests := acceptor(t, config, func(conn net.Conn, in *bufio.Reader) {
							if both, ok := conn.(tlsConn); ok && name == "resets" {
								conn = both.tcp
							}
							breakOff(conn, in)
						})
						_, port, _ := net.SplitHostPort(address)
						base := scheme + "://localhost:" + port
						opts := &heartbeat.HTTPOptions{Method: method}
						if method == "POST" {
							opts.Body = "why"
						}
						if kind != "own" {
							transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
							defer transport.CloseIdleConnections()
							opts.Client = &http.Client{Transport: transport}
							if kind == "wrapped" {
								opts.Client.Transport = roundTripFunc(transport.RoundTrip)
							}
							require.NoError(t, newPinger(t, base+"/warm", &heartbeat.HTTPOptions{Client: opts.Client}).Ping(t.Context()))
						}
						err := newPinger(t, base+"/SECRET", opts).Ping(t.Context())
						require.Equal(t, int32(1), requests.Load(), "%v", err)
						require.NotErrorIs(t, err, heartbeat.ErrNotSent)
						requireNone(t, errorTexts(err), "SECRET")
					})
				}
			}
		}
	}
}

// P2: a caller's kept connection goes on being used, and is not closed by a ping.
func TestCallersConnectionIsKept(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		var opened atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/abort" {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, strings.Repeat("x", 10<<10))
		}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.EnableHTTP2 = http2
		server.StartTLS()
		opts := &heartbeat.HTTPOptions{Client: server.Client()}
		for range 3 {
			require.NoError(t, newPinger(t, server.URL, opts).Ping(t.Context()))
			if http2 { // a stream that breaks is no reason to close what others use
				require.ErrorContains(t, newPinger(t, server.URL+"/abort", opts).Ping(t.Context()), "stream error")
			}
		}
		require.Equal(t, int32(1), opened.Load(), "HTTP/2: %v", http2)
		server.Close()
	}
}

// P2: the pinger's own client has a connection for each ping, and no HTTP/2.
func TestOwnConnections(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || !r.Close {
			t.Errorf("%s, close %v", r.Proto, r.Close)
		}
	}))
	done := make(chan struct{}, 10)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed.Add(1)
			done <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	p := newPinger(t, server.URL, nil)
	for n := range int32(3) {
		require.NoError(t, p.Ping(t.Context()))
		<-done
		require.Equal(t, n+1, opened.Load())
		require.Equal(t, n+1, closed.Load())
	}
}

// P2: a TLS handshake that hangs ends with the ping: its connection is closed, and
// no goroutine is left with it.
func TestHungHandshake(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	released := make(chan struct{})
	go func() {
		defer close(released)
		conn, err := listener.Accept()
		if err == nil {
			_, _ = io.Copy(io.Discard, conn) // ends when the client closes it
			conn.Close()
		}
	}()
	p := newPinger(t, "https://"+listener.Addr().String()+"/"+uuid, &heartbeat.HTTPOptions{Timeout: 100 * time.Millisecond})
	err = p.Ping(t.Context())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, heartbeat.ErrNotSent)
	require.EqualError(t, err, "heartbeat: ping: no connection within 100ms (waiting for the TLS handshake): context deadline exceeded")
	select {
	case <-released:
	case <-t.Context().Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the connection outlives the ping")
	}
}

// P7: what proves that nothing left matches ErrNotSent, and so does its cause.
func TestNotSent(t *testing.T) {
	t.Parallel()
	errNoRoute := errors.New("no route")
	for _, row := range []struct {
		name    string
		err     error
		notSent bool
	}{
		{"refused", refused(), true},
		{"DNS", &net.DNSError{Err: "no such host", Name: "server.example", IsNotFound: true}, true},
		{"certificate", &tls.CertificateVerificationError{Err: errNoRoute}, true},
		{"not TLS", tls.RecordHeaderError{Msg: "x"}, true},
		{"proxy", &net.OpError{Op: "proxyconnect", Err: errNoRoute}, true},
		{"write", &net.OpError{Op: "write", Err: syscall.EPIPE}, false},
		{"read", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		{"unknown", errNoRoute, false},
		{"EOF", io.EOF, false},
	} {
		for _, redirected := range []bool{false, true} {
			n := 0
			err := newPinger(t, "http://server.example/connection/refused", viaFunc(func(req *http.Request) (*http.Response, error) {
				if n++; n == 1 && redirected {
					return answerWith(req, 302, http.Header{"Location": {"/elsewhere"}}, ""), nil
				}
				return nil, row.err
			})).Ping(t.Context())
			require.Equal(t, row.notSent && !redirected, errors.Is(err, heartbeat.ErrNotSent), "%s: %v", row.name, err)
			if _, ok := row.err.(tls.RecordHeaderError); !ok {
				require.ErrorIs(t, err, row.err)
			}
		}
	}
	err := newPinger(t, "http://server.example/connection/refused", viaFunc(func(*http.Request) (*http.Response, error) { return nil, refused() })).Ping(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.EqualError(t, err, `heartbeat: ping: Get "http://server.example": dial tcp: connect: connection refused`)
}

// P1: {reason} is replaced in the query and in the body, and nowhere else; without
// a Result it is nothing; a path cannot break out of either.
func TestReason(t *testing.T) {
	t.Parallel()
	var uris, bodies, types []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		uris, bodies, types = append(uris, r.RequestURI), append(bodies, string(body)), append(types, r.Method+" "+r.Header.Get("Content-Type"))
		if r.URL.Path == "/307" {
			http.Redirect(w, r, "/next?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	evil := "/data/a&status=up#\r\nX: y {reason}"
	reporter := heartbeattest.NewReporter(evil)
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter.Set(clock.Now())
	fail := newPinger(t, server.URL+"/307?status=down&msg={reason}&ping=", &heartbeat.HTTPOptions{Body: "down: {reason}."})
	require.Equal(t, server.URL+"/307?status=down&msg={reason}&ping=", fail.String())
	log := slog.New(slog.DiscardHandler)
	m, err := heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: clock, Logger: log, FailPinger: fail})
	require.NoError(t, err)
	m.Beat(t.Context())
	clock.Advance(time.Hour)
	reason := m.Beat(t.Context()).String()
	require.Contains(t, reason, "/data/a")

	require.Len(t, uris, 2)
	for i, uri := range uris {
		_, query, _ := strings.Cut(uri, "?")
		values, err := url.ParseQuery(query)
		require.NoError(t, err)
		require.Equal(t, url.Values{"status": {"down"}, "msg": {reason}, "ping": {""}}, values)
		require.Equal(t, "down: "+reason+".", bodies[i])
		require.Equal(t, "POST text/plain; charset=utf-8", types[i])
	}

	p := newPinger(t, server.URL+"/?m={reason}", &heartbeat.HTTPOptions{Body: "{reason}", Method: "put"})
	require.NoError(t, p.Ping(t.Context()), "without a Result")
	require.Equal(t, "/?m=", uris[2])
	require.Empty(t, bodies[2])
	for _, method := range []string{"get", "HEAD"} {
		_, err := heartbeat.NewHTTPPinger(server.URL, &heartbeat.HTTPOptions{Method: method, Body: "x"})
		require.ErrorContains(t, err, "servers ignore")
	}
}

// P6: a pinger that ends its goroutine is a failed ping with one target too, and
// the caller's goroutine goes on.
func TestGoexitWithOneTarget(t *testing.T) {
	t.Parallel()
	exits := heartbeat.PingerFunc(func(context.Context) error {
		runtime.Goexit()
		return nil
	})
	result, _ := beatOnce(t, exits)
	require.EqualError(t, result.Err, "heartbeat: pinger ended its goroutine")
	require.EqualError(t, heartbeat.MultiPinger(exits).Ping(t.Context()), "target 1: heartbeat: pinger ended its goroutine")
}

// P2: a packed answer of nothing but empty members is bounded in what is read.
func TestPackedBomb(t *testing.T) {
	t.Parallel()
	var member bytes.Buffer
	require.NoError(t, gzip.NewWriter(&member).Close())
	read := 0
	err := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
		resp := answerWith(req, 200, http.Header{"Content-Encoding": {"GZIP"}}, "")
		resp.ContentLength = -1
		resp.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
			n := 0
			for ; n < len(p); n++ {
				p[n] = member.Bytes()[(read+n)%member.Len()]
			}
			read += n
			return n, nil
		}))
		return resp, nil
	})).Ping(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, read, 64<<10)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// P2, P7: on a caller's kept connection net/http itself would repeat a GET that broke
// there before the answer, though the server has read it and may have acted on it.
func TestP7_KeptConnectionBreaks(t *testing.T) {
	t.Parallel()
	for n := range 30 { // what net/http does depends on who is first
		var second atomic.Bool
		base, requests := rawServer(t, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
			if !second.Swap(true) {
				_, _ = http.ReadRequest(in) // and no answer
			}
		})
		transport := &http.Transport{}
		client := &http.Client{Transport: transport}
		opts := &heartbeat.HTTPOptions{Client: client}
		switch n % 3 {
		case 1:
			opts.Header = http.Header{"Host": {"virtual.example"}}
		case 2: // the caller's transport sends the ping elsewhere
			host := strings.TrimPrefix(base, "http://")
			client.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
				req = req.Clone(req.Context())
				req.URL.Host, req.Host = host, "virtual.example"
				return transport.RoundTrip(req)
			})
			base = "http://ping.example"
		}
		p := newPinger(t, base+"/"+uuid, opts)
		require.NoError(t, p.Ping(t.Context()))
		err := p.Ping(t.Context())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: connection lost before the answer: unexpected EOF", base))
		require.NotErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, heartbeat.ErrNotSent)
		require.Equal(t, int32(1), requests.Load(), "the lost one, which the handler read, is not repeated")
		transport.CloseIdleConnections()
	}
}

// A laterListener accepts the connections that it is sent.
type laterListener struct {
	net.Listener
	conns chan net.Conn
}

func (l laterListener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

// P2, P7: a connection that net/http would repeat a ping on is left open if it speaks HTTP/2,
// though the first one did not.
func TestP7_RepeatedByHTTP2(t *testing.T) {
	t.Parallel()
	cert, pool := newCertificate(t, "localhost", time.Now().AddDate(0, 1, 0))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	later := laterListener{listener, make(chan net.Conn)}
	var accepted, pings atomic.Int32
	var serving sync.WaitGroup
	serving.Go(func() {
		defer close(later.conns)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if accepted.Add(1) > 1 {
				later.conns <- conn
				continue
			}
			serving.Go(func() {
				secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
				in := bufio.NewReader(secure)
				_, _ = http.ReadRequest(in)
				_, _ = io.WriteString(secure, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
				_, _ = http.ReadRequest(in) // and no answer
				_ = secure.Close()
			})
		}
	})
	server := &http.Server{
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) { pings.Add(1) }),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}},
	}
	serving.Go(func() { _ = server.ServeTLS(later, "", "") })
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	p := newPinger(t, "https://localhost:"+port, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}})
	require.NoError(t, p.Ping(t.Context()))
	require.ErrorIs(t, p.Ping(t.Context()), io.ErrUnexpectedEOF)
	require.Zero(t, pings.Load())
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, int32(1), pings.Load())
	require.Equal(t, int32(2), accepted.Load())
	transport.CloseIdleConnections()
	require.NoError(t, listener.Close())
	_ = server.Close() // which closes the listener once more
	serving.Wait()
}

// frame is an HTTP/2 frame.
func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	b := []byte{0, 0, byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// P2, P7: what an HTTP/2 server has refused, net/http would repeat.
func TestP7_RefusedByHTTP2(t *testing.T) {
	t.Parallel()
	const headers, resetStream, settings, goAway = 1, 3, 4, 7
	const endHeaders = 4
	earlyHints := frame(headers, endHeaders, 1, 0x08, 3, '1', '0', '3') // :status 103
	for name, refusal := range map[string][]byte{
		"REFUSED_STREAM":              frame(resetStream, 0, 1, 0, 0, 0, 7),
		"GOAWAY":                      frame(goAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"103 and then PROTOCOL_ERROR": append(earlyHints, frame(resetStream, 0, 1, 0, 0, 0, 1)...),
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
			t.Run(name+"/"+method, func(t *testing.T) {
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
							_, _ = conn.Write(frame(settings, 0, 0))
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
				err = newPinger(t, "https://localhost:"+port+"/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}, Method: method}).Ping(t.Context())
				require.Error(t, err)
				require.NotErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, heartbeat.ErrNotSent)
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
}

// A transport or a dialer of the caller's may make a request of its own with the ping's ctx. That
// is no first try of the ping.
func TestP2_RequestsOfTheClient(t *testing.T) {
	t.Parallel()
	pings := make(chan string, 100)
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { pings <- "ping" }))
	defer service.Close()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer other.Close()
	ask := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, other.URL, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	rewritten, err := url.Parse(service.URL)
	require.NoError(t, err)
	for name, transport := range map[string]http.RoundTripper{
		"none, but for another name": roundTripFunc(func(req *http.Request) (*http.Response, error) {
			req = req.Clone(req.Context())
			req.URL.Host, req.Host = rewritten.Host, "virtual.example"
			return http.DefaultTransport.RoundTrip(req)
		}),
		"for a token": roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if err := ask(req.Context()); err != nil {
				return nil, err
			}
			return http.DefaultTransport.RoundTrip(req)
		}),
		"for an address": &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if err := ask(ctx); err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}},
	} {
		p := newPinger(t, service.URL, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}})
		for range 2 {
			require.NoError(t, p.Ping(t.Context()), name)
			require.Len(t, pings, 1)
			<-pings
		}
	}
}

// P2: where a ping's stream is refused, a caller's HTTP/2 connection stays open for
// the requests of others on it, also without TLS, and with TLS that has agreed on no
// protocol.
func TestP2_RefusedStreamLeavesTheConnection(t *testing.T) {
	t.Parallel()
	const headers, resetStream, settings = 1, 3, 4
	const endStream, endHeaders = 1, 4
	cert, pool := newCertificate(t, "localhost", time.Now().AddDate(0, 1, 0))
	client := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	for name, row := range map[string]struct {
		scheme string
		server *tls.Config // nil: no TLS
		dial   func(ctx context.Context, network, address string) (net.Conn, error)
	}{
		"no TLS":                 {"http", nil, nil},
		"TLS":                    {"https", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}, nil},
		"TLS without a protocol": {"http", &tls.Config{Certificates: []tls.Certificate{cert}}, (&tls.Dialer{Config: client}).DialContext},
	} {
		var accepted, pings atomic.Int32
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		if row.server != nil {
			listener = tls.NewListener(listener, row.server)
		}
		var serving sync.WaitGroup
		finish := make(chan struct{})
		serving.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			defer conn.Close()
			in := bufio.NewReader(conn)
			_, _ = io.CopyN(io.Discard, in, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
			_, _ = conn.Write(frame(settings, 0, 0))
			for {
				head := make([]byte, 9)
				if _, err := io.ReadFull(in, head); err != nil {
					return
				}
				_, _ = io.CopyN(io.Discard, in, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
				stream := binary.BigEndian.Uint32(head[5:])
				if head[3] == headers && stream > 1 { // the first is the other request
					pings.Add(1)
					_, _ = conn.Write(frame(resetStream, 0, stream, 0, 0, 0, 7)) // REFUSED_STREAM
					serving.Go(func() {
						<-finish
						_, _ = conn.Write(frame(headers, endHeaders|endStream, 1, 0x88)) // :status 200
					})
				}
			}
		})
		protocols := new(http.Protocols)
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols, TLSClientConfig: client.Clone(), DialContext: row.dial}
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		base := row.scheme + "://localhost:" + port
		sending := make(chan struct{})
		other := make(chan error, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteHeaders: func() { close(sending) }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/other", nil)
		require.NoError(t, err)
		go func() {
			resp, err := transport.RoundTrip(req)
			if err == nil {
				err = resp.Body.Close()
			}
			other <- err
		}()
		<-sending
		err = newPinger(t, base+"/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}}).Ping(t.Context())
		require.ErrorContains(t, err, "connection lost before the answer", name)
		require.Equal(t, int32(1), pings.Load())
		close(finish)
		require.NoError(t, <-other, name)
		require.Equal(t, int32(1), accepted.Load())
		transport.CloseIdleConnections()
		listener.Close()
		serving.Wait()
	}
}
