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
	"sync"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/oneshot"
	"github.com/go-heartbeat/heartbeat/internal/pingurl"
	"github.com/go-heartbeat/heartbeat/internal/redact"
	"github.com/go-heartbeat/heartbeat/internal/schedule"
	"golang.org/x/sync/errgroup"
)

// A Pinger sends pings to one place: heartbeats or, as Options.FailPinger, failure
// signals. [HTTPPinger] is the usual Pinger.
//
// Ping makes one attempt. It blocks until it knows whether the ping has arrived, and
// returns soon after ctx is done. It returns nil if the ping has arrived, and an error if
// the ping has not arrived. A [Monitor] decides when to make the next attempt, and makes
// it soon if the error matches [ErrNotSent].
//
// A Monitor calls Ping with a ctx that ends after [MinInterval]. [ResultFromContext] gets
// from the ctx what the ping is about. A Monitor never makes two calls at once for one
// target. It ends the ctx of a heartbeat early if a failure signal is due, and the ctx of a
// failure signal early if a heartbeat is due. It never ends a ctx early for another target
// of the same kind. If Ping panics or ends its goroutine, the ping has failed.
//
// If a Pinger is also a [fmt.Stringer], log lines show what its String method returns.
// Errors, a [TargetResult] and the health page show that text only if it could not be a
// URL, with or without a scheme: a ping URL is a credential.
type Pinger interface {
	Ping(ctx context.Context) error
}

// PingerFunc makes a function a [Pinger].
type PingerFunc func(ctx context.Context) error

// Ping calls f.
func (f PingerFunc) Ping(ctx context.Context) error { return f(ctx) }

// MultiPinger returns a [Pinger] that pings all the given pingers at once. If one of them
// is a MultiPinger, its pingers take its place. A [Monitor] treats each pinger as a target
// with an outcome, log line, spacing and retry of its own. Without a Monitor, Ping waits
// for all pingers and joins their errors.
func MultiPinger(pingers ...Pinger) Pinger {
	var flat multiPinger
	for _, p := range pingers {
		if multi, ok := p.(multiPinger); ok {
			flat = append(flat, multi...)
		} else {
			flat = append(flat, p)
		}
	}
	return flat
}

// A multiPinger holds no other multiPinger.
type multiPinger []Pinger

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

// pingAll calls ping with 0 to n-1 at once and waits for all calls. A slow or failing target
// must not affect the other targets. So the group's shared context and first error are not
// used. The calls are kept apart, because code that a user wrote, such as a log handler, may
// end its goroutine there.
func pingAll(n int, ping func(i int)) {
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			apart(func() { ping(i) })
			return nil
		})
	}
	_ = group.Wait()
}

// callPinger pings p once. A pinger is foreign code: it may panic, or end its goroutine. In
// both cases the ping has failed, and the daemon goes on.
func callPinger(ctx context.Context, p Pinger) error {
	err := errors.New("heartbeat: pinger ended its goroutine") // unless Ping returns or panics
	apart(func() {
		if value, panicked := try(func() { err = p.Ping(ctx) }); panicked {
			err = fmt.Errorf("heartbeat: pinger panicked: %v", value)
		}
	})
	return err
}

// apart calls f in a goroutine of its own and waits for it. So if f ends its goroutine, as
// runtime.Goexit and a test's FailNow do, the caller's goroutine goes on: recover does not
// stop a Goexit. An errgroup alone was rejected, because that of x/sync v0.14 and v0.15
// passes a Goexit on to the goroutine that waits.
func apart(f func()) {
	var group sync.WaitGroup
	group.Go(f)
	group.Wait()
}

// logName returns what p.String returns, or "" if p has no String method or String panics.
func logName(p Pinger) (name string) {
	if s, ok := p.(fmt.Stringer); ok {
		try(func() { name = s.String() })
	}
	return name
}

// targetName returns a name that distinguishes p, the i-th target, from the other targets in
// errors, in the Result and on the health page. More people see these than see log lines, so
// no ping URL may get there. If p is not an HTTPPinger, the name that p gives itself is shown
// only if no word of it could be a URL, with or without a scheme. To look for "://" was
// rejected: hc-ping.com/UUID is a credential too, and so is telegram:TOKEN. A colon at the end
// of a word is harmless.
func targetName(p Pinger, i int) string {
	if h, ok := p.(*HTTPPinger); ok && !isNilPinger(h) {
		return h.endpoint().Name
	}
	name := logName(p)
	if u, err := url.Parse(name); err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") {
		return u.Scheme + "://" + u.Host
	}
	words := strings.ReplaceAll(name+" ", ": ", " ")
	if name == "" || strings.ContainsAny(words, `/\?@%:`) {
		return "target " + strconv.Itoa(i+1)
	}
	return name
}

