package oneshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newTestClient returns a Client with our own transport, for a test to change.
func newTestClient(t *testing.T, rawURL string) (*Client, *http.Transport) {
	t.Helper()
	c := New(parse(t, rawURL), "name", nil, http.Header{})
	return c, c.http.Transport.(*http.Transport)
}

func parse(t *testing.T, rawURL string) *url.URL {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	return u
}

// do makes one request, and gives its status.
func do(t *testing.T, c *Client, rawURL string, timeout time.Duration) (code int, notSent bool, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		for range 1000 { // time for a read that is too early
			runtime.Gosched()
		}
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	require.NoError(t, err)
	resp, notSent, err := c.Do(req)
	if err != nil {
		require.Nil(t, resp)
		return 0, notSent, err
	}
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, notSent, nil
}

// Reading waits for a write, again after a handshake, and no longer than the attempt.
func TestConnReadsAfterWriting(t *testing.T) {
	type step func(c *conn, end context.CancelFunc)
	write := func(c *conn, _ context.CancelFunc) {
		_, _ = c.Write(nil) // which is nothing
		_, _ = c.Write([]byte("request"))
	}
	nothing := func(*conn, context.CancelFunc) {}
	for name, row := range map[string]struct {
		before  step
		release step
		want    error
	}{
		"write": {nothing, write, nil},
		"write after a handshake": {func(c *conn, end context.CancelFunc) {
			write(c, end)
			c.setShaking(true)
			c.setShaking(false)
		}, write, nil},
		"end": {nothing, func(_ *conn, end context.CancelFunc) { end() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				ctx, end := context.WithCancel(t.Context())
				defer end()
				c := newConn(ctx, near)
				defer c.Close()
				go func() { _, _ = io.Copy(io.Discard, far) }()
				row.before(c, end)
				go func() { _, _ = io.WriteString(far, "unasked") }()
				read := make(chan error, 1)
				go func() {
					_, err := c.Read(make([]byte, readBuffer))
					read <- err
				}()
				synctest.Wait()
				require.Empty(t, read, "nothing is read yet")
				row.release(c, end)
				require.ErrorIs(t, <-read, row.want)
			})
		})
	}
}

// In a handshake no read passes a record's end, whatever its pieces are.
func TestConnReadsByRecords(t *testing.T) {
	for _, piece := range []int{1, 2, 3, 5, 7, 100} {
		near, far := net.Pipe()
		c := newConn(t.Context(), near)
		c.setShaking(true)
		stream := []byte("\x16\x03\x03\x00\x03abc" + "\x14\x03\x03\x00\x00" + "\x17\x03\x03\x01\x00" + strings.Repeat("x", 256) + "rest")
		go func() {
			for part := stream; len(part) > 0; {
				n, err := far.Write(part[:min(piece, len(part))])
				if err != nil {
					return
				}
				part = part[n:]
			}
		}()
		ends := map[int]bool{8: true, 13: true, 274: true}
		for at := 0; at < 274; {
			buf := make([]byte, 300)
			n, err := c.Read(buf)
			require.NoError(t, err)
			require.Equal(t, stream[at:at+n], buf[:n])
			for i := at + 1; i < at+n; i++ {
				require.False(t, ends[i], "a read from %d to %d passes %d", at, at+n, i)
			}
			at += n
		}
		far.Close()
		c.Close()
	}
}

// authority makes a certificate for these hosts, and a pool that trusts it.
func authority(t *testing.T, hosts ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, NotAfter: time.Now().AddDate(0, 1, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serve serves connections until the test ends.
func serve(t *testing.T, handle func(conn net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepting, serving sync.WaitGroup
	var conns []net.Conn
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
			serving.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		accepting.Wait()
		for _, conn := range conns {
			conn.Close()
		}
		serving.Wait()
	})
	return listener.Addr().String()
}

// A pack holds back what is written to it until something is read, or it is flushed.
type pack struct {
	net.Conn
	held []byte
}

func (p *pack) Write(b []byte) (int, error) {
	p.held = append(p.held, b...)
	return len(b), nil
}

func (p *pack) Read(b []byte) (int, error) {
	p.flush()
	return p.Conn.Read(b)
}

func (p *pack) flush() {
	_, _ = p.Conn.Write(p.held)
	p.held = nil
}

// A buffered connection reads what a reader has taken from it.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// speakFirst answers by TLS before it is asked: right behind the handshake.
func speakFirst(conn net.Conn, cert tls.Certificate) {
	packed := &pack{Conn: conn}
	server := tls.Server(packed, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12})
	if server.Handshake() == nil {
		_, _ = io.WriteString(server, "HTTP/1.1 404 Not Found\r\nX: /s3cr3t\r\nContent-Length: 0\r\n\r\n")
		packed.flush()
		_, _ = io.Copy(io.Discard, conn)
	}
}

