package redact_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-heartbeat/heartbeat/internal/redact"
	"github.com/stretchr/testify/require"
)

// secrets have the shapes of what services put into URLs and headers, and none is
// a part of a phrase.
var secrets = []string{
	"6f7d4c1e-91c2-4c3a-9f0e-2a52d3a4b1c0", "6f7d4c1e91c24c3a9f0e2a52d3a4b1c0", "d41d8cd98f00b204e980", "kumaT0ken", "s3cr", "Zq7x",
	"my-s1ug", "gatusT0ken==", "5entry;K3y", "pässwört-9", "c0ffee1234.json", "%41%42q9", "me-us3r:h9n7er22",
}

// encodings are the ways in which a secret may come back.
var encodings = []func(string) string{
	func(s string) string { return s },
	strings.ToUpper,
	url.QueryEscape,
	url.PathEscape,
	html.EscapeString,
	func(s string) string { return strconv.QuoteToASCII(s) },
	func(s string) string { return hex.EncodeToString([]byte(s)) },
	func(s string) string { return fmt.Sprintf("% x", s) },
	func(s string) string { return fmt.Sprintf("%d", []byte(s)) },
	func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
	func(s string) string { b, _ := json.Marshal(s); return string(b) },
	func(s string) string { return strings.ReplaceAll(s, "-", "") },
	func(s string) string { return s[:max(4, len(s)/2)] },
	func(s string) string { return s[max(0, len(s)-6):] },
}

// A foreign error holds text wherever a type can.
type foreign struct {
	Text  string
	inner error
}

func (f foreign) Error() string              { return f.Text }
func (f foreign) Unwrap() error              { return f.inner }
func (f foreign) Format(s fmt.State, _ rune) { fmt.Fprint(s, f.Text) }
func (f foreign) GoString() string           { return f.Text }
func (f foreign) Is(target error) bool       { return target == errHidden }
func (f foreign) Timeout() bool              { return len(f.Text)%2 == 0 }
func (f foreign) As(target any) (found bool) {
	if p, ok := target.(*foreign); ok {
		*p, found = f, true
	}
	return found
}

var errHidden = errors.New("a sentinel of the caller's")

type panicking struct{ text string }

func (p panicking) Error() string { panic(p.text) }

type uncomparable []string

func (u uncomparable) Error() string { return strings.Join(u, " ") }

type address string

func (a address) Network() string { return string(a) }
func (a address) String() string  { return string(a) }

// nest makes an error that has the text at every place where one fits.
func nest(shape byte, text string, inner error) error {
	switch shape % 28 {
	case 0:
		return errors.New(text)
	case 1:
		return fmt.Errorf("%s: %w", text, inner)
	case 2:
		return foreign{text, inner}
	case 3:
		return &foreign{text, inner}
	case 4:
		return errors.Join(errors.New(text), inner, foreign{text, nil})
	case 5:
		return &url.Error{Op: text, URL: "http://host/" + text, Err: inner}
	case 6:
		return &net.OpError{Op: text, Net: text, Source: address(text), Addr: address(text), Err: inner}
	case 7:
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: append(net.IP{}, (text + strings.Repeat("x", 16))[:16]...), Zone: text}, Err: inner}
	case 8:
		return &net.DNSError{Err: text, Name: text, Server: text, UnwrapErr: inner}
	case 9:
		return &net.DNSError{Err: "no such host", Name: text + ".example", IsNotFound: true}
	case 10:
		return &os.SyscallError{Syscall: text, Err: inner}
	case 11:
		return &fs.PathError{Op: text, Path: text, Err: inner}
	case 12:
		return &tls.CertificateVerificationError{Err: inner, UnverifiedCertificates: []*x509.Certificate{{Raw: []byte(text), DNSNames: []string{text}}}}
	case 13:
		return x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{text}, Subject: pkix.Name{CommonName: text}}, Host: text}
	case 14:
		return x509.CertificateInvalidError{Cert: &x509.Certificate{Raw: []byte(text)}, Reason: x509.Expired, Detail: text}
	case 15:
		return x509.CertificateInvalidError{Reason: x509.NameMismatch, Detail: text}
	case 16:
		return x509.UnknownAuthorityError{Cert: &x509.Certificate{Raw: []byte(text)}}
	case 17:
		return tls.RecordHeaderError{Msg: text, RecordHeader: [5]byte([]byte((text + "xxxxx")[:5]))}
	case 18:
		return fmt.Errorf("net/http: HTTP/1.x transport connection broken: malformed HTTP response %q: %w", text, inner)
	case 19:
		return fmt.Errorf("malformed HTTP response %q", text)
	case 20:
		return fmt.Errorf("failed to parse Location header %q: %v", text, inner)
	case 21:
		return errors.New("Proxy Authentication Required " + text)
	case 22:
		return &net.AddrError{Err: text, Addr: text}
	case 23:
		return panicking{text}
	case 24:
		return uncomparable{text}
	case 25:
		return x509.SystemRootsError{Err: inner}
	case 26:
		return &net.ParseError{Type: text, Text: text}
	default:
		return textproto.ProtocolError("malformed MIME header: " + text)
	}
}

