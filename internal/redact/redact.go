// Package redact says what may be shown of an error that came about while a
// secret was in use: the URL of a ping, or a header.
//
// It is an allowlist. An error of a known type is rebuilt from those of its fields that cannot
// hold a secret. For any other error, only a phrase of its text is shown, and only if that phrase
// is in a list in this file. If there is none, [Withheld] is shown. A list of secrets to look for
// was rejected: a server can re-encode, shorten or split a secret, and a list of all the ways to
// do so has no end.
package redact

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Error returns an error that shows only what may be shown of err, or nil if err is nil. It may
// name host and address: host is the host of the request, and address is "IP:port" if the URL has
// an IP address as its host. If one of them is empty, nothing of that kind is named.
//
// [errors.Is] finds in it whatever [Is] finds in err. [errors.As] and Unwrap find only what was
// rebuilt. It hands out no error that err held, except well-known errors of the standard library,
// such as io.EOF, and values that cannot hold a secret. It may be used from several goroutines if
// err may.
func Error(err error, host, address string) error {
	if err == nil {
		return nil
	}
	r := rebuilder{host: host, address: address}
	return &redacted{r.rebuild(err, 0), func(target error) bool { return Is(err, target) }, TimedOut(err)}
}

// Text returns the text that Error would show for err without a host. One thing differs: errors
// for which harmless returns true are shown unchanged. If err is nil, Text returns "".
func Text(err error, harmless func(error) bool) string {
	if err == nil {
		return ""
	}
	return rebuilder{harmless: harmless}.rebuild(err, 0).Error()
}

// Withheld is the text that is shown for an error of which nothing may be shown.
const Withheld = "unknown error (its text is withheld, since it may repeat the ping URL)"

// ProxyStatus is the error of a proxy that would not connect. The text after the status code may
// be anything, and is not kept.
type ProxyStatus int

func (p ProxyStatus) Error() string {
	return strings.TrimRight(fmt.Sprintf("proxy answered %d %s", int(p), http.StatusText(int(p))), " ")
}

// A redacted error is what Error returns. The original is within a function, of which fmt prints
// only an address. An unexported field for it was rejected: fmt prints unexported fields too, and
// reflection reads them.
//
// The original is kept for Is alone. To store only whether it matches some common errors was
// rejected: a caller may look for errors of its own transport with errors.Is. An As over the
// original was rejected, since it would hand the original out.
type redacted struct {
	safe    error
	is      func(target error) bool
	timeout bool
}

func (r *redacted) Error() string        { return r.safe.Error() }
func (r *redacted) Unwrap() error        { return r.safe }
func (r *redacted) Is(target error) bool { return r.is(target) }

// Timeout reports whether the original timed out. A *url.Error that wraps the error calls this
// method, and so does a caller that has found a [net.Error].
func (r *redacted) Timeout() bool { return r.timeout }

// A rebuilder makes a new error from what may be shown of an error.
type rebuilder struct {
	host, address string
	harmless      func(error) bool // nil: no error is harmless
}

// maxDepth ends an error that wraps itself. No honest error wraps so many.
const maxDepth = 30

// rebuild returns what may be shown of err. The methods and fields of err are foreign, and may
// panic.
//
// A type of this package or of the standard library comes first, then what the error wraps, and
// its own text last. So a text is searched only if nothing else is known.
//
// A level of joined errors counts for half of maxDepth, and must begin in the first half. So two
// levels are shown at most, with 30 times 30 parts. A deeper level is shown as Withheld. Without
// that, an error that joins itself twice would have 2 to the power of maxDepth parts.
//
// rebuild does not use find, because what is shown of an error depends on what is shown of the
// error that it wraps.
func (r rebuilder) rebuild(err error, depth int) (safe error) {
	defer func() {
		if recover() != nil || safe == nil {
			safe = errors.New(Withheld)
		}
	}()
	if depth > maxDepth {
		return nil
	}
	if r.harmless != nil && r.harmless(err) {
		return err
	}
	inner := func(err error) error { return r.rebuild(err, depth+1) } // if err is nil, this returns the error Withheld
	if safe := r.known(err, inner); safe != nil {
		return safe
	}
	switch w := err.(type) {
	case interface{ Unwrap() []error }:
		if depth > maxDepth/2 {
			return nil
		}
		var parts []error
		for _, part := range w.Unwrap() {
			if part != nil && len(parts) < maxDepth {
				parts = append(parts, r.rebuild(part, maxDepth/2+depth))
			}
		}
		return errors.Join(parts...)
	case interface{ Unwrap() error }:
		if cause := w.Unwrap(); cause != nil {
			return wrapped(err, inner(cause))
		}
	}
	return leaf(err)
}