// Behind a proxy too, nothing is read before the request is being written: where the
// server speaks first through a CONNECT or SOCKS, and where a proxy with TLS does.
func TestSpeaksFirstThroughProxy(t *testing.T) { // not parallel: it takes over the log
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	cert, pool := authority(t, "server.example", "localhost")
	connect := serve(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			speakFirst(conn, cert)
		}
	})
	secure := serve(t, func(conn net.Conn) { speakFirst(conn, cert) })
	_, securePort, _ := net.SplitHostPort(secure)
	socks := serve(t, func(conn net.Conn) {
		in, packed := bufio.NewReader(conn), &pack{Conn: conn}
		exchange := func(asked int, reply string) {
			_, _ = io.CopyN(io.Discard, in, int64(asked))
			_, _ = io.WriteString(packed, reply)
		}
		exchange(4, "\x05\x02") // version, two methods: user and password it is
		packed.flush()
		exchange(3+len("me")+len("pass"), "\x01\x00")
		packed.flush()
		exchange(4+1+len("server.example")+2, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
		packed.flush()
		speakFirst(buffered{conn, in}, cert)
	})
	speaking := serve(t, func(conn net.Conn) {
		in, packed := bufio.NewReader(conn), &pack{Conn: conn}
		_, _ = io.CopyN(io.Discard, in, 3)
		_, _ = io.WriteString(packed, "\x05\x00")
		packed.flush()
		_, _ = io.CopyN(io.Discard, in, int64(4+1+len("server.example")+2))
		_, _ = io.WriteString(packed, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"+"HTTP/1.1 404 Not Found\r\nX: /s3cr3t\r\nContent-Length: 0\r\n\r\n")
		packed.flush()
		_, _ = io.Copy(io.Discard, in)
	})
	for _, row := range []struct{ proxy, url string }{
		{"socks5://me:pass@" + socks, "https://server.example/s3cr3t"},
		{"socks5h://" + speaking, "http://server.example/s3cr3t"},
		{"http://" + connect, "https://server.example/s3cr3t"},
		{"https://localhost:" + securePort, "http://server.example/s3cr3t"},
	} {
		c, transport := newTestClient(t, row.url)
		transport.Proxy = http.ProxyURL(parse(t, row.proxy))
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		for range 50 {
			code, _, err := do(t, c, row.url, 10*time.Second)
			require.NoError(t, err, row)
			require.Equal(t, http.StatusNotFound, code)
		}
		require.Empty(t, printed.String())
	}
}

// What a proxy does in place of connecting is told from what a server does.
func TestProxyErrors(t *testing.T) {
	t.Parallel()
	silent := serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	closing := serve(t, func(conn net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(conn)) })
	hangingUp := serve(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) })
	cert, pool := authority(t, "localhost")
	closingInTLS := serve(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})))
	})
	_, closingInTLS, _ = net.SplitHostPort(closingInTLS)
	refusing := serve(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 403 s3cr3t\r\n\r\n")
	})
	for _, row := range []struct {
		proxy, url, want string
		timeout          time.Duration
		notSent          bool
	}{
		{"http://" + silent, "https://server.example/s3cr3t", "no connection within 100ms (waiting for the proxy): context deadline exceeded", 100 * time.Millisecond, true},
		{"http://" + silent, "http://server.example/s3cr3t", "no answer within 100ms: context deadline exceeded", 100 * time.Millisecond, false},
		{"http://" + closing, "https://server.example/s3cr3t", `Get "name": the proxy closed the connection without an answer`, 10 * time.Second, true},
		{"http://" + closing, "http://server.example/s3cr3t", `Get "name": the server closed the connection without an answer`, 10 * time.Second, false},
		{"https://" + hangingUp, "http://server.example/s3cr3t", `Get "name": the proxy closed the connection in the TLS handshake`, 10 * time.Second, true},
		{"https://" + hangingUp, "https://server.example/s3cr3t", `Get "name": the proxy closed the connection in the TLS handshake`, 10 * time.Second, true},
		{"https://localhost:" + closingInTLS, "https://server.example/s3cr3t", `Get "name": the proxy closed the connection without an answer`, 10 * time.Second, true},
		{"http://" + refusing, "https://server.example/s3cr3t", `Get "name": proxy answered 403 Forbidden`, 10 * time.Second, true},
	} {
		c, transport := newTestClient(t, row.url)
		transport.Proxy, transport.TLSClientConfig = http.ProxyURL(parse(t, row.proxy)), &tls.Config{RootCAs: pool}
		_, notSent, err := do(t, c, row.url, row.timeout)
		require.EqualError(t, err, row.want)
		require.Equal(t, row.notSent, notSent, "%v", row)
	}
}

