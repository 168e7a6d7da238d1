package heartbeat

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/redact"
	"github.com/go-heartbeat/heartbeat/internal/schedule"
	"golang.org/x/sync/errgroup"
)

// A Pinger sends one heartbeat to one place. [HTTPPinger] is the usual one.
//
// Ping blocks until the heartbeat is known to have arrived (nil) or not (an
// error), and returns soon after ctx is done. It makes one attempt: a [Monitor]
// decides when to make another, and soon makes one where the error matches
// [ErrNotSent]. A Monitor calls it with a ctx that ends when the next beat is due,
// or after [MinInterval], and that says what the ping is about
// ([ResultFromContext]); never twice at once for one target; and takes a panic, or
// an end of its goroutine, for a failure. A Pinger that is also a [fmt.Stringer] is
// named by it in log lines.
type Pinger interface {
	Ping(ctx context.Context) error
}

// PingerFunc makes a function a [Pinger].
type PingerFunc func(ctx context.Context) error

// Ping calls f.
func (f PingerFunc) Ping(ctx context.Context) error { return f(ctx) }

// MultiPinger returns a [Pinger] that pings all the given ones at once, and
// takes nested MultiPingers apart. A [Monitor] treats each of them as a target
// with an outcome, log line, spacing and retry of its own; used without a
// Monitor, its Ping waits for all and joins their errors.
func MultiPinger(pingers ...Pinger) Pinger {
	return multiPinger(flatten(pingers))
}

type multiPinger []Pinger

func flatten(pingers []Pinger) []Pinger {
	var flat []Pinger
	for _, p := range pingers {
		if multi, ok := p.(multiPinger); ok {
			flat = append(flat, multi...)
		} else {
			flat = append(flat, p)
		}
	}
	return flat
}

func (m multiPinger) Ping(ctx context.Context) error {
	if len(m) == 0 {
		return errors.New("heartbeat: MultiPinger has no pingers")
	}
	errs := make([]error, len(m))
	pingAll(len(m), func(i int) {
		if err := callPinger(ctx, m[i]); err != nil {
			errs[i] = fmt.Errorf("%s: %w", targetName(m[i], i), err)
		}
	})
	return errors.Join(errs...)
}

// pingAll calls ping with 0 to n-1 at once and waits for all. A slow or failing
// target does not touch the others: so the group's shared context and first error
// are not used.
func pingAll(n int, ping func(i int)) {
	if n == 1 { // the usual case: callPinger's goroutine is enough
		ping(0)
		return
	}
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			ping(i)
			return nil
		})
	}
	_ = group.Wait()
}

// callPinger pings p once. p has a goroutine of its own, since it may end it, and
// that must not be the end of the caller's.
func callPinger(ctx context.Context, p Pinger) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("heartbeat: pinger ended its goroutine") // by runtime.Goexit
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("heartbeat: pinger panicked: %v", v)
			}
			result <- err
		}()
		err = p.Ping(ctx)
	}()
	return <-result
}

// logName is what p calls itself, or "" where it does not or panics over it.
func logName(p Pinger) (name string) {
	defer func() {
		if recover() != nil {
			name = ""
		}
	}()
	if s, ok := p.(fmt.Stringer); ok {
		return s.String()
	}
	return ""
}

// targetName tells p, the i-th target, from the others in errors. A URL that a
// pinger shows in the log is a credential that must not travel in errors: it is
// named by its scheme and host there.
func targetName(p Pinger, i int) string {
	name := logName(p)
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	if name != "" && !strings.Contains(name, "://") {
		return name
	}
	return "target " + strconv.Itoa(i+1)
}

// isNilPinger reports whether p is nothing that could be pinged: nil, a nil
// pointer or function, or an HTTPPinger that NewHTTPPinger did not make.
func isNilPinger(p Pinger) bool {
	if h, ok := p.(*HTTPPinger); ok {
		return h == nil || h.endpoint == nil
	}
	switch v := reflect.ValueOf(p); v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan, reflect.UnsafePointer:
		return v.IsNil()
	}
	return false
}