// wrapped returns what may be shown of an error of an unknown type that wraps a cause: the phrase
// that its text begins with, and then the cause, unless one of them is enough. If no phrase is
// known, the cause alone is enough for an operator.
func wrapped(err, cause error) error {
	phrase := longest(phrases, err.Error(), strings.HasPrefix)
	switch {
	case strings.HasPrefix(cause.Error(), phrase): // no phrase, or that of crypto/tls's permanentError
		return cause
	case cause.Error() == Withheld || strings.Contains(phrase, "closed the connection"): // a closed connection has the cause "EOF", which adds nothing
		return errors.New(phrase)
	}
	return fmt.Errorf("%s: %w", phrase, cause)
}

// known rebuilds an error of a type that callers look for with [errors.As], or whose fields say
// more than a phrase. It returns nil if err has no such type. To rebuild each type of the standard
// library was rejected: if the text of a type is a phrase, or ends with one, the phrase is enough.
// A text in a field is kept only if it is in names or endings.
func (r rebuilder) known(err error, inner func(error) error) error {
	switch e := err.(type) {
	case ProxyStatus, tls.AlertError, x509.UnhandledCriticalExtension, x509.ConstraintViolationError:
		return err
	case syscall.Errno: // errors.Is finds os.ErrPermission and the like in it
		// A number can spell a secret too. The numbers of network errors are below 1<<14: Linux has about
		// 130 error numbers, and those of Windows sockets end before 12,000.
		if e < 1<<14 {
			return e
		}
	case *os.SyscallError:
		return &os.SyscallError{Syscall: name(e.Syscall, "system call"), Err: inner(e.Err)}
	case *net.OpError:
		op := &net.OpError{Op: name(e.Op, "network"), Net: name(e.Net, ""), Err: inner(e.Err)}
		// The address that a name was resolved to is withheld: it says no more than the name, and a
		// foreign resolver or dialer could spell a secret in it.
		if tcp, ok := e.Addr.(*net.TCPAddr); ok && tcp.String() == r.address {
			op.Addr = &net.TCPAddr{IP: slices.Clone(tcp.IP), Port: tcp.Port, Zone: tcp.Zone}
		}
		return op
	case *net.DNSError:
		return &net.DNSError{Name: r.nameOf(e.Name), Err: lookupFailure(e.Err), IsTimeout: e.IsTimeout, IsTemporary: e.IsTemporary, IsNotFound: e.IsNotFound}
	case *net.AddrError:
		return &net.AddrError{Err: name(e.Err, "bad address")}
	case tls.RecordHeaderError:
		return tls.RecordHeaderError{Msg: name(e.Msg, "malformed record")}
	case *tls.CertificateVerificationError:
		return &tls.CertificateVerificationError{Err: inner(e.Err)}
	case x509.UnknownAuthorityError:
		return x509.UnknownAuthorityError{} // without the hint, which names a certificate
	case x509.CertificateInvalidError:
		return invalid(e)
	case x509.HostnameError:
		return r.otherHost(e)
	}
	return nil
}

// invalid says why a certificate is invalid and, if it has expired or is not yet valid, when it is
// valid.
func invalid(e x509.CertificateInvalidError) error {
	detail := "no more is shown"
	switch {
	case e.Reason < 0 || e.Reason > x509.CANotAuthorizedForExtKeyUsage+10: // a larger number could spell a secret
		return errors.New("x509: invalid certificate")
	case e.Reason == x509.Expired && e.Cert != nil:
		detail = "valid from " + e.Cert.NotBefore.UTC().Format(time.RFC3339) + " to " + e.Cert.NotAfter.UTC().Format(time.RFC3339)
	}
	return x509.CertificateInvalidError{Reason: e.Reason, Detail: detail}
}