// A connect that has failed is no connection, and the time is that of the timeout that was
// shorter.
func TestTimesOut(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		client, ctx time.Duration
		want        string
	}{
		{0, 3 * time.Second, "no connection within 3s (waiting for the connect): context deadline exceeded"},
		{2 * time.Second, 3 * time.Second, "no connection within 2s (waiting for the connect): context deadline exceeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			custom := &http.Client{Timeout: row.client, Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				trace := httptrace.ContextClientTrace(req.Context())
				trace.GetConn("server.example:80")
				trace.ConnectStart("tcp", "127.0.0.1:80")
				trace.ConnectDone("tcp", "127.0.0.1:80", io.EOF)
				<-req.Context().Done()
				return nil, req.Context().Err()
			})}
			c := New(parse(t, "http://server.example/"), "name", custom, http.Header{})
			_, notSent, err := do(t, c, "http://server.example/", row.ctx)
			require.EqualError(t, err, row.want)
			require.True(t, notSent)
		})
	}
}

// Of an answer to CONNECT without an end, no more than a bound is read.
func TestEndlessProxy(t *testing.T) {
	t.Parallel()
	taken := make(chan int64, 1)
	endless := serve(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		line := strings.NewReader(strings.Repeat("X-Filler: "+strings.Repeat("y", 1000)+"\r\n", 64<<10)) // 64 MiB
		n, _ := io.Copy(conn, line)
		taken <- n
	})
	c, transport := newTestClient(t, "https://server.example/")
	transport.Proxy = http.ProxyURL(parse(t, "http://"+endless))
	_, notSent, err := do(t, c, "https://server.example/", time.Minute)
	require.Error(t, err)
	require.True(t, notSent)
	require.Less(t, <-taken, int64(32<<20), "with what the system buffers")
}

// The answer's Request is the one that was answered, and says where.
func TestAnswerNamesItsRequest(t *testing.T) {
	t.Parallel()
	for _, useLast := range []bool{false, true} {
		custom := &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}
			if req.URL.Path == "/1" {
				resp.StatusCode = 302
				resp.Header.Set("Location", "http://other.example/2")
			}
			return resp, nil
		})}
		want := "http://other.example/2"
		if useLast {
			custom.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			want = "http://server.example/1"
		}
		c := New(parse(t, "http://server.example/1"), "name", custom, http.Header{})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server.example/1", nil)
		require.NoError(t, err)
		resp, _, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.Request.URL.String())
	}
}

// Redirects are followed ten times, from https to http never, and with the user of the first URL.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		home  string
		times int    // how often a redirect is the answer
		to    string // its location
		want  string // the last request, or the error
	}{
		{"http://server.example/", 10, "/a", "http://server.example/a"},
		{"http://server.example/", 11, "/a", `Get "name": stopped after 10 redirects`},
		{"https://server.example/", 1, "https://server.example/a", "https://server.example/a"},
		{"https://server.example/", 1, "http://server.example/a", `Get "name": refused a redirect from https to http`},
		{"http://server.example/", 1, "https://server.example/a", "https://server.example/a"},
		{"http://me@server.example/", 1, "http://server.example/a", "http://me@server.example/a"},
		{"http://me@server.example/", 1, "http://you@server.example/a", "http://you@server.example/a"},
		{"http://me@server.example/", 1, "http://other.example/a", "http://other.example/a"},
	} {
		asked := 0
		c := New(parse(t, row.home), "name", &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}
			if asked++; asked <= row.times {
				resp.StatusCode = 302
				resp.Header.Set("Location", row.to)
			}
			return resp, nil
		})}, http.Header{})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, row.home, nil)
		require.NoError(t, err)
		resp, _, err := c.Do(req)
		if err != nil {
			require.EqualError(t, err, row.want)
			continue
		}
		require.NoError(t, resp.Body.Close())
		require.Equal(t, row.want, resp.Request.URL.String())
	}
}