// samePinger reports whether a and b are the same value, or request the same URL.
// Functions cannot be compared, and are never the same.
func samePinger(a, b Pinger) bool {
	if isNilPinger(a) || isNilPinger(b) {
		return false
	}
	if x, ok := a.(*HTTPPinger); ok {
		if y, ok := b.(*HTTPPinger); ok {
			return x.endpoint().identity == y.endpoint().identity
		}
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.ValueOf(a).Comparable() && a == b
}

const (
	// defaultTimeout is what Healthchecks.io advises for a ping.
	defaultTimeout = 10 * time.Second

	maxRedirects  = 10        // how many are followed
	maxBody       = 64 << 10  // an answer's bytes that are read
	maxWords      = 64        // its first ones, that say whether the ping counted
	maxHeader     = 64 << 10  // an answer's header bytes that are taken
	maxRetryAfter = time.Hour // as far as a server may push back the next attempt

	userAgent   = "go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"
	placeholder = "{reason}" // in a URL's query and a body
)

// Errors of a ping; test for them with [errors.Is].
var (
	// ErrNotAccepted is the error of a ping that was answered with a 2xx status, but
	// by a body that says that it did not count: Healthchecks.io answers
	// "OK (not found)" for a check that was deleted, and "OK (rate-limited)". These
	// words are in the error's text; others are not shown, since a server may repeat
	// the ping's URL there.
	ErrNotAccepted = errors.New("heartbeat: ping not accepted")

	// ErrNotSent is the error of a ping of which no byte has left: the host was not
	// found or would not connect, the TLS handshake failed, or a proxy would not
	// connect. Such an attempt costs the service nothing, so a [Monitor] makes the
	// next one soon. Any Pinger may return it, wrapped.
	ErrNotSent = errors.New("heartbeat: not sent")
)

// A notAcceptedError is an ErrNotAccepted with the server's words, if known.
type notAcceptedError struct{ words string }

func (e *notAcceptedError) Error() string {
	return fmt.Sprintf("%v: server answered %q", ErrNotAccepted, "OK ("+e.words+")")
}
func (e *notAcceptedError) Is(target error) bool { return target == ErrNotAccepted }

// A pingError is an error of a request. All that it wraps may be shown.
type pingError struct {
	cause   error
	notSent bool
}

func (e *pingError) Error() string        { return "heartbeat: ping: " + e.cause.Error() }
func (e *pingError) Unwrap() error        { return e.cause }
func (e *pingError) Is(target error) bool { return e.notSent && target == ErrNotSent }

// A StatusError is the error of a ping that was answered outside 2xx. Find it
// with [errors.As], as a *StatusError. It holds nothing of the response's body,
// since servers repeat the request's URL in their error pages.
type StatusError struct {
	Code       int           // the HTTP status, such as 404
	RetryAfter time.Duration // what a 429 or 503 asked for, an hour at most; zero: nothing
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("heartbeat: server answered %d", e.Code)
	if status := http.StatusText(e.Code); status != "" {
		text += " " + status
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	return text
}

// classify says what became of an attempt whose error is err, which may be nil, and
// gives the operator a hint, if there is one. An error is a pinger's code, which may
// panic or call back.
func classify(err error) (outcome schedule.Outcome, hint string) {
	defer func() { _ = recover() }()
	const unlikely = "unlikely to mend itself: check the ping URL, and the check it names at the service"
	outcome.Sent = err == nil
	outcome.NotSent = errors.Is(err, ErrNotSent)
	var status *StatusError
	if errors.As(err, &status) && status != nil {
		switch status.Code {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			outcome.RetryAfter = status.RetryAfter
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
			http.StatusMethodNotAllowed, http.StatusConflict, http.StatusGone:
			hint = unlikely
		}
	} else if errors.Is(err, ErrNotAccepted) && strings.Contains(err.Error(), "not found") {
		hint = unlikely
	}
	return outcome, hint
}

// publicText is the text of a pinger's error as strangers may see it: that of an
// HTTPPinger's own as it is, of any other what package redact leaves of it.
func publicText(err error) string {
	switch e := err.(type) {
	case nil:
		return ""
	case *StatusError:
		if e != nil {
			return e.Error()
		}
	case *notAcceptedError, *pingError:
		return e.Error()
	case interface{ Unwrap() []error }: // of several targets
		var texts []string
		for _, part := range e.Unwrap() {
			texts = append(texts, publicText(part))
		}
		return strings.Join(texts, "; ")
	}
	for inner := err; inner != nil; inner = unwrap(inner) { // with a target's name around it
		switch inner.(type) {
		case *StatusError, *notAcceptedError, *pingError:
			return publicText(inner)
		}
	}
	return redact.Error(err, "", "").Error()
}

// unwrap is errors.Unwrap for foreign code, which may panic.
func unwrap(err error) (inner error) {
	defer func() { _ = recover() }()
	return errors.Unwrap(err)
}

// HTTPOptions are the settings of an [HTTPPinger]. A nil *HTTPOptions, and the
// zero value, mean all defaults. They hold credentials: fmt (but for
// %p, which asks no method), log/slog and encoding/json print none of them.
type HTTPOptions struct {
	// Client sends the requests. It is copied and never modified; what its
	// CheckRedirect refuses is refused here too. It must not repeat a request by
	// itself. net/http's transport is kept from that: the HTTP/1 connection on which
	// it would repeat one is closed. No other connection is. nil: a client of the pinger's own, that honours the proxy
	// environment variables and makes a connection for each ping, with HTTP/1.1.
	Client *http.Client

	// Timeout bounds one ping: redirects and the body included. Zero: 10 seconds,
	// which is what Healthchecks.io advises. A Monitor gives a ping no longer than
	// until the next beat, and MinInterval at most. Negative: an error from
	// NewHTTPPinger.
	Timeout time.Duration

	// Method is the request's method. Empty: POST if there is a Body, else GET.
	// HEAD works, but hides the body that tells an accepted ping from one that did
	// not count.
	Method string

	// Header is sent with each ping, e.g. Authorization, and never to another
	// host that a redirect names. It is copied.
	Header http.Header

	// Body is sent with each ping as text/plain in UTF-8, unless Header sets
	// another Content-Type, and again to where a 307 or 308 leads. In it,
	// "{reason}" stands for the text of the [Result] that the ping is about, and for
	// nothing where it is about none. Empty: no body. With GET or HEAD as the
	// Method it is an error from NewHTTPPinger, since servers ignore it there.
	Body string

	// RedactURL shows only the URL's scheme and host in logs. A ping URL is a
	// credential: set it where logs are read by people who must not have it.
	RedactURL bool

	// Name is shown in place of the URL in logs, errors and a TargetResult. Empty:
	// the URL is, where it may be.
	Name string
}

// shown is what may be printed of the options.
func (o HTTPOptions) shown() string {
	return fmt.Sprintf("heartbeat.HTTPOptions{Name:%q Timeout:%v RedactURL:%v}", o.Name, o.Timeout, o.RedactURL)
}

// Format prints the options without their credentials, for all verbs of fmt.
func (o HTTPOptions) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.shown()) }

