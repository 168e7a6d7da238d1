// Package oneshot makes an HTTP request once. If a connection breaks, the request is not sent
// again. No connection stays open after the request, unless the caller's client keeps it. A
// redirect takes neither the first header nor the first URL's user and password to another host.
// An error says whether anything has left. It repeats nothing that a server has sent.
//
// One call of net/http is not enough for that. net/http repeats a request by itself. It prints to
// the process's log what a server sends unasked. It goes on dialling when the request is over.
// This package prevents the repetition with any transport of net/http, and the other two with its
// own transport.
package oneshot

import (
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
	"time"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

// A Client makes requests of one URL. Create one with [New]. It may be used from
// several goroutines at once.
type Client struct {
	http   http.Client
	home   *url.URL
	name   string                                     // what errors call home
	abroad http.Header                                // the header of a request to another host
	theirs func(*http.Request, []*http.Request) error // a caller's CheckRedirect, or nil
}

// New returns a Client for requests of home, which errors call name. Requests are sent by a copy
// of custom. If custom is nil, a client is used that makes an HTTP/1.1 connection for each request
// and honours the proxy environment variables. If a redirect leads to another host than home's,
// the request to that host has abroad as its header, and nothing of the first header.
func New(home *url.URL, name string, custom *http.Client, abroad http.Header) *Client {
	c := &Client{home: home, name: name, abroad: abroad}
	if custom == nil {
		c.http.Transport = newTransport()
	} else {
		c.http = *custom
		c.http.Transport = noRetry{custom.Transport}
	}
	c.theirs, c.http.CheckRedirect = c.http.CheckRedirect, c.checkRedirect
	return c
}

// Do makes one request, and one more for each redirect. It blocks until there is an answer, or the
// request's ctx is done. That ctx must have a deadline: a dial, a handshake or a read that still
// goes on ends only with it. In the answer, Request is the request that was answered. The error
// holds only what may be shown. notSent reports whether err proves that no byte of the request has
// left.
//
// A panic of a caller's transport is not recovered.
func (c *Client) Do(req *http.Request) (resp *http.Response, notSent bool, err error) {
	a := newAttempt(req)
	resp, err = c.http.Do(req.WithContext(a.ctx))
	if err == nil {
		resp.Request = a.request // a caller's transport may leave it out
		return resp, false, nil
	}
	notSent = a.neverLeft(err) // before err is replaced
	if ended := a.ctx.Err(); ended != nil {
		err = ended // the end of ctx closes the connection, and the transport may report only that
	}
	if redact.Is(err, context.DeadlineExceeded) {
		return nil, notSent, fmt.Errorf("%s: %w", a.timedOut(notSent), context.DeadlineExceeded)
	}
	// After the request was sent, the text "unexpected EOF" is right, because the answer broke off.
	if redact.Is(err, io.EOF) || notSent && redact.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s: %w", a.hungUp(err, notSent), err)
	}
	op := req.Method[:1] + strings.ToLower(req.Method[1:]) // as in net/http's own errors
	host := hostname(c.home)
	address := net.JoinHostPort(host, cmp.Or(c.home.Port(), defaultPorts[c.home.Scheme]))
	return nil, notSent, &url.Error{Op: op, URL: c.name, Err: redact.Error(err, host, address)}
}

// An attempt records how far a request has got. The transport's goroutines write to it, sometimes
// after the request is over. So the fields that they write are atomic.
//
// checkRedirect and the dialer find the attempt as a value of its ctx, because net/http passes the
// values of the request's ctx on to both.
type attempt struct {
	ctx              context.Context // the request's ctx, with the attempt and a trace in it
	began            time.Time
	request          *http.Request        // the latest request, after redirects
	header           http.Header          // of the first request, without a client's cookies
	asked, connected atomic.Bool          // whether a connection was asked for, and obtained
	stage            atomic.Value         // a string that says what the attempt waits for
	conn             atomic.Pointer[conn] // set by our own transport only
}

type attemptKey struct{}

