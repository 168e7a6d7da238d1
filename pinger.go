package heartbeat

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Pinger sends one heartbeat to one place. [HTTPPinger] is the usual one.
//
// Ping blocks until the heartbeat is known to have arrived (nil) or not (an
// error), and returns soon after ctx is done. A [Monitor] calls it with a ctx
// that ends after [MinInterval], never twice at once for one target, and takes a
// panic for a failure. A Pinger that is also a [fmt.Stringer] is named by it in
// log lines.
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

func pingAll(n int, ping func(i int)) {
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			ping(i)
			return nil
		})
	}
	_ = group.Wait()
}

func callPinger(ctx context.Context, p Pinger) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("heartbeat: pinger ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("heartbeat: pinger panicked: %v", v)
			}
			done <- err
		}()
		err = p.Ping(ctx)
	}()
	return <-done
}

type pingVerdict struct {
	notSent    bool
	retryAfter time.Duration
	hint       string
}

func classify(err error) (v pingVerdict) {
	defer func() { _ = recover() }()
	v.notSent = errors.Is(err, ErrNotSent)
	wait, op := advice(err)
	v.retryAfter = wait
	if op {
		v.hint = "unlikely to mend itself: check the ping URL, and the check it names at the service"
	}
	return v
}

func samePinger(a, b Pinger) bool { return false }
func isNilPinger(p Pinger) bool   { return p == nil }
func publicText(err error) string { return err.Error() }

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

// targetName tells p, the i-th target, from the others in a joined error. A URL
// that a pinger shows in the log is a credential that must not travel in errors:
// it is named by its scheme and host there.
func targetName(p Pinger, i int) string {
	name := logName(p)
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	if name != "" {
		return name
	}
	return "target " + strconv.Itoa(i+1)
}

const (
	// defaultTimeout is what Healthchecks.io advises for a ping.
	defaultTimeout = 10 * time.Second

	maxRedirects  = 10        // how many are followed
	maxBody       = 64 << 10  // an answer's bytes that are read, to leave the connection reusable
	maxHeader     = 64 << 10  // an answer's header bytes that are taken
	maxRetryAfter = time.Hour // as far as a server may push back the next attempt

	userAgent = "go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"
)

// retryPauses are the pauses before a ping that never left is tried again: as
// long as TCP waits before it sends a lost SYN for the second and third time.
var retryPauses = [...]time.Duration{time.Second, 3 * time.Second}

// ErrNotAccepted is the error of a ping that was answered with a 2xx status, but
// by a body that says that it did not count: Healthchecks.io answers
// "OK (not found)" for a check that was deleted, and "OK (rate-limited)". Test
// for it with [errors.Is]; the body's words are in the error's text.
var ErrNotAccepted = errors.New("heartbeat: ping not accepted")

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

// advice says what an error asks for: to wait so long before the next attempt,
// and for the operator, where it will not mend itself, since the URL is wrong, or
// what it names is gone or closed to us. An error is a pinger's code, which may
// panic.
func advice(err error) (wait time.Duration, operator bool) {
	defer func() { _ = recover() }()
	if status, ok := errors.AsType[*StatusError](err); ok && status != nil {
		switch status.Code {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			return min(status.RetryAfter, maxRetryAfter), false
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
			http.StatusNotFound, http.StatusConflict, http.StatusGone:
			return 0, true
		}
	}
	return 0, errors.Is(err, ErrNotAccepted) && strings.Contains(err.Error(), "not found")
}

// HTTPOptions are the settings of an [HTTPPinger]. A nil *HTTPOptions, and the
// zero value, mean all defaults.
type HTTPOptions struct {
	// Client sends the requests. It is copied and never modified; what its
	// CheckRedirect refuses is refused here too. nil: a client of the pinger's
	// own, that honours the proxy environment variables and HTTP/2.
	Client *http.Client

	// Timeout bounds one ping: retries, redirects and the body included. Zero:
	// 10 seconds, which is what Healthchecks.io advises. A Monitor gives a ping
	// no longer than MinInterval. Negative: an error from NewHTTPPinger.
	Timeout time.Duration

	// Method is the request's method, with no body. Empty: GET. HEAD works, but
	// hides the body that tells an accepted ping from one that did not count.
	Method string

	// Header is sent with each ping, e.g. Authorization, and never to another
	// host that a redirect names. It is copied.
	Header http.Header

	// RedactURL shows only the URL's scheme and host in logs. A ping URL is a
	// credential: set it where logs are read by people who must not have it.
	RedactURL bool

	Body string
	Name string
}