// view collects what fmt and errors.As make of err and of all that it wraps.
func view(err error, depth int) (texts []string) {
	if err == nil || depth > 40 {
		return nil
	}
	texts = []string{err.Error(), pointer.ReplaceAllString(fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err), ""), deep(reflect.ValueOf(err), 0)}
	switch w := err.(type) {
	case interface{ Unwrap() error }:
		texts = append(texts, view(w.Unwrap(), depth+1)...)
	case interface{ Unwrap() []error }:
		for _, inner := range w.Unwrap() {
			texts = append(texts, view(inner, depth+1)...)
		}
	}
	return texts
}

// A pointer's digits could be those of a short secret by chance.
var pointer = regexp.MustCompile("0x[0-9a-f]+")

// deep is all that reflection finds in v, unexported fields too, but not within a
// function.
func deep(v reflect.Value, depth int) string {
	if depth > 20 {
		return ""
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			return deep(v.Elem(), depth+1)
		}
	case reflect.Struct:
		text := ""
		for i := range v.NumField() {
			text += deep(v.Field(i), depth+1) + " "
		}
		return text
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			bytes := make([]byte, v.Len())
			for i := range bytes {
				bytes[i] = byte(v.Index(i).Uint())
			}
			return string(bytes)
		}
		text := ""
		for i := range v.Len() {
			text += deep(v.Index(i), depth+1) + " "
		}
		return text
	case reflect.String:
		return v.String()
	}
	return ""
}

// FuzzError: whatever an error is made of, nothing of a secret is in what Error
// returns, in no encoding, text or field; and errors.Is goes on working.
func FuzzError(f *testing.F) {
	for i := range uint8(28) {
		f.Add([]byte{i}, i, i, true)
		f.Add([]byte{i, 1, 2, i}, i, uint8(3), false)
		f.Add([]byte{4, 4, i, 6, 12}, i, uint8(0), true)
	}
	f.Fuzz(func(t *testing.T, shapes []byte, secret, encoding uint8, bare bool) {
		plain := secrets[int(secret)%len(secrets)]
		text := encodings[int(encoding)%len(encodings)](plain)
		if !bare {
			text = "cannot get /ping/" + text + "/x"
		}
		var err error = syscall.ECONNRESET
		for _, shape := range shapes[:min(len(shapes), 12)] {
			err = nest(shape, text, err)
		}
		safe := redact.Error(err, "server.example", "127.0.0.1:80")
		for _, shown := range view(safe, 0) {
			for _, encode := range encodings {
				for _, source := range []string{plain, text} {
					// What is shortened twice is in ordinary words by chance.
					if form := encode(source); len(form) >= 6 || source == plain && len(form) >= 4 {
						require.NotContains(t, strings.ToLower(shown), strings.ToLower(form))
					}
				}
			}
		}
		var f1 foreign
		var f2 *foreign
		var path *fs.PathError
		require.False(t, errors.As(safe, &f1) || errors.As(safe, &f2) || errors.As(safe, &path))
		for _, target := range []error{syscall.ECONNRESET, errHidden, io.EOF} {
			require.Equal(t, isSafe(err, target), errors.Is(safe, target), "%v", target)
		}
	})
}

func isSafe(err, target error) (found bool) {
	defer func() { _ = recover() }()
	return errors.Is(err, target)
}