// isNilPinger reports whether p cannot be pinged, because it is nil, a nil pointer, function,
// map, slice or channel, or an HTTPPinger that NewHTTPPinger did not make. To refuse any zero
// value was rejected: a struct without fields may be a working pinger.
func isNilPinger(p Pinger) bool {
	if h, ok := p.(*HTTPPinger); ok {
		return h == nil || h.endpoint == nil
	}
	v := reflect.ValueOf(p)
	switch v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan, reflect.UnsafePointer:
		return v.IsNil()
	}
	return false
}

// samePinger reports whether a and b, which are not nil, are the same value, or ping the
// same check. New and Config call it. Functions are never the same: == panics for functions,
// and for structs that hold a function.
func samePinger(a, b Pinger) bool {
	x, isHTTP := a.(*HTTPPinger)
	y, both := b.(*HTTPPinger)
	if isHTTP && both {
		return pingurl.Same(x.endpoint().url, y.endpoint().url)
	}
	return reflect.ValueOf(a).Comparable() && a == b
}

const (
	defaultTimeout = 10 * time.Second // Healthchecks.io advises it

	maxBody  = 64 << 10 // how many bytes of an answer's body are read
	maxWords = 64       // how many bytes after "OK (" are searched for why a ping did not count

	userAgent = "go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"
)

// HTTPOptions are the settings of an [HTTPPinger]. A nil *HTTPOptions, and the
// zero value, mean all defaults.
//
// They hold credentials, so they print without their header, body and client: with
// log/slog, with encoding/json, and with the verbs of package fmt other than %p and
// %w. That holds for HTTPOptions, for a pointer to them, and for either of the two in
// a named, exported field of a struct. Nothing else is promised. For HTTPOptions in an
// unexported field, package fmt calls no method, and prints the header and the body.
type HTTPOptions struct {
	// Client sends the requests. It is copied and never modified. A redirect that its
	// CheckRedirect refuses is refused. The client must not repeat a request by itself. If
	// its transport is net/http's, the pinger prevents a repetition by closing the HTTP/1
	// connection that a repetition would use. No other connection is closed. If Client is
	// nil, the pinger uses a client of its own, which makes an HTTP/1.1 connection for each
	// request and honours the proxy environment variables.
	Client *http.Client

	// Timeout is how long one ping may take, with its redirects and the body of the
	// answer. If zero, 10 seconds is used, as Healthchecks.io advises. A Monitor gives a
	// ping MinInterval at most. If negative, NewHTTPPinger returns an error.
	Timeout time.Duration

	// Method is the request's method. If empty, POST is used with a Body, and GET
	// without a Body. HEAD works, but its answer has no body, and only a body can say
	// that a ping with a 2xx status did not count.
	Method string

	// Header is sent with each ping, for example Authorization. It is never sent to
	// another host that a redirect names. It is copied.
	Header http.Header

	// Body is sent with each ping as text/plain in UTF-8, unless Header sets another
	// Content-Type. It is sent again to the URL to which a 307 or 308 redirects. In
	// Body, "{reason}" stands for the text of the [Result] that the ping is about, and
	// for nothing if there is no Result. If empty, no body is sent. With a Body and the
	// Method GET or HEAD, NewHTTPPinger returns an error, because servers ignore a body there.
	Body string

	// RedactURL makes logs show only the URL's scheme and host. A ping URL is a
	// credential. Set RedactURL if people who must not have the URL read the logs.
	RedactURL bool

	// Name is shown in place of the URL in logs, errors and a TargetResult. If empty,
	// logs show the URL, and errors and a TargetResult show its scheme and host.
	Name string
}

// summary returns what may be printed of the options.
func (o HTTPOptions) summary() string {
	return fmt.Sprintf("heartbeat.HTTPOptions{Name:%q Timeout:%v RedactURL:%v}", o.Name, o.Timeout, o.RedactURL)
}

// Format prints the options without their credentials. Package fmt calls it for all
// verbs but %T, %p and %w.
func (o HTTPOptions) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.summary()) }

// LogValue returns what Format prints, for log/slog.
func (o HTTPOptions) LogValue() slog.Value { return slog.StringValue(o.summary()) }

