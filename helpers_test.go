package heartbeat_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A logBuffer is a log handler that keeps the lines, without their time.
type logBuffer struct {
	mu    sync.Mutex
	above int          // levels that are left out, from DEBUG on
	text  bytes.Buffer // as a slog.TextHandler writes them, since the last take
	short []string     // as "LEVEL message key=value key=value"
}

func (l *logBuffer) Enabled(_ context.Context, level slog.Level) bool {
	return int(level-slog.LevelDebug) >= l.above
}

func (l *logBuffer) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logBuffer) WithGroup(string) slog.Handler { return l }

func (l *logBuffer) Handle(ctx context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	r.Time = time.Time{}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.short = append(l.short, line)
	return slog.NewTextHandler(&l.text, &slog.HandlerOptions{Level: slog.LevelDebug}).Handle(ctx, r)
}

// lines returns all lines in their short form.
func (l *logBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.short)
}

// take returns the lines since the last take.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// logger returns a logger that leaves out what is below a level.
func (l *logBuffer) logger(level slog.Level) *slog.Logger {
	l.above = int(level - slog.LevelDebug)
	return slog.New(l)
}

var quiet = slog.New(slog.DiscardHandler)

// namedPinger is a pinger that is a fmt.Stringer.
type namedPinger struct {
	heartbeat.Pinger
	name string
}

func (p namedPinger) String() string { return p.name }

// panicReporter panics with what it holds; a nil one cannot even tell its path.
type panicReporter struct{ path, text string }

func (r *panicReporter) Path() string { return r.path }

func (r *panicReporter) LastSuccessfulSyncAt() time.Time { panic(r.text) }

// fixture is a Monitor on a fake clock, with a database that has just synced.
type fixture struct {
	*heartbeat.Monitor
	clock    *heartbeattest.Clock
	pinger   *heartbeattest.Pinger
	reporter *heartbeattest.Reporter
	log      *logBuffer
}

func newFixture(t *testing.T, opts heartbeat.Options) *fixture {
	t.Helper()
	f := &fixture{
		clock:    heartbeattest.NewClock(epoch),
		reporter: heartbeattest.NewReporter("/data/app.db"),
		log:      &logBuffer{},
	}
	f.pinger = heartbeattest.NewPinger(f.clock)
	f.reporter.Set(epoch)
	opts.Clock = f.clock
	if opts.Logger == nil {
		opts.Logger = f.log.logger(slog.LevelDebug)
	}
	var err error
	f.Monitor, err = heartbeat.New(namedPinger{f.pinger, "https://hc-ping.com/abc123"}, []heartbeat.SyncReporter{f.reporter}, &opts)
	require.NoError(t, err)
	return f
}

// alwaysFresh is a database that has always just synced, by the system clock.
type alwaysFresh struct{}

func (alwaysFresh) Path() string { return "/data/app.db" }

func (alwaysFresh) LastSuccessfulSyncAt() time.Time { return time.Now() }

// offsets runs a Monitor in a synctest bubble for d and returns when its pinger
// was called, from the start.
func offsets(t *testing.T, d time.Duration, opts heartbeat.Options, ping func(n int) error) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		opts.Logger = quiet
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return ping(len(at))
		}), []heartbeat.SyncReporter{alwaysFresh{}}, &opts)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		require.NoError(t, m.Run(ctx))
	})
	return at
}

func seconds(n ...float64) (at []time.Duration) {
	for _, n := range n {
		at = append(at, time.Duration(n*float64(time.Second)))
	}
	return at
}

func minutes(n ...float64) (at []time.Duration) {
	for _, n := range n {
		at = append(at, time.Duration(n*float64(time.Minute)))
	}
	return at
}

type reporterFunc struct {
	path string
	at   func() time.Time
}

func (r reporterFunc) Path() string { return r.path }

func (r reporterFunc) LastSuccessfulSyncAt() time.Time { return r.at() }

// roundTripFunc makes a function an http.RoundTripper. It serves where there is
// no network: in a synctest bubble, and where the fault is the client's.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answerWith(req *http.Request, code int, header http.Header, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