// ErrNotSent is the error of a ping of which no byte has left.
var ErrNotSent = errors.New("heartbeat: not sent")

// An HTTPPinger is a [Pinger] that requests a URL. Create one with
// [NewHTTPPinger]. It may be used from several goroutines at once.
type HTTPPinger struct {
	// A pointer, so that no fmt verb prints the URL when it prints an
	// HTTPPinger, or what holds one.
	endpoint *endpoint
}

type endpoint struct {
	client    *http.Client
	ownClient bool
	timeout   time.Duration
	request   *http.Request // cloned for each ping
	header    http.Header   // the caller's
	origin    string        // scheme and host, for errors
	shown     string        // for logs
	secrets   []string      // lower-case parts of the URL and the header that no error may repeat
}

// NewHTTPPinger returns a Pinger for rawURL, which must be an absolute http or
// https URL with a host. A nil opts means all defaults. The error says what is
// wrong with the URL or the options, and repeats neither.
//
// A ping is accepted by any 2xx status, unless the body begins with "OK (": then
// it is [ErrNotAccepted]. Any other status is a [*StatusError]. Redirects are
// followed, at most 10 of them and never from https to http. A request that
// provably never left (its host could not be looked up or dialled, or the TLS
// handshake failed) is tried again after 1 second and once more after 3, within
// the timeout; one that has left is never repeated. No error has the URL in it,
// beyond its scheme and host.
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
	method := opts.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequest(strings.ToUpper(method), u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ping method %q is not an HTTP method; use GET or POST", method)
	}
	e := &endpoint{
		timeout: opts.Timeout,
		request: req,
		header:  opts.Header.Clone(),
		origin:  u.Scheme + "://" + u.Host,
		shown:   u.Redacted(),
		secrets: secretsOf(u, opts.Header),
	}
	if e.timeout == 0 {
		e.timeout = defaultTimeout
	}
	if opts.RedactURL {
		e.shown = e.origin
	}
	req.Header.Set("User-Agent", userAgent)
	for name, values := range e.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // net/http takes it from here, not from the header
	}
	var client http.Client
	if opts.Client != nil {
		client = *opts.Client
	} else {
		client.Transport = newTransport()
		e.ownClient = true
	}
	client.CheckRedirect = e.checkRedirect(client.CheckRedirect)
	e.client = &client
	return &HTTPPinger{e}, nil
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
		if _, ok := errors.AsType[url.EscapeError](err); ok {
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

// newTransport returns a transport that no one else uses: a test bubble must
// not share connections with another, nor a daemon with its supervisor.
func newTransport() *http.Transport {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if std, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = std.Clone()
	}
	transport.MaxResponseHeaderBytes = maxHeader
	// Many servers close a connection that was idle for a minute: just when the
	// next ping would be written to it. By then it must not be used any more.
	transport.IdleConnTimeout = MinInterval / 2
	return transport
}

// checkRedirect returns a policy that keeps the ping URL, and the caller's
// headers, from every host but the first.
func (e *endpoint) checkRedirect(theirs func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if sent, ok := req.Context().Value(sendingKey{}).(*sending); ok {
			sent.connected.Store(true) // also with a transport that traces nothing
		}
		if len(via) > maxRedirects {
			return errTooManyRedirects
		}
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return errInsecureRedirect
		}
		req.Header.Del("Referer") // net/http puts the URL it came from there
		if !sameHost(e.request.URL, req.URL) {
			for name := range e.header {
				req.Header.Del(name)
			}
			req.Host = ""
			if req.Header.Get("User-Agent") == "" {
				req.Header.Set("User-Agent", userAgent)
			}
		}
		if theirs != nil {
			return theirs(req, via)
		}
		return nil
	}
}

var (
	errTooManyRedirects = fmt.Errorf("stopped after %d redirects", maxRedirects)
	errInsecureRedirect = errors.New("refused a redirect from https to http")
)

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