// MarshalJSON returns what Format prints, for encoding/json.
func (o HTTPOptions) MarshalJSON() ([]byte, error) { return json.Marshal(o.summary()) }

// An HTTPPinger is a [Pinger] that requests a URL. Create one with
// [NewHTTPPinger]. It may be used from several goroutines at once.
type HTTPPinger struct {
	// endpoint is a function, because fmt and reflection show only the address of a
	// function. So they show no URL, even if the HTTPPinger is in an unexported field.
	endpoint func() *endpoint
}

// An endpoint is what an HTTPPinger requests.
type endpoint struct {
	HTTPOptions // with the defaults filled in; Name is what errors call the URL
	url         *url.URL
	once        *oneshot.Client
	logName     string // what logs call the URL
}

// NewHTTPPinger returns a Pinger for rawURL, which must be an absolute http or https URL
// with a host. If opts is nil, all defaults are used. NewHTTPPinger refuses a URL with a
// fragment, and a URL that can only be a mistake, such as two URLs in one string or a
// placeholder that was not replaced. The error says what is wrong with the URL or the
// options. It repeats no part of the URL, the body or a header's value.
//
// In the URL's query, "{reason}" stands for the text of the [Result] that the ping is
// about, escaped. It is refused elsewhere in the URL.
//
// A ping is one request, and one more for each redirect. Each has a connection of its
// own unless a client is given. Any 2xx status means that the ping was accepted. This
// includes the status of a login page to which a portal has redirected the ping. The one
// exception is a body that begins with "OK (": then the error is [ErrNotAccepted]. For any
// other status, the error is a [*StatusError].
//
// At most 10 redirects are followed, and no redirect from https to http. A request to another
// host has neither the Header nor the URL's user and password.
//
// An error matches [ErrNotSent] if it proves that no byte of the request left. An error
// holds no header, and no more of the URL than its scheme and host. [errors.Is] finds in
// it what net/http returned. [errors.As] finds only errors that may be shown.
func NewHTTPPinger(rawURL string, opts *HTTPOptions) (*HTTPPinger, error) {
	p, err := newHTTPPinger(rawURL, opts)
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	return p, nil
}