// otherHost says that a certificate is another host's. The error's own text lists the names in the
// certificate, which are the server's words. So the error gets a made-up certificate, for which
// x509 gives the same message without those names.
func (r rebuilder) otherHost(e x509.HostnameError) error {
	host, cert := r.nameOf(strings.Trim(e.Host, "[]")), &x509.Certificate{DNSNames: []string{"other names"}}
	if e.Certificate != nil && len(e.Certificate.DNSNames)+len(e.Certificate.IPAddresses) == 0 {
		cert.DNSNames = nil // "not valid for any names"
		if strings.HasPrefix(e.Error(), "x509: certificate relies on legacy Common Name field") {
			cert.Subject.CommonName = host // then x509 says the same of the new certificate
		}
	}
	return fmt.Errorf("x509: certificate is not valid for the host: %w", x509.HostnameError{Certificate: cert, Host: host})
}

// nameOf returns r.host if name is that host, and "another host" otherwise. The lengths are
// compared, since EqualFold takes some letters outside ASCII, such as the Kelvin sign, for a
// letter in ASCII.
func (r rebuilder) nameOf(name string) string {
	name = strings.TrimSuffix(name, ".")
	if len(name) == len(r.host) && strings.EqualFold(name, r.host) {
		return r.host
	}
	return "another host"
}