// What an operator needs is shown.
func TestError(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, row := range []struct {
		err  error
		want string
	}{
		{refused, "dial tcp 127.0.0.1:80: connect: connection refused"},
		{&net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 80}, Err: refused.Err}, "dial tcp: connect: connection refused"},
		{&net.OpError{Op: "readfrom", Net: "tcp", Err: io.EOF}, "readfrom tcp: EOF"}, // of a long body
		{errors.New("tls: failed to parse certificate from server: x509: negative serial number s3cr3t"), "tls: failed to parse certificate from server"},
		{&net.OpError{Op: "socks connect", Net: "tcp", Err: errors.New("unexpected protocol version 72")}, "socks connect tcp: unexpected protocol version"}, // no SOCKS proxy
		{&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "read tcp: read: connection reset by peer"},
		{&net.DNSError{Err: "no such host", Name: "Server.example.", Server: "10.0.0.1:53", IsNotFound: true}, "lookup server.example: no such host"},
		{&net.DNSError{Err: "no such host", Name: "elsewhere.example"}, "lookup another host: no such host"},
		{io.ErrUnexpectedEOF, "unexpected EOF"},
		{fmt.Errorf("x: %w", context.Canceled), "context canceled"},
		{http.ErrSchemeMismatch, "http: server gave HTTP response to HTTPS client"},
		{errors.New("http: server gave HTTP response to HTTPS client"), "http: server gave HTTP response to HTTPS client"},
		{fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", errors.New(`malformed HTTP response "x"`)), "net/http: HTTP/1.x transport connection broken: malformed HTTP response"},
		{errors.New("net/http: server response headers exceeded 65536 bytes; aborted"), "net/http: server response headers exceeded 65536 bytes; aborted"},
		{errors.New("net/http: server response headers exceeded 5 bytes; aborted"), "net/http: server response headers exceeded"},
		{errors.New("Proxy Authentication Required"), "proxy answered 407 Proxy Authentication Required"},
		{errors.New("s3cr3t\x1b[31m"), redact.Withheld},
		{redact.ProxyStatus(407), "proxy answered 407 Proxy Authentication Required"},
		{redact.ProxyStatus(599), "proxy answered 599"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "x509: certificate has expired or is not yet valid: valid from 0001-01-01T00:00:00Z to 0001-01-01T00:00:00Z"},
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"s3cr3t"}}, Host: "server.example"}, "x509: certificate is not valid for the host: x509: certificate is valid for other names, not server.example"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "remote error: tls: handshake failure"},
		{errors.New("tls: handshake failure"), "tls: handshake failure"},
		{errors.Join(io.EOF, errors.New("s3cr3t")), "EOF\n" + redact.Withheld},
		{loop{}, redact.Withheld},
		// What wraps nothing though it should.
		{&os.SyscallError{Syscall: "connect"}, "connect: " + redact.Withheld},
		{&net.OpError{Op: "dial", Net: "tcp"}, "dial tcp: " + redact.Withheld},
		{&tls.CertificateVerificationError{}, "tls: failed to verify certificate: " + redact.Withheld},
		{&url.Error{Op: "s3cr3t"}, redact.Withheld},
		{x509.SystemRootsError{}, "x509: failed to load system roots and no roots provided"},
		{x509.SystemRootsError{Err: syscall.ENOENT}, "x509: failed to load system roots and no roots provided: no such file or directory"},
		{errors.Join(nil, &os.SyscallError{Syscall: "s3cr3t"}), "system call: " + redact.Withheld},
		// An alert is shown, once, though its type is unexported and wrapped twice.
		{fmt.Errorf("%w", &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}), "remote error: tls: certificate required"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: alert(7)")}, "remote error: tls: alert(7)"},
		{errors.New("tls: s3cr3t"), "tls: "},
		// Known phrases at a text's end, the longest of them.
		{errors.New("s3cr3t: connection refused"), "connection refused"},
		{errors.New("connection refused"), "connection refused"},
		{errors.New("connection refused: s3cr3t"), redact.Withheld},
		{errors.New("unknown error TTL expired"), "TTL expired"},
		{errors.New("unknown error network unreachable"), "network unreachable"},
		{errors.New("x509: s3cr3t: i/o timeout"), "x509: "},
		{&net.DNSError{Err: "read udp 10.0.0.1:3->10.0.0.2:53: i/o timeout", Name: "server.example"}, "lookup server.example: no DNS server answers: i/o timeout"},
		{&net.DNSError{Err: "s3cr3t", Name: "server.example"}, "lookup server.example: lookup failed"},
		{&net.DNSError{Err: "no such host", Name: "xerver.example"}, "lookup another host: no such host"},
		// What wraps a phrase that is in the cause too, or an "EOF" that says no more.
		{fmt.Errorf("the server closed the connection without an answer: %w", io.EOF), "the server closed the connection without an answer"},
		{fmt.Errorf("connection lost before the answer: %w", io.ErrUnexpectedEOF), "connection lost before the answer: unexpected EOF"},
		{fmt.Errorf("tls: failed to verify certificate: %w", errors.New("s3cr3t")), "tls: failed to verify certificate"},
		// A certificate by what it is valid for.
		{x509.HostnameError{Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "server.example"}}, Host: "server.example"}, "x509: certificate is not valid for the host: x509: certificate relies on legacy Common Name field, use SANs instead"},
		{x509.HostnameError{Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "s3cr3t"}}, Host: "server.example"}, "x509: certificate is not valid for the host: x509: certificate is not valid for any names, but wanted to match server.example"},
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"s3cr3t"}}, Host: "[s3cr3t]"}, "x509: certificate is not valid for the host: x509: certificate is valid for other names, not another host"},
		{x509.HostnameError{Host: "server.example"}, "x509: certificate is not valid for the host: x509: certificate is valid for other names, not server.example"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.CANotAuthorizedForExtKeyUsage + 11}, "x509: invalid certificate"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.CANotAuthorizedForExtKeyUsage + 10}, "x509: unknown error"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.NotAuthorizedToSign}, "x509: certificate is not authorized to sign other certificates"},
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"s3cr3t"}, IPAddresses: []net.IP{net.IPv6loopback}}, Host: "server.example"}, "x509: certificate is not valid for the host: x509: certificate is valid for other names, not server.example"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: -1}, "x509: invalid certificate"},
		{x509.CertificateInvalidError{Reason: x509.TooManyIntermediates, Detail: "s3cr3t"}, "x509: too many intermediates for path length constraint"},
		{syscall.Errno(1<<14 - 1), "errno 16383"},
		{syscall.Errno(1 << 14), redact.Withheld},
		{errors.New("Continue"), "proxy answered 100 Continue"},
		{errors.New("Network Authentication Required"), "proxy answered 511 Network Authentication Required"},
		{redact.ProxyStatus(100), "proxy answered 100 Continue"},
		{redact.ProxyStatus(999), "proxy answered 999"},
		{foreign{"even", nil}, "i/o timeout"}, // it says that it is a timeout
		{chain(29), "EOF"},
		{chain(31), redact.Withheld},
		{errors.Join(errors.Join(errors.Join(io.EOF))), redact.Withheld}, // two levels are enough
		{errors.Join(errors.Join(io.EOF), nil), "EOF"},
		{&several{[]error{nil, io.EOF}}, "EOF"},
		{errors.New(""), redact.Withheld},
		{x509.CertificateInvalidError{Reason: x509.Expired}, "x509: certificate has expired or is not yet valid: no more is shown"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.CANotAuthorizedForThisName}, "x509: a root or intermediate certificate is not authorized to sign for this name: no more is shown"},
		{(*net.OpError)(nil), redact.Withheld},
	} {
		require.EqualError(t, redact.Error(row.err, "server.example", "127.0.0.1:80"), row.want)
	}
	require.NoError(t, redact.Error(nil, "", ""))
}