// viaFunc are the options of a pinger whose requests go to f.
func viaFunc(f roundTripFunc) *heartbeat.HTTPOptions {
	return &heartbeat.HTTPOptions{Client: &http.Client{Transport: f}}
}

// errorTexts returns the text of err and of all that it wraps, at every level.
func errorTexts(err error) []string {
	if err == nil {
		return nil
	}
	texts := []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		texts = append(texts, errorTexts(w.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range w.Unwrap() {
			texts = append(texts, errorTexts(inner)...)
		}
	}
	return texts
}

// fresh is a database that has just synced.
func fresh() []heartbeat.SyncReporter {
	r := heartbeattest.NewReporter("/data/app.db")
	r.Set(time.Now())
	return []heartbeat.SyncReporter{r}
}

// beatOnce is what a Monitor makes of one ping of p.
func beatOnce(t *testing.T, p heartbeat.Pinger) (heartbeat.Result, []string) {
	t.Helper()
	log := &logBuffer{}
	m, err := heartbeat.New(p, fresh(), &heartbeat.Options{Logger: slog.New(log)})
	require.NoError(t, err)
	return m.Beat(t.Context()), log.lines()
}

func newPinger(t *testing.T, url string, opts *heartbeat.HTTPOptions) *heartbeat.HTTPPinger {
	t.Helper()
	p, err := heartbeat.NewHTTPPinger(url, opts)
	require.NoError(t, err)

	return p
}

const hint = " hint=trying again will probably not help: check the ping URL, and whether its check still exists at the service"

const (
	uuid   = "6f7d4c1e-91c2-4c3a-9f0e-2a52d3a4b1c0"
	apikey = "d41d8cd98f00b204e980"
)

func namedPing(name string, ping heartbeat.PingerFunc) namedPinger { return namedPinger{ping, name} }

// rawServer answers each connection's first request with what handle writes, and
// counts the requests. It may keep the connection and read further requests.
func rawServer(t *testing.T, handle func(conn net.Conn, in *bufio.Reader, req *http.Request)) (base string, requests *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	requests = new(atomic.Int32)
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				if req, err := http.ReadRequest(in); err == nil {
					requests.Add(1)
					handle(conn, in, req)
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return "http://" + listener.Addr().String(), requests
}

func reset(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }

// hold waits until the client closes the connection.
func hold(in io.Reader) { _, _ = io.Copy(io.Discard, in) }

// newCertificate is makeCertificate with a test at hand.
func newCertificate(t *testing.T, name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	return makeCertificate(name, until)
}

// makeCertificate makes a certificate for name, valid until then, and a pool that
// trusts it.
func makeCertificate(name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	return certify(until, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
}

// certify makes the certificate of a template, valid until then, and a pool that
// trusts it.
func certify(until time.Time, template *x509.Certificate) (tls.Certificate, *x509.CertPool) {
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), until.AddDate(-1, 0, 0), until
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// runFor runs a Monitor of p over a healthy database, in a synctest bubble.
func runFor(t *testing.T, d time.Duration, p heartbeat.Pinger, opts *heartbeat.Options) []string {
	t.Helper()
	log := &logBuffer{}
	opts.Logger = slog.New(log)
	m, err := heartbeat.New(p, fresh(), opts)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	require.NoError(t, m.Run(ctx))
	return log.lines()
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// A stillClock stands still, so every Beat but the first is rate-limited.
type stillClock struct{ now time.Time }

func (c *stillClock) Now() time.Time { return c.now }

func (c *stillClock) After(time.Duration) <-chan time.Time { return nil }

var sent = heartbeat.PingerFunc(func(context.Context) error { return nil })

// run runs the Monitor until the function that it returns is called.
func run(tb testing.TB, monitor *heartbeat.Monitor) (stop func()) {
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(tb, <-done)
	}
}

// errorAs is errors.As for a type that is named at the call.
func errorAs[E error](err error) (as E, ok bool) {
	ok = errors.As(err, &as)
	return as, ok
}
