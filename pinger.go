package heartbeat

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/oneshot"
	"github.com/go-heartbeat/heartbeat/internal/pingurl"
	"github.com/go-heartbeat/heartbeat/internal/redact"
	"github.com/go-heartbeat/heartbeat/internal/schedule"
	"golang.org/x/sync/errgroup"
)

// A Pinger sends one heartbeat to one place. [HTTPPinger] is the usual one.
//
// Ping blocks until the heartbeat is known to have arrived (nil) or not (an
// error), and returns soon after ctx is done. It makes one attempt: a [Monitor]
// decides when to make another, and makes one soon if the error matches
// [ErrNotSent].
//
// A Monitor calls Ping with a ctx that ends after [MinInterval], and that says what
// the ping is about ([ResultFromContext]). It never calls it twice at once for one
// target. It ends the ctx of a heartbeat earlier if a failure signal is due, and the
// other way round, but never for the sake of another target. It takes a panic, or an
// end of Ping's goroutine, for a failure.
//
// A Pinger that is also a [fmt.Stringer] is named by it in log lines. In errors, in a
// [TargetResult] and on the health page it is so only if the name could not be a
// URL, with a scheme or without: a ping URL is a credential.
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
		defer func() { result <- err }()
		var returned error
		if value, panicked := try(func() { returned = p.Ping(ctx) }); panicked {
			returned = fmt.Errorf("heartbeat: pinger panicked: %v", value)
		}
		err = returned
	}()
	return <-result
}

// logName is what p calls itself, or "" if it does not or panics over it.
func logName(p Pinger) (name string) {
	if s, ok := p.(fmt.Stringer); ok {
		try(func() { name = s.String() })
	}
	return name
}

// targetName tells p, the i-th target, from the others in errors, which travel
// further than log lines.
func targetName(p Pinger, i int) string {
	if h, ok := p.(*HTTPPinger); ok && !isNilPinger(h) {
		return h.endpoint().name
	}
	name := logName(p)
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	if name == "" || couldBeURL(name) {
		return "target " + strconv.Itoa(i+1)
	}
	return name
}

// couldBeURL reports whether a word of name could be a URL, also one without a
// scheme.
func couldBeURL(name string) bool {
	return slices.ContainsFunc(strings.Fields(name), func(word string) bool {
		return strings.ContainsAny(strings.TrimRight(word, ":"), `/\?@%:`)
	})
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

// samePinger reports whether a and b are the same value, or ping the same check: New
// and Config ask it. Functions cannot be compared, and are never the same.
func samePinger(a, b Pinger) bool {
	if isNilPinger(a) || isNilPinger(b) {
		return false
	}
	if x, ok := a.(*HTTPPinger); ok {
		if y, ok := b.(*HTTPPinger); ok {
			return pingurl.Same(x.endpoint().url, y.endpoint().url)
		}
	}
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.ValueOf(a).Comparable() && a == b
}

const (
	defaultTimeout = 10 * time.Second // which Healthchecks.io advises

	maxBody  = 64 << 10 // an answer's bytes that are read
	maxWords = 64       // its first ones, that say whether the ping counted

	maxRetryAfter        = time.Hour   // as far as a server may push back the next attempt
	maxForeignRetryAfter = time.Minute // the same of one that the target has redirected to

	userAgent = "go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"
)

// HTTPOptions are the settings of an [HTTPPinger]. A nil *HTTPOptions, and the
// zero value, mean all defaults.
//
// They hold credentials, so they print without their header, body and client: with
// log/slog, with encoding/json, and with the verbs of package fmt other than %p and
// %w. That holds for HTTPOptions, for a pointer to them, and for either of the two in
// a named, exported field of a struct. It holds for nothing else. In an unexported
// field package fmt asks no method, and prints all.
type HTTPOptions struct {
	// Client sends the requests. It is copied and never modified; what its
	// CheckRedirect refuses is refused here too. It must not repeat a request by
	// itself. If its transport is net/http's, the pinger prevents that by closing the
	// HTTP/1 connection that a repetition would use. No other connection is closed.
	// If Client is nil, the pinger has one of its own. That makes an HTTP/1.1
	// connection for each ping and honours the proxy environment variables.
	Client *http.Client

	// Timeout bounds one ping, its redirects and the body of the answer included. If
	// zero, it is 10 seconds, which is what Healthchecks.io advises. A Monitor gives
	// a ping MinInterval at most. If negative, NewHTTPPinger returns an error.
	Timeout time.Duration

	// Method is the request's method. If empty, it is POST if there is a Body, and
	// GET if not. HEAD works, but hides the body that tells an accepted ping from one
	// that did not count.
	Method string

	// Header is sent with each ping, e.g. Authorization, and never to another
	// host that a redirect names. It is copied.
	Header http.Header

	// Body is sent with each ping as text/plain in UTF-8, unless Header sets
	// another Content-Type, and again to where a 307 or 308 leads. In it,
	// "{reason}" stands for the text of the [Result] that the ping is about, and for
	// nothing if it is about none. If empty, no body is sent. With GET or HEAD as the
	// Method it is an error from NewHTTPPinger, since servers ignore it there.
	Body string

	// RedactURL shows only the URL's scheme and host in logs. A ping URL is a
	// credential: set it if logs are read by people who must not have it.
	RedactURL bool

	// Name is shown in place of the URL in logs, errors and a TargetResult. If empty,
	// the URL is shown in logs, and its scheme and host in the others.
	Name string
}

// summary is what may be printed of the options.
func (o HTTPOptions) summary() string {
	return fmt.Sprintf("heartbeat.HTTPOptions{Name:%q Timeout:%v RedactURL:%v}", o.Name, o.Timeout, o.RedactURL)
}

// Format prints the options without their credentials, for each verb with which
// package fmt asks it: not for %p and %w.
func (o HTTPOptions) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.summary()) }