// chain is EOF, wrapped so often.
func chain(depth int) (err error) {
	err = io.EOF
	for range depth {
		err = fmt.Errorf("s3cr3t: %w", err)
	}
	return err
}

// A joined error shows no more parts than its bound.
func TestJoinedIsBounded(t *testing.T) {
	t.Parallel()
	many := make([]error, 1000)
	for i := range many {
		many[i] = io.EOF
	}
	tree := errors.Join(many...)
	require.Equal(t, 30, strings.Count(redact.Error(tree, "", "").Error(), "EOF"))
	for range 3 {
		tree = errors.Join(slices.Repeat([]error{tree}, 100)...)
	}
	require.Equal(t, 30*30, 1+strings.Count(redact.Error(tree, "", "").Error(), "\n"))
}

// Each alert is shown by its text.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for alert := range 256 {
		text := tls.AlertError(alert).Error()
		require.EqualError(t, redact.Error(errors.New(text), "", ""), text)
	}
}

// Text shows what is harmless as it is, also deep within what is not.
func TestText(t *testing.T) {
	t.Parallel()
	own := errors.New("my own words")
	harmless := func(err error) bool { return err == own }
	for _, row := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{own, "my own words"},
		{fmt.Errorf("s3cr3t: %w", own), "my own words"},
		{errors.Join(errors.New("s3cr3t"), own), redact.Withheld + "\nmy own words"},
		{errors.New("my own words"), redact.Withheld},
		{loop{}, redact.Withheld},
	} {
		require.Equal(t, row.want, redact.Text(row.err, harmless))
	}
}

