package oneshot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

const (
	maxHeader  = 64 << 10 // an answer's header bytes that are taken
	readBuffer = 4 << 10  // an answer is read by so many bytes at a time
)

// newTransport returns a transport with a connection for each request, which ends
// with it. Kept ones were rejected: pings are a minute apart and servers close idle
// connections sooner; net/http repeats a request on one that broke; and it prints
// what arrives on an idle one to the process's log. It has HTTP/1.1 only, since
// HTTP/2 keeps and repeats by design.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := new(net.Dialer)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		Protocols:              protocols,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         readBuffer,
		// net/http goes on dialling and shaking hands after the request's end, with
		// a ctx that only has the values of the request's.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			a := attemptOf(ctx)
			dialled, err := dialer.DialContext(a.ctx, network, address)
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

// A conn is a connection from which net/http reads nothing before it writes: not at
// the start, and not again after a TLS handshake. net/http alone reads at once. If a
// server speaks before it is asked, and the request is not there yet, net/http prints
// the server's words to the process's log and the request fails.
//
// During a handshake, one read ends at the end of a TLS record. crypto/tls would
// otherwise take along what follows its last record, and net/http would find it there.
//
// An exchange with a SOCKS proxy opens no gate. The proxy's replies are read by a few
// bytes, and an answer is not, so a read for an answer still waits.
type conn struct {
	net.Conn
	ctx   context.Context // ends with the attempt
	gate  atomic.Pointer[gate]
	socks atomic.Bool // whether the latest write was to a SOCKS proxy

	// Of a handshake. net/http begins and ends one, and reads before, in it and
	// after, with one goroutine at a time.
	framed bool
	header []byte // of the record, as far as it has come
	rest   int    // of the record, still to come
}

// A gate is passed by reads once it is open.
type gate struct {
	opened <-chan struct{}
	open   func()
}

const recordHeader = 5 // bytes; the last two are the length of what follows

func newConn(ctx context.Context, dialled net.Conn) *conn {
	c := &conn{Conn: dialled, ctx: ctx}
	c.hold()
	return c
}

// hold makes reads wait for the next write, or for the attempt's end.
func (c *conn) hold() {
	ctx, open := context.WithCancel(c.ctx)
	c.gate.Store(&gate{ctx.Done(), open})
}

func (c *conn) startHandshake() { c.framed, c.header, c.rest = true, nil, 0 }

func (c *conn) endHandshake() {
	c.framed = false
	c.hold()
}

// Read reads from the connection, once something has been written to it.
func (c *conn) Read(p []byte) (int, error) {
	if !c.socks.Load() || len(p) >= readBuffer {
		<-c.gate.Load().opened
	}
	switch {
	case c.ctx.Err() != nil: // it was not a write that opened the gate
		return 0, net.ErrClosed
	case !c.framed:
		return c.Conn.Read(p)
	case c.rest > 0:
		n, err := c.Conn.Read(p[:min(len(p), c.rest)])
		c.rest -= n
		return n, err
	}
	n, err := c.Conn.Read(p[:min(len(p), recordHeader-len(c.header))])
	if c.header = append(c.header, p[:n]...); len(c.header) == recordHeader {
		c.rest = int(c.header[3])<<8 | int(c.header[4])
		c.header = nil
	}
	return n, err
}

// Write writes to the connection. What is asked may be answered from then on.
func (c *conn) Write(p []byte) (int, error) {
	// No method and no record of TLS begins so. Version 5 of SOCKS does, and version 1
	// of its authentication.
	c.socks.Store(len(p) > 0 && p[0] <= 5)
	if !c.socks.Load() {
		c.gate.Load().open()
	}
	return c.Conn.Write(p)
}

// Close closes the connection, and ends a read that waits.
func (c *conn) Close() error {
	defer c.gate.Load().open()
	return c.Conn.Close()
}

// SetDeadline sets a deadline for reads and writes.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets a deadline for reads. A read that waits goes on, to end with
// it. net/http sets none while one waits.
func (c *conn) SetReadDeadline(t time.Time) error {
	defer c.gate.Load().open()
	return c.Conn.SetReadDeadline(t)
}

// noRetry keeps net/http's transport from repeating a request on a new connection,
// or in a new HTTP/2 stream, when the old one breaks, though the server may have
// acted on it. A body without GetBody would do so too. It was rejected, since over
// HTTP/2 net/http then sends a body with a GET, and a chunked one with a POST that
// has none.
type noRetry struct{ next http.RoundTripper }

var errNoAnswer = fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF)

func (t noRetry) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	var http1, written, repeated atomic.Bool
	ctx, cancel := context.WithCancel(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// HTTP/1 writes this field first. HTTP/2 has ":authority" in its place.
		WroteHeaderField: func(key string, _ []string) { http1.CompareAndSwap(false, key == "Host") },
		WroteHeaders:     func() { written.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) {
			if !written.Load() {
				return
			}
			repeated.Store(true)
			cancel()
			// An HTTP/2 connection looks at ctx before it writes, and others share it.
			// An HTTP/1 connection does not, and is this request's alone.
			if speaksHTTP1(info.Conn, http1.Load()) {
				_ = info.Conn.Close()
			}
		},
	})
	resp, err := next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		if repeated.Load() {
			err = errNoAnswer
		}
	}
	return resp, err // the body is read with ctx, which ends with that of the attempt
}

// speaksHTTP1 reports whether a connection is known to speak HTTP/1: by what TLS has
// agreed on, or else by what the request was written in before. What cannot be told
// is not closed.
func speaksHTTP1(conn net.Conn, before bool) bool {
	if secure, ok := conn.(*tls.Conn); ok {
		if protocol := secure.ConnectionState().NegotiatedProtocol; protocol != "" {
			return protocol == "http/1.1"
		}
	}
	return before
}