// LogValue is the same for log/slog.
func (o HTTPOptions) LogValue() slog.Value { return slog.StringValue(o.shown()) }

// MarshalJSON is the same for encoding/json.
func (o HTTPOptions) MarshalJSON() ([]byte, error) { return json.Marshal(o.shown()) }

// An HTTPPinger is a [Pinger] that requests a URL. Create one with
// [NewHTTPPinger]. It may be used from several goroutines at once.
type HTTPPinger struct {
	// A function, so that fmt and reflection find an address, and no URL, in an
	// HTTPPinger and in what holds one, though it be an unexported field.
	endpoint func() *endpoint
}

type endpoint struct {
	client    *http.Client
	ownClient bool
	timeout   time.Duration
	method    string
	url       *url.URL
	sent      http.Header // with each request
	header    http.Header // the caller's, a part of it
	body      string
	origin    string // what errors show: scheme and host, or a name
	shown     string // for logs
	identity  string // equal for equal URLs
}

// NewHTTPPinger returns a Pinger for rawURL, which must be an absolute http or
// https URL with a host. A nil opts means all defaults. The error says what is
// wrong with the URL or the options, and repeats neither.
//
// In the URL's query, and nowhere else in it, "{reason}" stands for the text of the
// [Result] that the ping is about, escaped.
//
// A ping is one request (and one more for each redirect), on a connection of its
// own unless a client is given. It is accepted by any 2xx status, whatever becomes of the body, unless the
// body begins with "OK (": then it is [ErrNotAccepted]. Any other status is a
// [*StatusError]. Redirects are followed, at most 10 of them and never from https
// to http. An error that proves that no byte of the request left matches
// [ErrNotSent]. No error has the URL in it, beyond its scheme and host, nor a
// header: [errors.Is] finds what net/http said, and [errors.As] what of it may be
// shown.
func NewHTTPPinger(rawURL string, opts *HTTPOptions) (*HTTPPinger, error) {
	p, err := newHTTPPinger(rawURL, opts)
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	return p, nil
}