// attemptOf returns the attempt of a request by its ctx.
func attemptOf(ctx context.Context) *attempt { return ctx.Value(attemptKey{}).(*attempt) }

// These are two of the stages before there is a connection. The trace in newAttempt and our own
// dialer set the stage. With a transport that traces nothing, there is no stage. neverLeft does
// not use the stage: a caller's transport may use a [net.Dialer], which traces a lookup and a
// connect, and then write to the connection without a trace.
const (
	proxy     = "waiting for the proxy"
	handshake = "waiting for the TLS handshake"
)

func newAttempt(req *http.Request) *attempt {
	a := &attempt{began: time.Now(), request: req, header: req.Header.Clone()}
	a.ctx = httptrace.WithClientTrace(context.WithValue(req.Context(), attemptKey{}, a), &httptrace.ClientTrace{
		GetConn:      func(string) { a.asked.Store(true) },
		GotConn:      func(httptrace.GotConnInfo) { a.connected.Store(true) },
		DNSStart:     func(httptrace.DNSStartInfo) { a.stage.Store("waiting for the lookup") },
		ConnectStart: func(string, string) { a.stage.Store("waiting for the connect") },
		ConnectDone: func(_, _ string, err error) {
			if err == nil { // what a caller's transport does next is not known; our own dialer sets another stage
				a.stage.Store("connected, waiting for a proxy or a handshake")
			}
		},
		TLSHandshakeStart: func() {
			a.stage.Store(handshake)
			a.conn.Load().setShaking(true)
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				// If this was the handshake with an https proxy, the proxy's answer to CONNECT comes next. If it
				// was the handshake with the server, the connection is ready.
				a.stage.Store(proxy)
			}
			a.conn.Load().setShaking(false)
		},
	})
	return a
}

// neverLeft reports whether err proves that no byte of a request has left. net/http's transport
// asks for a connection before it writes to one. With another transport, only an error of a failed
// dial or handshake proves that nothing has left.
//
// To use the error alone was rejected: a proxy's refusal, and a connection that is closed in a
// handshake, have no type of their own. To count the bytes that are written to our own connections
// was rejected too: a handshake also writes. After a redirect something has left, whatever fails.
func (a *attempt) neverLeft(err error) bool {
	return !a.connected.Load() && (a.asked.Load() || isDialError(err))
}

// isDialError uses the outermost *net.OpError if there is one: an error of a read or a write
// proves nothing, whatever it wraps.
func isDialError(err error) bool {
	if op, ok := redact.As[*net.OpError](err); ok {
		return op.Op == "dial" || op.Op == "proxyconnect"
	}
	_, lookup := redact.As[*net.DNSError](err)
	_, certificate := redact.As[*tls.CertificateVerificationError](err)
	_, record := redact.As[tls.RecordHeaderError](err)
	return lookup || certificate || record
}

// timedOut says what did not come in time, and how long that time was. A busy machine notices a
// deadline late. So the text gives the time until the deadline, if that is shorter than the time
// that has passed.
func (a *attempt) timedOut(notSent bool) string {
	deadline, _ := a.ctx.Deadline()
	waited := min(time.Since(a.began), deadline.Sub(a.began)).Round(10 * time.Millisecond)
	if !notSent {
		return fmt.Sprintf("no answer within %v", waited)
	}
	if stage := a.stage.Load(); stage != nil {
		return fmt.Sprintf("no connection within %v (%s)", waited, stage)
	}
	return fmt.Sprintf("no connection within %v", waited)
}

// hungUp says who closed the connection instead of answering. net/http says only "EOF", which an
// operator may not understand. "proxyconnect" is net/http's name for the dial to a proxy and the
// handshake with it.
func (a *attempt) hungUp(err error, notSent bool) string {
	stage, who, when := a.stage.Load(), "the server", "without an answer"
	op, ok := redact.As[*net.OpError](err)
	if ok && op.Op == "proxyconnect" || notSent && stage == proxy {
		who = "the proxy"
	}
	if stage == handshake {
		when = "in the TLS handshake"
	}
	return who + " closed the connection " + when
}