// LogValue is the same for log/slog.
func (o HTTPOptions) LogValue() slog.Value { return slog.StringValue(o.summary()) }

// MarshalJSON is the same for encoding/json.
func (o HTTPOptions) MarshalJSON() ([]byte, error) { return json.Marshal(o.summary()) }

// An HTTPPinger is a [Pinger] that requests a URL. Create one with
// [NewHTTPPinger]. It may be used from several goroutines at once.
type HTTPPinger struct {
	// A function, so that fmt and reflection find an address, and no URL, in an
	// HTTPPinger and in what holds one, though it be an unexported field.
	endpoint func() *endpoint
}

// An endpoint is what an HTTPPinger requests.
type endpoint struct {
	client        *oneshot.Client
	reusesConn    bool // a caller's client may use the connection again
	timeout       time.Duration
	method        string
	url           *url.URL
	header        http.Header // of each request
	body          string
	hasReason     bool   // whether the query or the body does
	name, logName string // of the URL in errors: scheme and host, or HTTPOptions.Name; and in logs
}

// NewHTTPPinger returns a Pinger for rawURL, which must be an absolute http or
// https URL with a host. A nil opts means all defaults. The error says what is
// wrong with the URL or the options, and repeats neither. It refuses a URL with a
// fragment, and one that can only be a mistake, such as two URLs in one string or a
// placeholder that was left in it.
//
// In the URL's query, and nowhere else in it, "{reason}" stands for the text of the
// [Result] that the ping is about, escaped.
//
// A ping is one request, and one more for each redirect, on a connection of its own
// unless a client is given. It is accepted by any 2xx status, unless the body begins
// with "OK (": then the error is [ErrNotAccepted]. So a page is accepted too, such as
// the login page of a portal that the ping was redirected to. Any other status is a
// [*StatusError].
//
// At most 10 redirects are followed, and none from https to http. On its way to
// another host a request has no Header and no user and password of the URL.
//
// An error that proves that no byte of the request left matches [ErrNotSent]. No
// error has the URL in it, beyond its scheme and host, nor a header. [errors.Is] finds
// in it what net/http said, and [errors.As] what of that may be shown.
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
	u, err := pingurl.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	method, err := checkOptions(opts)
	if err != nil {
		return nil, err
	}
	e := &endpoint{
		reusesConn: opts.Client != nil, timeout: cmp.Or(opts.Timeout, defaultTimeout),
		method: method, url: u, body: opts.Body,
		hasReason: strings.Contains(u.RawQuery+opts.Body, pingurl.Reason),
		name:      u.Scheme + "://" + u.Host, logName: u.Redacted(),
	}
	if opts.RedactURL {
		e.logName = e.name
	}
	if opts.Name != "" {
		e.logName, e.name = opts.Name, opts.Name
	}
	// Asking for an encoding keeps net/http from undoing one without a bound.
	e.header = http.Header{"User-Agent": {userAgent}, "Accept-Encoding": {"identity"}}
	if e.body != "" {
		e.header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	e.client = oneshot.New(u, e.name, opts.Client, e.header.Clone())
	for name, values := range opts.Header {
		e.header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	return &HTTPPinger{func() *endpoint { return e }}, nil
}

// checkOptions returns the options' method in capital letters, or what is wrong with
// them.
func checkOptions(opts *HTTPOptions) (method string, err error) {
	if opts.Timeout < 0 {
		return "", fmt.Errorf("ping timeout is negative (%v); use a positive one, or zero for %v", opts.Timeout, defaultTimeout)
	}
	if err := pingurl.CheckHeader(opts.Header); err != nil {
		return "", err
	}
	if err := pingurl.CheckBody(opts.Body); err != nil {
		return "", err
	}
	method = strings.ToUpper(opts.Method)
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

// String returns the name of the options, or the URL as logs may show it: without
// a password in it; with RedactURL, its scheme and host only.
func (p *HTTPPinger) String() string { return p.endpoint().logName }

// Format prints what String returns, for all verbs of package fmt. It is there for
// an HTTPPinger that is no pointer too.
func (p HTTPPinger) Format(f fmt.State, verb rune) {
	text := "heartbeat.HTTPPinger{}" // not made by NewHTTPPinger
	if p.endpoint != nil {
		text = p.endpoint().logName
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), text)
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
	resp, notSent, err := e.client.Do(e.newRequest(ctx))
	if err != nil {
		return &pingError{err, notSent}
	}
	defer resp.Body.Close()
	return e.readAnswer(resp)
}

// newRequest returns the request of one ping, with the reason for it in its place.
func (e *endpoint) newRequest(ctx context.Context) *http.Request {
	u, body := *e.url, e.body
	if e.hasReason {
		reason := ""
		if result, ok := ResultFromContext(ctx); ok {
			reason = result.String()
		}
		u.RawQuery = strings.ReplaceAll(u.RawQuery, pingurl.Reason, url.QueryEscape(reason))
		body = strings.ReplaceAll(body, pingurl.Reason, strings.ToValidUTF8(reason, "\uFFFD"))
	}
	req := (&http.Request{
		Method: e.method, URL: &u, Host: u.Host, Header: e.header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // net/http takes it from here, not from the header
	}
	switch {
	case body != "":
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		req.Body, _ = req.GetBody()
	case e.body != "": // it is the reason, and there is none
		req.GetBody = func() (io.ReadCloser, error) { return http.NoBody, nil }
		req.Body = http.NoBody
	}
	return req
}

// readAnswer says what an answer means.
func (e *endpoint) readAnswer(resp *http.Response) error {
	limited := &io.LimitedReader{R: resp.Body, N: maxBody}
	// A body that is read to its end leaves a caller's connection reusable. That of
	// a 101 is the connection, with no deadline.
	if e.reusesConn && resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _, _ = io.Copy(io.Discard, limited) }()
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		bound := maxRetryAfter
		if oneshot.Authority(resp.Request.URL) != oneshot.Authority(e.url) {
			bound = maxForeignRetryAfter
		}
		return &StatusError{Code: resp.StatusCode, RetryAfter: min(parseRetryAfter(resp), bound)}
	}
	// The status line proves the arrival. Only what came of the body can deny it,
	// and not that the rest did not come.
	body := bufio.NewReaderSize(decoded(resp, limited), maxWords)
	const denial = "OK ("
	for n := range denial {
		if got, err := body.Peek(n + 1); err != nil || string(got) != denial[:n+1] {
			return nil
		}
	}
	for n := len(denial); n < maxWords; n++ {
		words, err := body.Peek(n + 1)
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

// decoded is the body, unpacked if it is packed though nobody asked for that. What is
// packed is bounded too, so no answer unpacks for long.
func decoded(resp *http.Response, body io.Reader) io.Reader {
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

// Errors of a ping; test for them with [errors.Is].
var (
	// ErrNotAccepted is the error of a ping that was answered with a 2xx status, but
	// by a body that says that it did not count: Healthchecks.io answers
	// "OK (not found)" for a check that was deleted, and "OK (rate-limited)". These
	// words are in the error's text; others are not shown, since a server may repeat
	// the ping's URL there.
	ErrNotAccepted = errors.New("heartbeat: ping not accepted")

	// ErrNotSent is the error of a ping of which no byte has left: the host was not
	// found or refused the connection, the TLS handshake failed, or a proxy refused to
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
	RetryAfter time.Duration // what a 429 or 503 asked for: at most an hour, and at most a minute if a redirect led to another host; zero: nothing
}

// Error returns a text without a part of the ping URL, and "<nil>" if e is nil.
func (e *StatusError) Error() string {
	if e == nil {
		return "<nil>" // a pinger that returns one has made a mistake, but has not succeeded
	}
	text := fmt.Sprintf("heartbeat: server answered %d", e.Code)
	if status := http.StatusText(e.Code); status != "" {
		text += " " + status
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	return text
}

// notSelfMending is the hint for an error that the next try will hardly mend.
const notSelfMending = "trying again will probably not help: check the ping URL, and whether its check still exists at the service"

// classify says what err, which may be nil, means to the schedule, with a hint for
// the operator if there is one. An error is a pinger's code: it may panic, wrap
// itself, or call back.
func classify(err error) (outcome schedule.Outcome, hint string) {
	outcome = schedule.Outcome{
		Sent: err == nil, NotSent: redact.Is(err, ErrNotSent), GaveUp: redact.Is(err, context.DeadlineExceeded),
	}
	if status, ok := redact.As[*StatusError](err); ok && status != nil {
		switch status.Code {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			outcome.RetryAfter = status.RetryAfter
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
			http.StatusMethodNotAllowed, http.StatusConflict, http.StatusGone:
			hint = notSelfMending
		}
	} else if redact.Is(err, ErrNotAccepted) && strings.Contains(textOf(err), "not found") {
		hint = notSelfMending
	}
	return outcome, hint
}