// String returns the URL as logs may show it: without a password in it; with
// RedactURL, its scheme and host only.
func (p *HTTPPinger) String() string { return p.endpoint.shown }

// Format prints what String returns, for all verbs of package fmt. It is there for
// an HTTPPinger that is no pointer too, whose endpoint some verbs would print.
func (p HTTPPinger) Format(f fmt.State, verb rune) {
	shown := "heartbeat.HTTPPinger{}" // not made by NewHTTPPinger
	if p.endpoint != nil {
		shown = p.endpoint.shown
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), shown)
}

// CloseIdleConnections closes the connections that are kept for the next ping,
// unless the caller's own client holds them. A [Monitor] calls it when Run ends.
func (p *HTTPPinger) CloseIdleConnections() {
	if p.endpoint.ownClient {
		p.endpoint.client.CloseIdleConnections()
	}
}

// Ping sends one heartbeat and blocks until it has been answered, ctx is done or
// the timeout has passed. [NewHTTPPinger] says what its errors are.
func (p *HTTPPinger) Ping(ctx context.Context) (err error) {
	e := p.endpoint
	defer func() { // a caller's transport may panic, and name the URL in it
		if v := recover(); v != nil {
			err = fmt.Errorf("heartbeat: ping: HTTP client panicked: %s", e.withoutSecrets(fmt.Sprint(v)))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	sent := &sending{}
	ctx = sent.trace(ctx, cancel)
	for _, pause := range retryPauses {
		err := e.send(ctx, sent)
		if err == nil || !sent.neverLeft(err) {
			return err
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= pause {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
	return e.send(ctx, sent)
}

// A sending knows how far a ping got. The transport's goroutines tell it; that of
// a request's end may do so after that of its answer's begin.
type sending struct {
	connecting, connected, repeating atomic.Bool
	unanswered                       atomic.Int32
}

type sendingKey struct{}

// trace returns a context whose requests are told to s. cancel ends it.
func (s *sending) trace(ctx context.Context, cancel func()) context.Context {
	return httptrace.WithClientTrace(context.WithValue(ctx, sendingKey{}, s), &httptrace.ClientTrace{
		GetConn: func(string) {
			s.connecting.Store(true)
			if s.unanswered.Load() > 0 {
				// net/http would repeat a GET whose kept connection breaks before
				// the answer, though the server may have acted on it.
				s.repeating.Store(true)
				cancel()
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			s.connected.Store(true)
			if s.repeating.Load() { // the transport has not seen the cancel yet
				_ = info.Conn.Close()
			}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				s.unanswered.Add(1)
			}
		},
		GotFirstResponseByte: func() { s.unanswered.Add(-1) },
	})
}

// neverLeft reports whether err proves that no byte of a request is out. net/http's
// transport asks for a connection before it writes to one; of another, only an
// error that stands for a failed dial proves as much.
func (s *sending) neverLeft(err error) bool {
	return !s.connected.Load() && (s.connecting.Load() || isDialError(err))
}

// send sends the request once, and makes an error of an answer that is not one.
func (e *endpoint) send(ctx context.Context, sent *sending) error {
	resp, err := e.client.Do(e.request.Clone(ctx))
	if err != nil {
		if ue, ok := err.(*url.Error); ok && sent.repeating.Load() {
			ue.Err = errNoAnswer // else it says that ctx was canceled
		}
		return e.publicError(err)
	}
	defer resp.Body.Close()

	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		if resp.StatusCode != http.StatusSwitchingProtocols { // its body is the connection, with no deadline
			drain(resp.Body)
		}
		return &StatusError{Code: resp.StatusCode, RetryAfter: parseRetryAfter(resp)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if rest, ok := bytes.CutPrefix(body, []byte("OK (")); ok {
		words, _, closed := strings.Cut(string(rest), ")")
		if !closed { // and so perhaps cut off in the middle of a secret
			words = "…"
		}
		return fmt.Errorf("%w: server answered %q", ErrNotAccepted, "OK ("+e.withoutSecrets(words)+")")
	}
	if err != nil {
		return fmt.Errorf("heartbeat: ping: reading the answer's body: %w", e.publicCause(err))
	}
	drain(resp.Body)
	return nil
}

var errNoAnswer = fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF)

func drain(body io.Reader) { _, _ = io.CopyN(io.Discard, body, maxBody) }

func isDialError(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "dial"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
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

// secretsOf lists what of u and header is a credential or may hold one, in the
// forms that a server or a transport may repeat. Parts of less than four letters
// are too common to look for.
func secretsOf(u *url.URL, header http.Header) []string {
	parts := append(strings.Split(u.EscapedPath(), "/"), strings.Split(u.Path, "/")...)
	// The whole path too, since its segments may be too short.
	parts = append(parts, u.EscapedPath(), u.Path, u.RawQuery, u.Fragment)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			value = key
		}
		parts = append(parts, value)
	}
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	if password, ok := u.User.Password(); ok {
		// net/http makes a header of the two.
		parts = append(parts, password, base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	parts = append(parts, u.User.Username())
	for name, values := range header {
		if http.CanonicalHeaderKey(name) == "Host" {
			continue
		}
		for _, value := range values {
			// Most are no credentials: the short ones are words such as "close".
			if len(value) >= 8 {
				parts = append(parts, value)
			}
			if _, token, ok := strings.Cut(value, " "); ok && len(token) >= 8 { // Bearer …
				parts = append(parts, token)
			}
		}
	}
	var secrets []string
	for _, part := range parts {
		if len(part) >= 4 {
			secrets = append(secrets, strings.ToLower(part))
		}
	}
	return secrets
}

// withoutSecrets returns text, or a stand-in if it repeats a secret. The host's
// name may be shown, even if a part of the path is the same or a part of it.
func (e *endpoint) withoutSecrets(text string) string {
	lower, host := strings.ToLower(text), strings.ToLower(e.request.URL.Hostname())
	withoutHost := strings.ReplaceAll(lower, host, "\x00")
	for _, secret := range e.secrets {
		in := lower
		if strings.Contains(host, secret) {
			in = withoutHost
		}
		if strings.Contains(in, secret) {
			return "(withheld, since it repeats the ping URL)"
		}
	}
	return text
}

// publicError rebuilds the error of an http.Client without the URL.
func (e *endpoint) publicError(err error) error {
	if ue, ok := err.(*url.Error); ok { // the outermost, which http.Client always makes
		err = &url.Error{Op: ue.Op, URL: e.origin, Err: e.publicCause(ue.Err)}
	} else {
		err = e.publicCause(err)
	}
	return fmt.Errorf("heartbeat: ping: %w", err)
}

// publicCause returns err itself where all it holds is safe to show, since then
// errors.Is and errors.As go on working; else the safe part of its text, for
// errors.Is only.
func (e *endpoint) publicCause(err error) error {
	mayQuote := isDialError(err)
	if e.isPublic(err, mayQuote) {
		return err
	}
	return &hiddenError{e.publicText(err.Error(), mayQuote), func(target error) bool { return errors.Is(err, target) }}
}

// isPublic reports whether err, and each error that it wraps, is safe to show.
func (e *endpoint) isPublic(err error, mayQuote bool) bool {
	if text := err.Error(); e.publicText(text, mayQuote) != text {
		return false
	}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		inner := w.Unwrap()
		return inner == nil || e.isPublic(inner, mayQuote)
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(w.Unwrap(), func(inner error) bool { return !e.isPublic(inner, mayQuote) })
	}
	return true
}

// publicText returns what is safe to show of an error's text. What net/http says of a
// malformed response quotes it, and so repeats, escaped or not, whatever a server
// puts there; with mayQuote, for what comes before the request, only names.
func (e *endpoint) publicText(text string, mayQuote bool) string {
	if !mayQuote {
		safe, _, _ := strings.Cut(text, `"`)
		safe, _, _ = strings.Cut(safe, " line: ")
		if safe != text {
			text = strings.TrimRight(safe, ": [(")
		}
	}
	return e.withoutSecrets(text)
}

// A hiddenError has the safe part of another error's text. errors.As and Unwrap
// do not get at that error, since they would hand out the rest.
type hiddenError struct {
	text string
	is   func(target error) bool
}

func (e *hiddenError) Error() string        { return e.text }
func (e *hiddenError) Is(target error) bool { return e.is(target) }
