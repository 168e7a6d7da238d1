// Package oneshot makes an HTTP request once. No connection that breaks makes it
// go out again, no connection outlives it (unless its caller has a client to keep
// them), a redirect takes what is secret to no other host, and an error says
// whether anything has left, and nothing that a server has sent.
//
// One call of net/http is not enough for that. net/http repeats a request by itself, prints
// what a server says unasked to the process's log, and goes on dialling when the request is
// over. This package prevents all three.
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
	name   string                                     // of home in errors
	abroad http.Header                                // of a request to another host
	theirs func(*http.Request, []*http.Request) error // a caller's CheckRedirect, or nil
}

// New returns a Client for requests of home, which errors call name. Requests are
// sent by a copy of custom. If that is nil, a client is used that makes an HTTP/1.1
// connection for each request and honours the proxy environment variables. On a
// request that a redirect takes to another host than home's, abroad is the whole
// header.
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

// Do makes one request, and one more for each redirect. It blocks until there is an
// answer, or the request's ctx is done. That ctx must end some time: what a connection
// still has to do ends with it. In the answer, Request is the one that was answered. The
// error holds only what may be shown; notSent is whether it proves that no byte of the
// request has left.
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
		err = ended // the transport may say instead that its connection was closed, by that
	}
	if redact.Is(err, context.DeadlineExceeded) {
		return nil, notSent, fmt.Errorf("%s: %w", a.timedOut(notSent), context.DeadlineExceeded)
	}
	// "unexpected EOF" after a request is of half an answer, and says so.
	if redact.Is(err, io.EOF) || notSent && redact.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s: %w", a.hungUp(err, notSent), err)
	}
	op := req.Method[:1] + strings.ToLower(req.Method[1:]) // as in net/http's own errors
	host := hostname(c.home)
	address := net.JoinHostPort(host, cmp.Or(c.home.Port(), defaultPorts[c.home.Scheme]))
	return nil, notSent, &url.Error{Op: op, URL: c.name, Err: redact.Error(err, host, address)}
}

// An attempt knows how far a request has got. The transport's goroutines tell it, also
// when the request is over. So what they write is atomic.
//
// Its ctx has it as a value. That is how checkRedirect and the dialer get at it: net/http
// gives both of them nothing else of the request's.
type attempt struct {
	ctx              context.Context // ends with the attempt
	began            time.Time
	request          *http.Request        // the latest, after redirects
	header           http.Header          // of the first, without a client's cookies
	asked, connected atomic.Bool          // whether a connection was asked for, and obtained
	stage            atomic.Value         // a string
	conn             atomic.Pointer[conn] // of our own transport
}

type attemptKey struct{}

// attemptOf returns the attempt of a request by its ctx.
func attemptOf(ctx context.Context) *attempt { return ctx.Value(attemptKey{}).(*attempt) }

// Two of the stages on the way to a connection, which newAttempt tells. A transport that
// traces nothing has no stage. They are not what neverLeft goes by: a caller's transport may
// use a [net.Dialer], which traces a lookup and a connect, and then write to the connection
// without a word.
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
			if err == nil { // of a caller's transport, which may go on in its own way
				a.stage.Store("connected, waiting for a proxy or a handshake")
			}
		},
		TLSHandshakeStart: func() {
			a.stage.Store(handshake)
			a.conn.Load().setShaking(true)
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				a.stage.Store(proxy) // which has a handshake of its own if its URL is https
			}
			a.conn.Load().setShaking(false)
		},
	})
	return a
}

// neverLeft reports whether err proves that no byte of a request is out. net/http's
// transport asks for a connection before it writes to one. With another transport, only an
// error of a failed dial proves that nothing is out.
//
// To go by the error alone was rejected: a proxy's refusal, and a connection that is closed
// in a handshake, have no type of their own. So was to count what is written to our own
// connections: a handshake writes too. After a redirect something has left, whatever fails.
func (a *attempt) neverLeft(err error) bool {
	return !a.connected.Load() && (a.asked.Load() || isDialError(err))
}

// isDialError goes by the outermost *net.OpError if there is one: that of a read or a write
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

// timedOut says what did not come in time, and how long that was. A machine that is busy
// notices a deadline late. It is the deadline that is told.
func (a *attempt) timedOut(notSent bool) string {
	waited := time.Since(a.began)
	if deadline, ok := a.ctx.Deadline(); ok {
		waited = min(waited, deadline.Sub(a.began))
	}
	waited = waited.Round(10 * time.Millisecond)
	if !notSent {
		return fmt.Sprintf("no answer within %v", waited)
	}
	if stage := a.stage.Load(); stage != nil {
		return fmt.Sprintf("no connection within %v (%s)", waited, stage)
	}
	return fmt.Sprintf("no connection within %v", waited)
}

// hungUp says who closed the connection in place of an answer. "EOF", which is all
// that net/http says, is no word for an operator. "proxyconnect" is what net/http calls
// a handshake with a proxy.
func (a *attempt) hungUp(err error, notSent bool) string {
	stage, who, when := a.stage.Load(), "the server", "without an answer"
	op, ok := redact.As[*net.OpError](err)
	if ok && op.Op == "proxyconnect" || notSent && stage == proxy {
		who = "the proxy"
	}
	if notSent && stage == handshake {
		when = "in the TLS handshake"
	}
	return who + " closed the connection " + when
}