// newHTTPPinger's errors have no prefix yet, for Config to put its key there.
func newHTTPPinger(rawURL string, opts *HTTPOptions) (*HTTPPinger, error) {
	if opts == nil {
		opts = &HTTPOptions{}
	}
	u, err := parsePingURL(rawURL)
	if err != nil {
		return nil, err
	}
	if opts.Timeout < 0 {
		return nil, fmt.Errorf("ping timeout is negative (%v); use a positive one, or zero for %v", opts.Timeout, defaultTimeout)
	}
	if err := checkHeader(opts.Header); err != nil {
		return nil, err
	}
	method, err := methodOf(opts)
	if err != nil {
		return nil, err
	}
	e := &endpoint{
		timeout: opts.Timeout, method: method, url: u, body: opts.Body,
		header:   opts.Header.Clone(),
		origin:   u.Scheme + "://" + u.Host,
		shown:    u.Redacted(),
		identity: strings.ToLower(u.Scheme+"://"+net.JoinHostPort(u.Hostname(), port(u))) + u.RequestURI() + u.User.String(),
	}
	if e.timeout == 0 {
		e.timeout = defaultTimeout
	}
	if opts.RedactURL {
		e.shown = e.origin
	}
	if opts.Name != "" {
		e.shown, e.origin = opts.Name, opts.Name
	}
	e.sent = e.ownHeader()
	for name, values := range e.header {
		e.sent[http.CanonicalHeaderKey(name)] = values
	}
	e.client = e.newClient(opts.Client)
	return &HTTPPinger{func() *endpoint { return e }}, nil
}

// methodOf returns the options' method in capital letters.
func methodOf(opts *HTTPOptions) (string, error) {
	method := strings.ToUpper(opts.Method)
	switch {
	case method == "" && opts.Body != "":
		method = http.MethodPost
	case method == "":
		method = http.MethodGet
	case opts.Body != "" && (method == http.MethodGet || method == http.MethodHead):
		return "", fmt.Errorf("ping has a body, which servers ignore with %s; leave the method empty for POST", method)
	}
	if _, err := http.NewRequest(method, "http://host", nil); err != nil {
		return "", fmt.Errorf("ping method %q is not an HTTP method; use GET or POST", opts.Method)
	}
	return method, nil
}

// ownHeader is what each request has, unless the caller's header says otherwise.
// Asking for an encoding keeps net/http from undoing one without a bound.
func (e *endpoint) ownHeader() http.Header {
	h := http.Header{"User-Agent": {userAgent}, "Accept-Encoding": {"identity"}}
	if e.body != "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	return h
}