// leaf returns what may be shown of an error of an unknown type that wraps nothing. Most errors of
// net/http are such: errors.New around a text. Their text says more than "it is a timeout", so the
// text is tried first.
//
// A beginning counts more than an ending. The beginning was written by the package that made the
// error. The ending may be a server's words. That does no harm: only the listed phrase is shown,
// and a server can cause such an error anyway, for example by closing the connection.
func leaf(err error) error {
	switch err { //nolint:errorlint // it wraps nothing
	case io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded:
		return err // the error itself, not only its text, for Unwrap and Timeout of the errors that wrap it
	}
	text := err.Error()
	// The type of crypto/tls's alerts is not exported, so their texts are compared. This comes before
	// the phrases: "tls: ", with which all these texts begin, is a phrase.
	for alert := range 256 {
		if a := tls.AlertError(alert); a.Error() == text {
			return a
		}
	}
	if words := cmp.Or(longest(phrases, text, strings.HasPrefix), longest(endings, text, strings.HasSuffix)); words != "" {
		return errors.New(words)
	}
	for code := range 600 { // net/http's error for CONNECT is the status text
		if http.StatusText(code) == text && text != "" {
			return ProxyStatus(code)
		}
	}
	if TimedOut(err) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// lookupFailure says why a lookup failed. If no DNS server answered, text is the text of a network
// error, with the address of the server.
func lookupFailure(text string) string {
	switch ending := longest(endings, text, strings.HasSuffix); ending {
	case "":
		return "lookup failed"
	case text:
		return text
	default:
		return "no DNS server answers: " + ending
	}
}

// name returns text if it is in names, and fallback if it is not. It is for fields that the
// standard library fills from a fixed set of words. A caller's dialer may put anything there.
func name(text, fallback string) string {
	if slices.Contains(names, text) {
		return text
	}
	return fallback
}

// longest returns the longest of phrases for which has(text, phrase) is true, or "".
func longest(phrases []string, text string, has func(text, phrase string) bool) (found string) {
	for _, phrase := range phrases {
		if len(phrase) > len(found) && has(text, phrase) {
			found = phrase
		}
	}
	return found
}

// names are names of operations, networks and system calls, and texts about what is wrong with an
// address or a record. They are not kept apart: any of them is accepted in any of these fields.
var names = []string{
	"dial", "read", "readfrom", "write", "close", "set", "proxyconnect", "remote error", "local error", "socks connect",
	"tcp", "tcp4", "tcp6", "udp", "unix",
	"connect", "socket", "setsockopt", "getsockopt", "bind", "wsarecv", "wsasend", "connectex",
	"missing address", "no suitable address found", "missing port in address", "too many colons in address",
	"first record does not look like a TLS handshake", "unsupported SSLv2 handshake received",
}

// endings are what comes last: the texts of errors that others wrap, what package net says after
// the addresses, and what other dialers say in plain words, such as those for SOCKS or a tailnet.
// Any text may come before them.
//
// Phrases are looked for at the beginning of a text. Endings are not, because a dialer says first
// what it was doing, and then the cause.
var endings = []string{
	"EOF", "unexpected EOF", "context canceled", "context deadline exceeded", "short write", "short buffer", "multiple Read calls return no data or error",
	"io: read/write on closed pipe", "use of closed network connection", "file does not exist", "file already closed", "invalid argument",
	"connection reset by peer", "no route to host", "network is unreachable", "host is unreachable", "host is down", "broken pipe",
	"i/o timeout", "connection timed out", "operation timed out", "operation was canceled",
	"too many open files", "operation not permitted", "permission denied",

	// Of lookups.
	"no such host", "server misbehaving", "no answer from DNS server", "lame referral", "cannot unmarshal DNS message",
	"Temporary failure in name resolution", "dnsquery: DNS name does not exist.",

	// The replies 1 to 8 of a SOCKS server.
	"general SOCKS server failure", "connection not allowed by ruleset", "network unreachable", "host unreachable",
	"connection refused", "TTL expired", "command not supported", "address type not supported",
}

// phrases are the beginnings of texts of net/http, of the packages that it is built on, and of a
// Pinger. They say what went wrong and repeat no word that a server sent. The longest that matches
// is shown. A short phrase, such as "tls: ", says at least where an error is from.
//
// What net/http says of a body is not among them: a ping has arrived by then.
var phrases = []string{
	"the server closed the connection without an answer", "the server closed the connection in the TLS handshake",
	"the proxy closed the connection without an answer", "the proxy closed the connection in the TLS handshake",
	"connection lost before the answer", "refused a redirect from https to http", "stopped after 10 redirects",
	"redirect refused by the client's CheckRedirect", "failed to parse Location header", "unsupported protocol scheme", "http: no Host in request URL",
	"heartbeat: not sent", "heartbeat: pinger panicked", "heartbeat: pinger ended its goroutine",

	// Of an answer's header.
	"net/http: HTTP/1.x transport connection broken", "http: server gave HTTP response to HTTPS client",
	"malformed HTTP response", "malformed HTTP status code", "malformed HTTP version", "malformed MIME header",
	"net/http: server response headers exceeded 65536 bytes; aborted", "net/http: server response headers exceeded",
	"net/http: HTTP/1.x too many 1xx informational responses", "net/http: too many 1xx informational responses", "http2: too many 1xx informational responses",
	"bad Content-Length", "invalid empty Content-Length", "http: message cannot contain multiple Content-Length headers",
	"unsupported transfer encoding", "too many transfer encodings", "invalid Trailer key", "bad trailer key", "header line too long", "message too large",

	// Of a caller's client.
	"net/http: TLS handshake timeout", "net/http: timeout awaiting response headers", "http2: timeout awaiting response headers",
	"net/http: request canceled while waiting for connection", "net/http: request canceled", "http: server closed idle connection",
	"http: RoundTripper implementation", "net/http: Transport.DialContext hook returned (nil, nil)",
	"http2: Transport: cannot retry err", "http2: Transport received Server's graceful shutdown GOAWAY", "http2: server sent GOAWAY and closed the connection",
	"http2: client connection lost", "http2: client connection force closed", "http2: response header list larger than advertised limit", "http2: ", "stream error", "connection error",

	// Of TLS and SOCKS.
	"tls: failed to verify certificate", "tls: first record does not look like a TLS handshake", "tls: unsupported SSLv2 handshake received",
	"tls: received record with version", "tls: oversized record received",
	"tls: failed to parse certificate from server", "tls: server selected unsupported protocol version", "tls: server chose an unconfigured cipher suite", "tls: ", "remote error", "local error",
	"x509: certificate signed by unknown authority", "x509: certificate has expired or is not yet valid", "x509: unhandled critical extension",
	"x509: invalid signature: parent certificate cannot sign this kind of certificate", "x509: failed to load system roots and no roots provided", "x509: ",
	"username/password authentication failed", "no acceptable authentication methods", "unexpected protocol version",
}
