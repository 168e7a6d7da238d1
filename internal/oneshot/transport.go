package oneshot

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

const (
	readBuffer = 4 << 10 // an answer is read in pieces of this size

	// maxRead is how many bytes are read from a connection, with all handshakes and answers. A
	// certificate chain may have a quarter of that in crypto/tls. Go 1.25 sets no bound to a proxy's
	// answer to CONNECT.
	maxRead = 1 << 20
)

// newTransport returns a transport that makes a connection for each request and closes it after
// the request. Kept connections were rejected: pings are a minute apart, and servers close idle
// connections sooner. net/http repeats a request if a kept connection broke, and it prints to the
// process's log what arrives on an idle connection. HTTP/2 was rejected too, since it keeps
// connections and repeats requests by design. A transport with its own DialContext does not use
// HTTP/2 unless ForceAttemptHTTP2 is set.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         readBuffer,
		// net/http goes on dialling and shaking hands after the request's end, with a ctx that only has
		// the values of the request's ctx. net/http's timeouts for single steps were rejected: an operator
		// sets one timeout for the ping, and it covers all steps.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			a := attemptOf(ctx)
			dialled, err := new(net.Dialer).DialContext(a.ctx, network, address)
			if err != nil {
				return nil, err
			}
			c := newConn(a.ctx, dialled)
			a.conn.Store(c)
			a.stage.Store(proxy) // if a TLS handshake follows instead, TLSHandshakeStart replaces this at once
			context.AfterFunc(a.ctx, func() { _ = c.Close() })
			return c, nil
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return redact.ProxyStatus(resp.StatusCode) // net/http's own error is the text after the status code, which a proxy can choose
			}
			return nil
		},
	}
}

// A conn is a connection from which net/http reads nothing before it writes: not at the start, and
// not again after a TLS handshake. On another connection net/http reads immediately. If a server
// then sends something before the request is there, net/http prints that to the process's log and
// the request fails.
//
// Two exchanges come before the request, and must be read.
//
// In a TLS handshake, a read ends where a record ends. crypto/tls reads until it has the record
// that it wants, into a buffer with room for more. So crypto/tls would also read bytes that follow
// the last record of the handshake, and net/http would get them before it writes the request. To
// hand out single bytes was rejected: with a certificate chain of four KB, a ping took 15 % more
// CPU time.
//
// With a SOCKS proxy, a write to the proxy does not count as a request. The proxy's replies
// are read a few bytes at a time, before any handshake, and such reads do not wait. A read
// for an answer is larger, and waits.
//
// A deadline does not end a read that waits. net/http sets a deadline for SOCKS only.
type conn struct {
	net.Conn
	ctx context.Context // a read that waits ends with it
	in  *bufio.Reader   // buffers what Conn receives

	// Before, during and right after a handshake, net/http uses the connection from one goroutine at a
	// time. It reads and writes at the same time only later. So these fields need no lock.
	written         chan struct{} // holds a value once something was written that may be answered
	shaking, secure bool          // whether a handshake is going on, and whether there ever was one
	rest            int           // how many bytes are left of the handshake's current record
}

func newConn(ctx context.Context, dialled net.Conn) *conn {
	in := bufio.NewReader(io.LimitReader(dialled, maxRead))
	return &conn{Conn: dialled, ctx: ctx, in: in, written: make(chan struct{}, 1)}
}

// setShaking says that a handshake begins or has ended. A write before this call does not release
// a read after it. c is nil if the transport is a caller's.
func (c *conn) setShaking(shaking bool) {
	if c != nil {
		c.shaking, c.secure, c.written = shaking, true, make(chan struct{}, 1)
	}
}

// Read reads from the connection, once something has been written to it.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.shaking:
		if c.rest == 0 {
			c.rest = 1 // if no whole header can be read, read on byte by byte, until the stream's error
			if header, err := c.in.Peek(5); err == nil {
				c.rest = 5 + int(header[3])<<8 + int(header[4])
			}
		}
		n, err := c.in.Read(p[:min(len(p), c.rest)])
		c.rest -= n
		return n, err
	case c.secure || len(p) >= readBuffer:
		select {
		case <-c.written:
			c.open() // for the next read
		case <-c.ctx.Done():
			return 0, net.ErrClosed
		}
	}
	return c.in.Read(p)
}

// Write writes to the connection. After that, the next read may go on.
func (c *conn) Write(p []byte) (int, error) {
	// A first byte of 5 or less is SOCKS: its version is 5, and the version of its authentication is
	// 1. HTTP methods and TLS records begin with larger bytes.
	if socks := len(p) > 0 && p[0] <= 5; !socks {
		c.open()
	}
	return c.Conn.Write(p)
}

// open lets the next read go on. A value may already be there, from a Write or a Read. Then open
// must not block: hence the default.
func (c *conn) open() {
	select {
	case c.written <- struct{}{}:
	default:
	}
}

// noRetry keeps net/http's transport from repeating a request on a new connection, or in a new
// HTTP/2 stream, when the old one breaks: the server may already have acted on the request. To
// give each request a body without GetBody would also prevent a repetition. That was rejected:
// over HTTP/2, net/http would then send a body with a GET, and a chunked body with a POST that has
// no body.
type noRetry struct{ next http.RoundTripper }

var errNoAnswer = fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF)

// RoundTrip ends a request that gets a second connection after it was written to a first. A
// request that was not written yet may get another connection, because nothing has left.
//
// To end the ctx is enough for an HTTP/2 connection, which checks the request's ctx before it
// writes. The connection stays open, because other requests share it. An HTTP/1 connection does
// not check the ctx, and only this request uses it. So it is closed.
func (t noRetry) RoundTrip(req *http.Request) (*http.Response, error) {
	var first atomic.Pointer[string] // the name of the field that was written first; nil: nothing was written
	host, elsewhere := Authority(&url.URL{Host: cmp.Or(req.Host, req.URL.Host)}), atomic.Bool{}
	ctx, stop := context.WithCancelCause(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// WroteHeaders would come too late: an HTTP/2 server may have refused the request before that.
		WroteHeaderField: func(name string, values []string) {
			if first.CompareAndSwap(nil, &name) {
				elsewhere.Store(Authority(&url.URL{Host: strings.Join(values, "")}) != host)
			}
		},
		// What a caller's transport or dialer asks another host with the ctx, for a token or an address, is
		// answered before this request is written. Other answers do not count: an HTTP/2 server may refuse
		// a request after a 103, and net/http repeats it.
		GotFirstResponseByte: func() {
			if elsewhere.Load() {
				first.Store(nil)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			field := first.Load()
			if field == nil {
				return
			}
			stop(errNoAnswer)
			// A *tls.Conn may know its protocol. For any other connection, the protocol of the first
			// connection is the best guess: HTTP/1 writes "Host" first, and HTTP/2 has ":authority" in its
			// place.
			speaksHTTP1 := *field == "Host"
			if secure, ok := info.Conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != "" {
				speaksHTTP1 = secure.ConnectionState().NegotiatedProtocol == "http/1.1"
			}
			if speaksHTTP1 {
				_ = info.Conn.Close()
			}
		},
	})
	resp, err := cmp.Or(t.next, http.DefaultTransport).RoundTrip(req.WithContext(ctx))
	if err != nil && context.Cause(ctx) == errNoAnswer { //nolint:errorlint // nothing wraps it
		err = errNoAnswer
	}
	return resp, err // the body is read with ctx, so ctx ends only with the ctx of the attempt
}