// parsePingURL's errors say what is wrong in words of its own: those of net/url
// quote the part they stumble over, which can be a password.
func parsePingURL(rawURL string) (*url.URL, error) {
	problem := func(text string) error {
		return fmt.Errorf("ping URL %s; it must be absolute, such as https://hc-ping.com/your-uuid-here", text)
	}
	if rawURL == "" {
		return nil, problem("is empty")
	}
	if strings.TrimSpace(rawURL) != rawURL {
		return nil, problem("begins or ends with white space")
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		var escape url.EscapeError
		if errors.As(err, &escape) {
			return nil, problem("has a % that is not followed by two hexadecimal digits")
		}
		return nil, problem("cannot be parsed")
	}
	switch {
	case u.Scheme == "":
		return nil, problem("has no scheme (http or https)")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, problem("has a scheme other than http and https")
	case u.Hostname() == "":
		return nil, problem("has no host")
	}
	if strings.Contains(u.RawQuery, " ") { // one in the path is escaped
		return nil, problem("has a space in its query; write it as %20")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, problem("has a port outside 1 to 65535")
		}
	}
	return u, nil
}

// checkHeader finds what net/http would refuse at every ping, such as the line
// end of a token that was read from a file.
func checkHeader(header http.Header) error {
	for name, values := range header {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
		}) {
			return errors.New("a header's name is empty or has a character that it must not have, such as a colon or a space")
		}
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("header %s has a line end or another control character in its value", name)
			}
		}
	}
	return nil
}

// newClient returns a copy of theirs, or a client of our own, that follows no
// redirect that it must not.
func (e *endpoint) newClient(theirs *http.Client) *http.Client {
	client := http.Client{}
	if theirs == nil {
		e.ownClient = true
		client.Transport = newTransport()
	} else {
		client = *theirs
		client.Transport = oneRequest{client.Transport}
	}
	client.CheckRedirect = e.checkRedirect(client.CheckRedirect)
	return &client
}

// newTransport returns a transport with a connection for each request, which ends
// with the ping. Kept ones were rejected: pings are a minute apart and servers
// close idle connections sooner; net/http repeats a request on one that broke; and
// it prints what arrives on an idle one to the process's log. It has HTTP/1.1 only,
// since HTTP/2 keeps and repeats by design.
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
		// net/http goes on dialling and shaking hands after the request's end, with
		// a ctx that only has the values of the request's.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
				ctx = a.ctx
			}
			conn, err := dialer.DialContext(ctx, network, address)
			if err == nil {
				context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return redact.ProxyStatus(resp.StatusCode) // net/http shows the words beside it
			}
			return nil
		},
	}
}

// oneRequest keeps net/http's transport from repeating a request on a new
// connection, or in a new HTTP/2 stream, when the old one breaks, though the server
// may have acted on it. A body that cannot be read again would do so too, but over
// HTTP/2 it makes a GET with a body of it, and a POST without one chunked.
type oneRequest struct{ next http.RoundTripper }

var errNoAnswer = fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF)