// Is and As find what those of package errors find, and end where those do not.
func TestIsAndAs(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		nil, io.EOF, chain(1), chain(500), errors.Join(errors.New("x"), nil, chain(2), syscall.EPIPE), foreign{"x", io.EOF}, &foreign{"x", io.EOF},
		uncomparable{"x"}, errors.Join(uncomparable{"x"}, io.EOF), fmt.Errorf("%w and %w", syscall.EPIPE, io.EOF),
		&net.OpError{Err: os.NewSyscallError("x", syscall.ECONNREFUSED)},
	} {
		for _, target := range []error{io.EOF, syscall.EPIPE, syscall.ECONNREFUSED, errHidden, context.Canceled, os.ErrPermission} {
			require.Equal(t, errors.Is(err, target), redact.Is(err, target), "%v, %v", err, target)
		}
		requireSameAs[foreign](t, err)
		requireSameAs[syscall.Errno](t, err)
		requireSameAs[*net.OpError](t, err)
	}
	require.False(t, redact.Is(nil, io.EOF))
	require.False(t, redact.Is(loop{}, io.EOF))
	require.False(t, redact.Is(&twice{}, io.EOF))
	require.True(t, redact.Is(errors.Join(panicking{"x"}, io.EOF), io.EOF), "what panics is passed")
	_, ok := redact.As[*net.OpError](&twice{})
	require.False(t, ok)
	// The bound: what lies beyond it is not found.
	require.True(t, redact.Is(chain(999), io.EOF))
	require.False(t, redact.Is(chain(1000), io.EOF))
	many := make([]error, 2000)
	many[998], many[999] = io.EOF, syscall.EPIPE
	require.True(t, redact.Is(&several{many}, io.EOF))
	require.False(t, redact.Is(&several{many}, syscall.EPIPE))
}

func requireSameAs[E error](t *testing.T, err error) {
	t.Helper()
	var want E
	ok := errors.As(err, &want)
	got, found := redact.As[E](err)
	require.Equal(t, ok, found, "%v", err)
	require.Equal(t, want, got)
}

// A twice joins itself, twice.
type twice struct{}

func (*twice) Error() string     { return "s3cr3t" }
func (e *twice) Unwrap() []error { return []error{e, e} }

type several struct{ errs []error }

func (*several) Error() string     { return "s3cr3t" }
func (e *several) Unwrap() []error { return e.errs }

// A redacted error is a timeout if it was one, and so is a part of it that is rebuilt.
func TestTimeout(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		&net.DNSError{Err: "s3cr3t", IsTimeout: true}: true,
		&net.DNSError{Err: "s3cr3t"}:                  false,
		&quiet{context.DeadlineExceeded}:              true,
		&quiet{os.ErrDeadlineExceeded}:                true,
		&quiet{io.EOF}:                                false,
		io.EOF:                                        false,
		os.ErrDeadlineExceeded:                        true,
		&url.Error{Op: "Get", URL: "http://s3cr3t", Err: os.ErrDeadlineExceeded}: true,
	} {
		var timeout net.Error = &url.Error{Err: redact.Error(err, "", "")}
		require.Equal(t, want, timeout.Timeout(), "%v", err)
	}
	for _, name := range []string{"tcp", "tcp4", "udp", "s3cr3t"} {
		op, ok := redact.As[*net.OpError](redact.Error(&net.OpError{Op: "dial", Net: name, Err: io.EOF}, "", ""))
		require.True(t, ok)
		require.Equal(t, map[bool]string{true: name}[name != "s3cr3t"], op.Net)
		require.False(t, op.Timeout())
	}
	for _, err := range []error{os.ErrDeadlineExceeded, context.DeadlineExceeded, syscall.ETIMEDOUT} {
		op, ok := redact.As[*net.OpError](redact.Error(&net.OpError{Op: "read", Err: err}, "", ""))
		require.True(t, ok)
		require.True(t, op.Timeout(), "%v", err)
	}
}

// A quiet error does not say what it is.
type quiet struct{ inner error }

func (*quiet) Error() string          { return "s3cr3t" }
func (q *quiet) Is(target error) bool { return q.inner == target }

// A loop wraps itself.
type loop struct{}

func (loop) Error() string   { return "s3cr3t" }
func (l loop) Unwrap() error { return l }
