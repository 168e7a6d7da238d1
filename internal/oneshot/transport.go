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
	"sync/atomic"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

const readBuffer = 4 << 10 // an answer is read by so many bytes at a time

// newTransport returns a transport with a connection for each request, which ends with it.
// Kept ones were rejected: pings are a minute apart and servers close idle connections
// sooner; net/http repeats a request on one that broke; and it prints what arrives on an
// idle one to the process's log. HTTP/2 was rejected too, since it keeps connections and
// repeats requests by design. A transport with a dialer of its own has it only with
// ForceAttemptHTTP2.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         readBuffer,
		// net/http goes on dialling and shaking hands after the request's end, with
		// a ctx that only has the values of the request's. Its timeouts for each step were
		// rejected: an operator sets one for the ping, and the steps share it.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			a := attemptOf(ctx)
			dialled, err := new(net.Dialer).DialContext(a.ctx, network, address)
			if err != nil {
				return nil, err
			}
			c := newConn(a.ctx, dialled)
			a.conn.Store(c)
			a.stage.Store(proxy) // or the handshake, at once
			context.AfterFunc(a.ctx, func() { _ = c.Close() })
			return c, nil
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return redact.ProxyStatus(resp.StatusCode) // net/http shows the words beside it
			}
			return nil
		},
	}
}

// A conn is a connection from which net/http reads nothing before it writes: not at the
// start, and not again after a TLS handshake. On another connection net/http reads
// immediately. If a server speaks before it is asked, and the request is not there yet,
// net/http prints the server's words to the process's log and the request fails.
//
// Two exchanges come before the request, and must be read.
//
// In a TLS handshake, a read ends where a record ends. crypto/tls reads until it has the
// record that it wants, into a buffer with room for more. So it would take along what follows
// its last record, and net/http would find it there at once. To hand out single bytes was
// rejected: with a chain of four KB, a ping took 15 % more CPU time.
//
// With a SOCKS proxy, a write to the proxy does not count as a request. The proxy's replies
// are read a few bytes at a time, before any handshake, and such reads do not wait. A read
// for an answer is larger, and waits.
//
// A deadline does not end a read that waits. net/http sets one for SOCKS alone.
type conn struct {
	net.Conn
	ctx context.Context // ends with the attempt, and so does a read that waits
	in  *bufio.Reader   // what Conn has sent

	// Before, during and right after a handshake, net/http uses the connection from one
	// goroutine at a time. It reads and writes at the same time only later.
	written         chan struct{} // holds a value once there is something to be answered
	shaking, secure bool          // whether a handshake is going on, and whether there ever was one
	rest            int           // bytes that are left of the handshake's record
}

func newConn(ctx context.Context, dialled net.Conn) *conn {
	return &conn{Conn: dialled, ctx: ctx, in: bufio.NewReader(dialled), written: make(chan struct{}, 1)}
}

// setShaking says that a handshake begins or has ended. What was written before counts
// for no read after that. c is nil where the transport is a caller's.
func (c *conn) setShaking(shaking bool) {
	if c != nil {
		c.shaking, c.secure, c.rest, c.written = shaking, true, 0, make(chan struct{}, 1)
	}
}

// Read reads from the connection, once something has been written to it.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.shaking:
		if c.rest == 0 {
			c.rest = 1 // and so on, if the stream ends here
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

// Write writes to the connection. What is asked may be answered from then on.
func (c *conn) Write(p []byte) (int, error) {
	// No method and no record of TLS begins so. Version 5 of SOCKS does, and version 1
	// of its authentication.
	if socks := len(p) > 0 && p[0] <= 5; !socks {
		c.open()
	}
	return c.Conn.Write(p)
}

// open lets reads go on. Write and Read may both be about to do so, and the second must
// not wait: hence the default.
func (c *conn) open() {
	select {
	case c.written <- struct{}{}:
	default:
	}
}

// noRetry keeps net/http's transport from repeating a request on a new connection,
// or in a new HTTP/2 stream, when the old one breaks, though the server may have
// acted on it. A body without GetBody would do so too. It was rejected, since over
// HTTP/2 net/http then sends a body with a GET, and a chunked one with a POST that
// has none.
type noRetry struct{ next http.RoundTripper }

var errNoAnswer = fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF)

// RoundTrip ends a request that gets a second connection after it was written to a first.
// One that was not written yet may have another: nothing has left.
//
// An HTTP/2 connection looks at the request's ctx before it writes, and others share it. An
// HTTP/1 connection does not look, and is this request's alone: so it is closed.
func (t noRetry) RoundTrip(req *http.Request) (*http.Response, error) {
	var first atomic.Pointer[string] // the name of the field that was written first; nil: none was
	ctx, stop := context.WithCancelCause(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// WroteHeaders would come too late: an HTTP/2 server may have refused the request before.
		WroteHeaderField: func(name string, _ []string) { first.CompareAndSwap(nil, &name) },
		GotConn: func(info httptrace.GotConnInfo) {
			if first.Load() == nil {
				return
			}
			stop(errNoAnswer)
			// A *tls.Conn may say what it speaks. Of another, what the first connection spoke is
			// the best guess: HTTP/1 writes "Host" first, and HTTP/2 has ":authority" in its place.
			speaksHTTP1 := *first.Load() == "Host"
			if secure, ok := info.Conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != "" {
				speaksHTTP1 = secure.ConnectionState().NegotiatedProtocol == "http/1.1"
			}
			if speaksHTTP1 {
				_ = info.Conn.Close()
			}
		},
	})
	resp, err := cmp.Or(t.next, http.DefaultTransport).RoundTrip(req.WithContext(ctx))
	if err != nil && context.Cause(ctx) == errNoAnswer { //nolint:errorlint // it is wrapped by nothing
		err = errNoAnswer
	}
	return resp, err // the body is read with ctx, which ends with that of the attempt
}