func (t oneRequest) RoundTrip(req *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	var written, repeated atomic.Bool
	ctx, cancel := context.WithCancel(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { written.Store(true) },
		GotConn: func(info httptrace.GotConnInfo) {
			if !written.Load() {
				return
			}
			repeated.Store(true)
			cancel()
			// An HTTP/2 connection looks at ctx before it writes, and others share it.
			// An HTTP/1 connection does not, and is this request's alone.
			if c, ok := info.Conn.(*tls.Conn); !ok || c.ConnectionState().NegotiatedProtocol != "h2" {
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
	return resp, err // the body is read with ctx, and Ping ends that
}

// checkRedirect returns a policy that keeps the ping URL, and the caller's
// headers, from every host but the first.
func (e *endpoint) checkRedirect(theirs func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if a, ok := req.Context().Value(attemptKey{}).(*attempt); ok {
			a.connected.Store(true) // also with a transport that traces nothing
		}
		if len(via) > maxRedirects {
			return errTooManyRedirects
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return errInsecureRedirect
		}
		req.Header.Del("Referer") // net/http puts the URL it came from there
		if !sameHost(e.url, req.URL) {
			for name := range e.header {
				req.Header.Del(name)
			}
			req.Host = ""
			for name, values := range e.ownHeader() {
				if name != "Content-Type" || req.Body != nil {
					req.Header[name] = values
				}
			}
		}
		if theirs == nil {
			return nil
		}
		err := theirs(req, via)
		if err == nil || errors.Is(err, http.ErrUseLastResponse) {
			return err
		}
		return &refusedRedirect{err}
	}
}

var (
	errTooManyRedirects = fmt.Errorf("stopped after %d redirects", maxRedirects)
	errInsecureRedirect = errors.New("refused a redirect from https to http")
)

// A refusedRedirect is one that the caller's CheckRedirect refused.
type refusedRedirect struct{ theirs error }

func (*refusedRedirect) Error() string   { return "redirect refused by the client's CheckRedirect" }
func (e *refusedRedirect) Unwrap() error { return e.theirs }

// sameHost reports whether a redirect stays on the host, and on its port unless
// it only leads from http to https.
func sameHost(from, to *url.URL) bool {
	upgrade := port(from) == "80" && port(to) == "443" && to.Scheme == "https"
	return strings.EqualFold(from.Hostname(), to.Hostname()) && (port(from) == port(to) || upgrade)
}

func port(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// String returns the name of the options, or the URL as logs may show it: without
// a password in it; with RedactURL, its scheme and host only.
func (p *HTTPPinger) String() string { return p.endpoint().shown }

// Format prints what String returns, for all verbs of package fmt. It is there for
// an HTTPPinger that is no pointer too.
func (p HTTPPinger) Format(f fmt.State, verb rune) {
	shown := "heartbeat.HTTPPinger{}" // not made by NewHTTPPinger
	if p.endpoint != nil {
		shown = p.endpoint().shown
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), shown)
}

// Ping sends one heartbeat and blocks until it has been answered, ctx is done or
// the timeout has passed. [NewHTTPPinger] says what its errors are.
func (p *HTTPPinger) Ping(ctx context.Context) (err error) {
	e := p.endpoint()
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	defer func() { // a caller's transport may panic, and name the URL in it
		if v := recover(); v != nil {
			err = &pingError{cause: fmt.Errorf("HTTP client panicked with a %T (not shown)", v)}
		}
	}()
	a := &attempt{began: time.Now()}
	a.ctx = context.WithValue(ctx, attemptKey{}, a)
	resp, err := e.client.Do(e.newRequest(a.trace()))
	if err != nil {
		return e.publicError(a, err)
	}
	defer resp.Body.Close()
	return e.judge(resp)
}

// An attempt knows how far a ping got. The transport's goroutines tell it.
type attempt struct {
	ctx                   context.Context // ends with the ping
	began                 time.Time
	connecting, connected atomic.Bool
}

type attemptKey struct{}

// trace returns a ctx whose requests tell a whether a connection was asked for and
// obtained.
func (a *attempt) trace() context.Context {
	return httptrace.WithClientTrace(a.ctx, &httptrace.ClientTrace{
		GetConn: func(string) { a.connecting.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { a.connected.Store(true) },
	})
}

// neverLeft reports whether err proves that no byte of a request is out. net/http's
// transport asks for a connection before it writes to one; of another, only an
// error that stands for a failed dial proves as much.
func (a *attempt) neverLeft(err error) bool {
	return !a.connected.Load() && (a.connecting.Load() || isDialError(err))
}

func isDialError(err error) bool {
	var (
		op          *net.OpError
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	if errors.As(err, &op) {
		return op.Op == "dial" || op.Op == "proxyconnect"
	}
	return errors.As(err, &dns) || errors.As(err, &certificate) || errors.As(err, &record)
}

// newRequest returns the request of one ping, with the reason for it in its place.
func (e *endpoint) newRequest(ctx context.Context) *http.Request {
	reason := ""
	if result, ok := ResultFromContext(ctx); ok {
		reason = result.String()
	}
	u := *e.url
	u.RawQuery = strings.ReplaceAll(u.RawQuery, placeholder, url.QueryEscape(reason))
	req := (&http.Request{
		Method: e.method, URL: &u, Host: u.Host, Header: e.sent.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // net/http takes it from here, not from the header
	}
	if e.body != "" {
		body := strings.ReplaceAll(e.body, placeholder, strings.ToValidUTF8(reason, "\uFFFD"))
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
		if body == "" {
			req.Body = http.NoBody
		}
	}
	return req
}

// publicError says of an http.Client's error what may be shown.
func (e *endpoint) publicError(a *attempt, err error) error {
	notSent := a.neverLeft(err)
	if ended := a.ctx.Err(); ended != nil {
		err = ended // the transport may say instead that its connection was closed, by that
	}
	if errors.Is(err, context.DeadlineExceeded) {
		waitedFor := "no answer"
		if notSent {
			waitedFor = "no connection"
		}
		return &pingError{fmt.Errorf("%s within %v: %w", waitedFor, a.waited(e.timeout), context.DeadlineExceeded), notSent}
	}
	address := ""
	if net.ParseIP(e.url.Hostname()) != nil {
		address = net.JoinHostPort(e.url.Hostname(), port(e.url))
	}
	op := e.method[:1] + strings.ToLower(e.method[1:])
	return &pingError{&url.Error{Op: op, URL: e.origin, Err: redact.Error(err, e.url.Hostname(), address)}, notSent}
}

// waited is how long the attempt was given before it was over.
func (a *attempt) waited(timeout time.Duration) time.Duration {
	return min(timeout, time.Since(a.began).Round(10*time.Millisecond))
}

// judge says what an answer means.
func (e *endpoint) judge(resp *http.Response) error {
	body := &io.LimitedReader{R: resp.Body, N: maxBody}
	// A body that is read to its end leaves a caller's connection reusable. That of
	// a 101 is the connection, with no deadline.
	if !e.ownClient && resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _, _ = io.Copy(io.Discard, body) }()
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &StatusError{Code: resp.StatusCode, RetryAfter: parseRetryAfter(resp)}
	}
	// The status line proves the arrival. Only what came of the body can deny it,
	// and not that the rest did not come.
	said := bufio.NewReaderSize(plain(resp, body), maxWords)
	const denial = "OK ("
	for n := range denial {
		if got, err := said.Peek(n + 1); err != nil || string(got) != denial[:n+1] {
			return nil
		}
	}
	for n := len(denial); n < maxWords; n++ {
		words, err := said.Peek(n + 1)
		if err != nil {
			break
		}
		if words[n] == ')' {
			return &notAcceptedError{knownWords(string(words[len(denial):n]))}
		}
	}
	return &notAcceptedError{"…"}
}

// knownWords returns what may be shown of the words of a denial: those that
// Healthchecks.io has, also where more stands around them.
func knownWords(said string) string {
	for _, known := range []string{"not found", "rate-limited"} {
		switch {
		case said == known:
			return known
		case strings.Contains(said, known):
			return "… " + known + " …"
		}
	}
	return "…"
}

// plain is the body, unpacked if it is packed though nobody asked for that. What is
// packed is bounded too, so no answer unpacks for long.
func plain(resp *http.Response, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))) {
	case "gzip", "x-gzip":
		packed := bufio.NewReader(body)
		if magic, _ := packed.Peek(2); string(magic) != "\x1f\x8b" {
			return packed // it only says so
		}
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return strings.NewReader("")
		}
		return unpacked
	}
	return body
}

// parseRetryAfter reads the header of a 429 or 503: seconds, or a date, which
// is taken against the server's own clock where it tells it.
func parseRetryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if strings.Trim(value, "0123456789") == "" && value != "" { // more than fit
		return maxRetryAfter
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(0, min(until.Sub(now), maxRetryAfter))
}