// newHTTPPinger returns errors without the prefix "heartbeat: ", because Config puts its key
// behind that prefix.
func newHTTPPinger(rawURL string, opts *HTTPOptions) (*HTTPPinger, error) {
	u, err := pingurl.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	e := &endpoint{HTTPOptions: *cmp.Or(opts, &HTTPOptions{}), url: u}
	if err := e.complete(); err != nil {
		return nil, err
	}
	e.logName = cmp.Or(e.Name, u.Redacted())
	e.Name = cmp.Or(e.Name, u.Scheme+"://"+u.Host)
	if e.RedactURL {
		e.logName = e.Name
	}
	// net/http unpacks an answer, without a bound, unless the request names an encoding. If
	// a redirect leads to another host, that host gets these fields only.
	header := http.Header{"User-Agent": {userAgent}, "Accept-Encoding": {"identity"}}
	if e.Body != "" {
		header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	e.once = oneshot.New(u, e.Name, e.Client, header.Clone())
	for name, values := range e.Header {
		header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	e.Header = header
	return &HTTPPinger{func() *endpoint { return e }}, nil
}

// complete puts defaults in the place of what is not set, and returns what is wrong. It
// refuses what net/http would refuse at each ping, so that the mistake is seen at the start of
// the daemon.
func (o *HTTPOptions) complete() error {
	_, notHTTP := http.NewRequest(o.Method, "http://host", nil)
	method := strings.ToUpper(o.Method)
	switch {
	case o.Timeout < 0:
		return fmt.Errorf("ping timeout is negative (%v); use a positive one, or zero for %v", o.Timeout, defaultTimeout)
	case notHTTP != nil:
		return fmt.Errorf("ping method %q is not an HTTP method; use GET or POST", o.Method)
	case o.Body != "" && (method == http.MethodGet || method == http.MethodHead):
		return fmt.Errorf("ping has a body, which servers ignore with %s; leave the method empty for POST", method)
	case o.Body != "":
		o.Method = cmp.Or(method, http.MethodPost)
	default:
		o.Method = cmp.Or(method, http.MethodGet)
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	return cmp.Or(pingurl.CheckHeader(o.Header), pingurl.CheckBody(o.Body))
}

// String returns HTTPOptions.Name. If Name is empty, String returns the URL as logs may show
// it: without a password, and with RedactURL only its scheme and host.
func (p *HTTPPinger) String() string { return p.endpoint().logName }

// Format prints what String returns. Package fmt calls it for all verbs but %T, %p and %w,
// also for an HTTPPinger that is no pointer.
func (p HTTPPinger) Format(f fmt.State, verb rune) {
	text := "heartbeat.HTTPPinger{}" // not made by NewHTTPPinger
	if p.endpoint != nil {
		text = p.endpoint().logName
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), text)
}

// Ping makes one ping. It blocks until the ping has been answered, ctx is done or the
// timeout has passed. [NewHTTPPinger] says which errors Ping returns.
func (p *HTTPPinger) Ping(ctx context.Context) (err error) {
	e := p.endpoint()
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	defer func() { // a caller's transport may panic, and name the URL in it
		if v := recover(); v != nil {
			err = &pingError{error: fmt.Errorf("heartbeat: ping: HTTP client panicked with a %T (not shown)", v)}
		}
	}()
	resp, notSent, err := e.once.Do(e.newRequest(ctx))
	if err != nil {
		return &pingError{fmt.Errorf("heartbeat: ping: %w", err), notSent}
	}
	defer resp.Body.Close()
	return e.readAnswer(resp)
}

// newRequest returns the request of one ping. It puts the reason in the place of {reason}.
func (e *endpoint) newRequest(ctx context.Context) *http.Request {
	u, body := *e.url, e.Body
	if strings.Contains(u.RawQuery, pingurl.Reason) || strings.Contains(body, pingurl.Reason) {
		reason := ""
		if result, ok := ResultFromContext(ctx); ok {
			reason = result.String()
		}
		u.RawQuery = strings.ReplaceAll(u.RawQuery, pingurl.Reason, url.QueryEscape(reason))
		body = strings.ReplaceAll(body, pingurl.Reason, strings.ToValidUTF8(reason, "\uFFFD"))
	}
	// The method is valid, so there is no error. net/http sets GetBody, so that the body can
	// be sent again after a 307. The URL is set after the request is made: to have net/http
	// parse the URL's text again was rejected, since the URL must be sent as it was written.
	var content io.Reader
	if e.Body != "" {
		content = strings.NewReader(body)
	}
	req, _ := http.NewRequestWithContext(ctx, e.Method, "", content)
	req.URL, req.Header = &u, e.Header.Clone()        // a clone, because a caller's client adds cookies to it
	req.Host = cmp.Or(req.Header.Get("Host"), u.Host) // net/http takes the host from here, not from the header
	return req
}

// readAnswer says what an answer means. With the pinger's own client, it stops reading as soon
// as it knows what the answer means, because a server may keep the connection open without
// sending more.
func (e *endpoint) readAnswer(resp *http.Response) error {
	limited := &io.LimitedReader{R: resp.Body, N: maxBody}
	// A body that is read to its end leaves a caller's connection reusable. The body of a
	// 101 is not read: it is the connection itself, and has no deadline.
	if e.Client != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _, _ = io.Copy(io.Discard, limited) }()
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		longest := time.Hour // as far as a server may put off the next attempt
		if oneshot.Authority(resp.Request.URL) != oneshot.Authority(e.url) {
			longest = time.Minute // another host, to which the target has redirected, may put it off by less
		}
		return &StatusError{Code: resp.StatusCode, RetryAfter: min(max(0, retryAfter(resp)), longest)}
	}
	// The status line proves that the ping has arrived. Only a body that begins with "OK ("
	// says that the ping did not count, even if it breaks off after that.
	body := bufio.NewReaderSize(limited, maxWords)
	// A server may compress an answer although the request did not ask for it. It may also
	// name gzip for a body that is not compressed. The compressed bytes that are read are
	// bounded too, so no answer unpacks for long.
	if strings.HasSuffix(strings.ToLower(resp.Header.Get("Content-Encoding")), "gzip") {
		if magic, _ := body.Peek(2); string(magic) == "\x1f\x8b" {
			unpacked, err := gzip.NewReader(body)
			if err != nil {
				return nil
			}
			body = bufio.NewReaderSize(unpacked, maxWords)
		}
	}
	for _, want := range []byte("OK (") {
		if got, err := body.ReadByte(); err != nil || got != want {
			return nil
		}
	}
	words, _ := bufio.NewReader(io.LimitReader(body, maxWords)).ReadString(')') // those that came, if the body breaks off
	return &pingError{error: fmt.Errorf("%w: server answered %q", ErrNotAccepted, "OK ("+knownWords(words)+")")}
}