// A request that is to be repeated ends, and the new connection of HTTP/1 is closed.
func TestRepetition(t *testing.T) {
	t.Parallel()
	c := New(parse(t, "http://server.example/"), "name", &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		trace := httptrace.ContextClientTrace(req.Context())
		conn, other := net.Pipe()
		trace.GotConn(httptrace.GotConnInfo{Conn: conn})
		require.NoError(t, req.Context().Err())
		trace.WroteHeaderField("Host", []string{"server.example"})
		trace.GotConn(httptrace.GotConnInfo{Conn: conn})
		_, err := other.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		return nil, req.Context().Err()
	})}, http.Header{})
	_, notSent, err := do(t, c, "http://server.example/", time.Minute)
	require.EqualError(t, err, `Get "name": connection lost before the answer: unexpected EOF`)
	require.False(t, notSent)
}

// A transport's own error stays its own.
func TestTransportsError(t *testing.T) {
	t.Parallel()
	c := New(parse(t, "http://server.example/"), "name", &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, io.ErrShortWrite
	})}, http.Header{})
	_, _, err := do(t, c, "http://server.example/", time.Minute)
	require.EqualError(t, err, `Get "name": short write`)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// An error that wraps itself does not keep Do from its end.
func TestErrorThatWrapsItself(t *testing.T) {
	t.Parallel()
	c := New(parse(t, "http://server.example"), "name", &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return nil, &selfWrapper{}
	})}, http.Header{})
	_, notSent, err := do(t, c, "http://server.example", time.Minute)
	require.Error(t, err)
	require.False(t, notSent)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
	require.NotContains(t, err.Error(), "s3cr3t")
}

type selfWrapper struct{}

func (*selfWrapper) Error() string { return "s3cr3t" }

func (e *selfWrapper) Unwrap() error { return e }

// Authority has one form for each host.
func TestAuthority(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]string{
		"http://Host.Example":           "host.example",
		"http://host.example.:80/x":     "host.example",
		"https://host.example:443":      "host.example",
		"https://host.example:":         "host.example",
		"https://host.example:80":       "host.example:80",
		"http://host.example:443":       "host.example:443",
		"http://[::1]:8000":             "[::1]:8000",
		"http://[0:0:0::0001]":          "::1",
		"http://[fe80::1%25eth0]":       "fe80::1%eth0",
		"http://127.0.0.1:81":           "127.0.0.1:81",
		"http://bücher.example":         "xn--bcher-kva.example",
		"http://BÜCHER.example.:8000":   "xn--bcher-kva.example:8000",
		"http://\u212aelvin.example":    "\u212aelvin.example",
		"http://\u212aelvin.bücher.ex":  "\u212aelvin.bücher.ex",
		"http://a。example":              "a。example",
		"http://xn--bcher-kva.example/": "xn--bcher-kva.example",
	} {
		require.Equal(t, want, Authority(parse(t, rawURL)), rawURL)
	}
}

// A header that says what a body is goes with the body, and stays where there never was one.
func TestContentHeadersOnRedirect(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		method, location string
		code             int
		want             http.Header
	}{
		{http.MethodPost, "/2", http.StatusSeeOther, http.Header{"X-Key": {"k"}}},
		{http.MethodPost, "/2", http.StatusTemporaryRedirect, http.Header{"X-Key": {"k"}, "Content-Type": {"t"}, "Content-Language": {"l"}}},
		{http.MethodGet, "/2", http.StatusSeeOther, http.Header{"X-Key": {"k"}, "Content-Type": {"t"}, "Content-Language": {"l"}}},
		{http.MethodPost, "http://other.example/2", http.StatusSeeOther, http.Header{"User-Agent": {"u"}}},
		{http.MethodPost, "http://other.example/2", http.StatusTemporaryRedirect, http.Header{"User-Agent": {"u"}, "Content-Type": {"t"}}},
	} {
		var got http.Header
		c := New(parse(t, "http://server.example/1"), "name", &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}
			if got = req.Header; req.URL.Path == "/1" {
				resp.StatusCode = row.code
				resp.Header.Set("Location", row.location)
			}
			return resp, nil
		})}, http.Header{"User-Agent": {"u"}, "Content-Type": {"t"}})
		var body io.Reader
		if row.method == http.MethodPost {
			body = strings.NewReader("why")
		}
		req, err := http.NewRequestWithContext(t.Context(), row.method, "http://server.example/1", body)
		require.NoError(t, err)
		req.Header = http.Header{"X-Key": {"k"}, "Content-Type": {"t"}, "Content-Language": {"l"}}
		resp, _, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, row.want, got, "%v", row)
	}
}