// knownWords returns what may be shown of said, which is the part of a body after "OK (", with
// the closing bracket. Only words with which Healthchecks.io is known to answer are shown, and
// an ellipsis for other words around them. To strike the URL out of the other words was
// rejected: a server may repeat the URL shortened or in another encoding.
func knownWords(said string) string {
	for _, known := range []string{"not found", "rate-limited"} {
		switch {
		case said == known+")":
			return known
		case strings.Contains(said, known):
			return "… " + known + " …"
		}
	}
	return "…"
}

// retryAfter reads the Retry-After of a 429 or 503, which is a number of seconds or a date. The
// wait until a date is measured from the answer's Date field if there is one, and otherwise
// from the local time. The caller sets the bounds.
func retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if strings.Trim(value, "0123456789") == "" {
		// If the number is too large, ParseUint returns the largest number, which is 136 years
		// here. To test for digits by strconv.ErrRange was rejected: ParseUint also returns it
		// if a letter follows digits that are already too large.
		seconds, _ := strconv.ParseUint(value, 10, 32)
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return until.Sub(now)
}

// Errors of a ping; test for them with [errors.Is].
var (
	// ErrNotAccepted is the error of a ping that was answered with a 2xx status and a
	// body that says that the ping did not count. Healthchecks.io answers
	// "OK (not found)" for a check that was deleted, and "OK (rate-limited)". The error
	// shows no other words of a body, because a server may repeat the ping's URL there.
	ErrNotAccepted = errors.New("heartbeat: ping not accepted")

	// ErrNotSent is the error of a ping of which no byte has left: the host was not
	// found or refused the connection, the TLS handshake failed, or a proxy refused to
	// connect. Such an attempt costs the service nothing, so a [Monitor] makes the
	// next attempt soon. Any Pinger may return ErrNotSent, or an error that wraps it.
	ErrNotSent = errors.New("heartbeat: not sent")
)

// A pingError is an error of an HTTPPinger that is not a StatusError. Strangers may see all of
// it, and all that it wraps. ErrNotSent is no part of its text, because the cause says more.
type pingError struct {
	error
	notSent bool
}

func (e *pingError) Unwrap() error        { return e.error }
func (e *pingError) Is(target error) bool { return e.notSent && target == ErrNotSent }

// A StatusError is the error of a ping whose answer had no 2xx status. Find it with
// [errors.As], as a *StatusError. It holds nothing of the response's body, because
// servers repeat the request's URL in their error pages.
type StatusError struct {
	Code int // the HTTP status, such as 404

	// RetryAfter is how long a 429 or 503 asked to wait. It is an hour at most, and a
	// minute at most after a redirect to another host. If zero, the server did not ask.
	RetryAfter time.Duration
}

// Error returns a text that has no part of the ping URL. If e is nil, it returns "<nil>".
func (e *StatusError) Error() string {
	if e == nil {
		return "<nil>" // a Pinger that returns a nil *StatusError is wrong, and its ping has failed
	}
	text := strings.TrimRight(fmt.Sprintf("heartbeat: server answered %d %s", e.Code, http.StatusText(e.Code)), " ")
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	return text
}

// lasting are the statuses that the next try will probably get too: the check is gone, the
// credential is wrong, or the service wants another method.
var lasting = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusConflict, http.StatusGone,
}

// classify says what err, which may be nil, means to the schedule, with a hint for the operator
// if there is one. An error is a pinger's code: it may panic, wrap itself, or call the
// Monitor. So errors.Is and errors.As were rejected: they have no bound and recover no panic.
func classify(err error) (outcome schedule.Outcome, hint string) {
	outcome = schedule.Outcome{Sent: err == nil, NotSent: redact.Is(err, ErrNotSent), GaveUp: redact.TimedOut(err)}
	hopeless := redact.Is(err, ErrNotAccepted) && strings.Contains(fmt.Sprint(err), "not found")
	if status, ok := redact.As[*StatusError](err); ok && status != nil {
		if status.Code == http.StatusTooManyRequests || status.Code == http.StatusServiceUnavailable {
			outcome.RetryAfter = status.RetryAfter
		}
		hopeless = slices.Contains(lasting, status.Code)
	}
	if hopeless {
		hint = "trying again will probably not help: check the ping URL, and whether its check still exists at the service"
	}
	return outcome, hint
}
