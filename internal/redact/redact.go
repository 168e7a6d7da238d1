// Package redact says what may be shown of an error that came about while a
// secret was in use: the URL of a ping, or a header.
//
// It is an allowlist. An error of a known type is rebuilt from those of its
// fields that cannot hold a secret; of any other error's text only a phrase that
// is written down in this file is shown; what is left is called withheld. A list
// of secrets to look for was rejected: a server can re-encode, shorten or split
// one, and a list of all the ways to do so has no end.
package redact

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Error returns an error that says of err what may be shown, or nil where err is
// nil. host and address are what may be named: the host that was asked for, and
// "IP:port" where its URL gave the address itself; empty: none.
//
// [errors.Is] finds in it whatever [Is] finds in err. [errors.As] and Unwrap find
// only what was rebuilt. No error is handed out that err held, but constants of
// the standard library. It may be used from several goroutines if err may.
func Error(err error, host, address string) error {
	if err == nil {
		return nil
	}
	r := rebuilder{host: host, address: address}
	return &redacted{r.rebuild(err, 0), func(target error) bool { return Is(err, target) }}
}

// Text is the text that Error would give err without a host, where an error that
// is harmless is shown as it is. It is "" where err is nil.
func Text(err error, harmless func(error) bool) string {
	if err == nil {
		return ""
	}
	return rebuilder{harmless: harmless}.rebuild(err, 0).Error()
}

// Withheld is what is shown of an error of which nothing may be shown.
const Withheld = "unknown error (its text is withheld, since it may repeat the ping URL)"

// ProxyStatus is the error of a proxy that would not connect. The text beside
// the status may be anything, and is not kept.
type ProxyStatus int

func (p ProxyStatus) Error() string {
	if p < 100 || p > 999 {
		return "proxy answered with an unknown status"
	}
	return strings.TrimRight(fmt.Sprintf("proxy answered %d %s", int(p), http.StatusText(int(p))), " ")
}

// A redacted error is what Error returns. The original is within a function, of
// which fmt prints an address only.
type redacted struct {
	safe error
	is   func(target error) bool
}

func (r *redacted) Error() string        { return r.safe.Error() }
func (r *redacted) Unwrap() error        { return r.safe }
func (r *redacted) Is(target error) bool { return r.is(target) }

// Timeout makes a redacted error a [net.Error], as the errors of net/http are.
func (r *redacted) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(r.safe, &t) && t.Timeout() || r.is(context.DeadlineExceeded) || r.is(os.ErrDeadlineExceeded)
}

// Temporary is part of [net.Error]; no one should ask.
func (r *redacted) Temporary() bool { return r.Timeout() }

// A words error has a fixed text, before what it wraps, if anything.
type words struct {
	text  string
	inner error
}

func (w *words) Error() string {
	if w.inner == nil {
		return w.text
	}
	return w.text + ": " + w.inner.Error()
}
func (w *words) Unwrap() error { return w.inner }

type rebuilder struct {
	host, address string
	harmless      func(error) bool // nil: none is
}

// maxDepth ends an error that wraps itself.
const maxDepth = 30

// rebuild returns what may be shown of err. Its methods and fields are foreign,
// and may panic.
func (r rebuilder) rebuild(err error, depth int) (safe error) {
	defer func() {
		if recover() != nil || safe == nil {
			safe = &words{text: Withheld}
		}
	}()
	if depth > maxDepth {
		return nil
	}
	if r.harmless != nil && r.harmless(err) {
		return err
	}
	for _, constant := range constants {
		if same(err, constant) {
			return constant
		}
	}
	inner := func(err error) error { return r.rebuild(err, depth+1) } // also where there is none, to be withheld
	if safe := r.network(err, inner); safe != nil {
		return safe
	}
	if safe := r.certificate(err, inner); safe != nil {
		return safe
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return r.joined(joined.Unwrap(), depth)
	}
	if wrapper, ok := err.(interface{ Unwrap() error }); ok && wrapper.Unwrap() != nil {
		return wrapped(err, inner(wrapper.Unwrap()))
	}
	return r.leaf(err)
}

// joined returns what may be shown of several errors.
func (r rebuilder) joined(errs []error, depth int) error {
	var parts []error
	for _, part := range errs[:min(len(errs), maxDepth)] {
		if part != nil {
			parts = append(parts, r.rebuild(part, maxDepth/2+depth))
		}
	}
	return errors.Join(parts...)
}

// wrapped returns what may be shown of an error of an unknown type around a cause.
func wrapped(err, cause error) error {
	phrase := longest(phrases, err.Error(), strings.HasPrefix)
	if phrase == "" || strings.HasPrefix(cause.Error(), phrase) { // such as crypto/tls's permanentError
		return cause
	}
	if w, ok := cause.(*words); ok && w.text == Withheld || strings.Contains(phrase, "closed the connection") { // which "EOF" only repeats
		cause = nil
	}
	return &words{phrase, cause}
}

// constants are shown as they are: their text is fixed.
var constants = []error{
	context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, io.ErrShortWrite, io.ErrShortBuffer, io.ErrNoProgress,
	net.ErrClosed, os.ErrDeadlineExceeded, os.ErrPermission, os.ErrNotExist, os.ErrInvalid, os.ErrClosed,
	http.ErrSchemeMismatch, http.ErrAbortHandler, http.ErrServerClosed, http.ErrBodyReadAfterClose, http.ErrLineTooLong, http.ErrHandlerTimeout, http.ErrNotSupported, http.ErrMissingFile,
}

// network rebuilds the errors of packages net, os and syscall; nil: err is none.
func (r rebuilder) network(err error, inner func(error) error) error {
	switch e := err.(type) {
	case *redacted:
		return e.safe
	case ProxyStatus:
		return e
	case syscall.Errno:
		if e < 1<<14 { // more could spell a secret
			return e
		}
	case *os.SyscallError:
		return &os.SyscallError{Syscall: oneOf(e.Syscall, "system call", "connect", "read", "write", "socket", "setsockopt", "getsockopt", "bind", "wsarecv", "wsasend", "connectex"), Err: inner(e.Err)}
	case *net.OpError:
		op := &net.OpError{
			Op:  oneOf(e.Op, "network", "dial", "read", "readfrom", "write", "close", "set", "proxyconnect", "remote error", "local error", "socks connect"),
			Net: oneOf(e.Net, "", "tcp", "tcp4", "tcp6", "udp", "unix"), Err: inner(e.Err),
		}
		if tcp, ok := e.Addr.(*net.TCPAddr); ok && tcp != nil && r.address != "" && tcp.String() == r.address {
			op.Addr = &net.TCPAddr{IP: append(net.IP(nil), tcp.IP...), Port: tcp.Port, Zone: tcp.Zone}
		}
		return op
	case *net.DNSError:
		dns := &net.DNSError{Name: "another host", IsTimeout: e.IsTimeout, IsTemporary: e.IsTemporary, IsNotFound: e.IsNotFound,
			Err: oneOf(e.Err, lookupFailure(e.Err), "no such host", "server misbehaving", "i/o timeout", "no answer from DNS server", "lame referral", "cannot unmarshal DNS message",
				"Temporary failure in name resolution", "operation was canceled", "dnsquery: DNS name does not exist.")}
		if r.isHost(e.Name) {
			dns.Name = r.host
		}
		return dns
	case *net.AddrError:
		return &net.AddrError{Err: oneOf(e.Err, "bad address", "missing address", "no suitable address found", "missing port in address", "too many colons in address")}
	case *url.Error:
		return inner(e.Err)
	}
	return nil
}

// certificate rebuilds the errors of packages tls and x509; nil: err is none.
func (r rebuilder) certificate(err error, inner func(error) error) error {
	switch e := err.(type) {
	case *tls.CertificateVerificationError:
		return &tls.CertificateVerificationError{Err: inner(e.Err)}
	case tls.RecordHeaderError:
		return tls.RecordHeaderError{Msg: oneOf(e.Msg, "malformed record", "first record does not look like a TLS handshake", "unsupported SSLv2 handshake received")}
	case tls.AlertError:
		return e
	case x509.CertificateInvalidError:
		if e.Reason < 0 || e.Reason > x509.CANotAuthorizedForExtKeyUsage+10 {
			return &words{text: "x509: invalid certificate"}
		}
		detail := "no more is shown"
		if e.Reason == x509.Expired && e.Cert != nil {
			detail = "valid from " + e.Cert.NotBefore.UTC().Format(time.RFC3339) + " to " + e.Cert.NotAfter.UTC().Format(time.RFC3339)
		}
		return x509.CertificateInvalidError{Reason: e.Reason, Detail: detail}
	case x509.HostnameError:
		// Its own text lists the names in the certificate.
		host, cert := r.host, &x509.Certificate{DNSNames: []string{"other names"}}
		if !r.isHost(strings.Trim(e.Host, "[]")) {
			host = "another host"
		}
		if e.Certificate != nil && len(e.Certificate.DNSNames)+len(e.Certificate.IPAddresses) == 0 {
			cert = &x509.Certificate{} // its text is "not valid for any names"
			if strings.HasPrefix(e.Error(), "x509: certificate relies on legacy Common Name field") {
				cert.Subject.CommonName = host // and so is the new one's
			}
		}
		return &words{"x509: certificate is not valid for the host", x509.HostnameError{Certificate: cert, Host: host}}
	case x509.UnknownAuthorityError:
		return x509.UnknownAuthorityError{}
	case x509.UnhandledCriticalExtension:
		return e
	case x509.ConstraintViolationError:
		return e
	case x509.SystemRootsError:
		return x509.SystemRootsError{Err: inner(e.Err)}
	}
	return nil
}

// isHost reports whether name is the host that was asked for. The lengths are
// compared, since a letter outside ASCII, such as the Kelvin sign, may equal one in
// ASCII but for its case.
func (r rebuilder) isHost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	return r.host != "" && len(name) == len(r.host) && strings.EqualFold(name, r.host)
}

// leaf returns what may be shown of an error of an unknown type that wraps
// nothing.
func (r rebuilder) leaf(err error) error {
	text := err.Error()
	for alert := range 256 { // before "tls: ", which all of them begin with
		if a := tls.AlertError(alert); a.Error() == text {
			return a
		}
	}
	if phrase := longest(phrases, text, strings.HasPrefix); phrase != "" {
		return &words{text: phrase}
	}
	if ending := longest(endings, text, strings.HasSuffix); ending != "" {
		return &words{text: ending}
	}
	for code := range 600 { // net/http's error for CONNECT is the status text
		if http.StatusText(code) == text && text != "" {
			return ProxyStatus(code)
		}
	}
	if Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	if t, ok := err.(interface{ Timeout() bool }); ok && t.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// lookupFailure says why there was no answer from a DNS server. Package net has
// the text of a network error there, with the server's address.
func lookupFailure(text string) string {
	if ending := longest(endings, text, strings.HasSuffix); ending != "" {
		return "no DNS server answers: " + ending
	}
	return "lookup failed"
}

// oneOf returns text if it is among known, else otherwise.
func oneOf(text, otherwise string, known ...string) string {
	if slices.Contains(known, text) {
		return text
	}
	return otherwise
}

// longest returns the longest of the phrases that text has, in the way of has, or "".
func longest(phrases []string, text string, has func(text, phrase string) bool) (found string) {
	for _, phrase := range phrases {
		if len(phrase) > len(found) && has(text, phrase) {
			found = phrase
		}
	}
	return found
}

// endings are what dialers say last: those of package net after the addresses, and
// others, such as of SOCKS or a tailnet, in plain words. The last eight are the
// replies 1 to 8 of a SOCKS server.
var endings = []string{
	"connection reset by peer", "no route to host", "network is unreachable", "host is unreachable", "host is down", "broken pipe",
	"i/o timeout", "connection timed out", "operation timed out", "context deadline exceeded", "context canceled", "operation was canceled",
	"no such host", "too many open files", "operation not permitted", "permission denied", "unexpected EOF", "use of closed network connection",
	"general SOCKS server failure", "connection not allowed by ruleset", "network unreachable", "host unreachable",
	"connection refused", "TTL expired", "command not supported", "address type not supported",
}

// phrases are the beginnings of texts of net/http, of what it is built on, and of
// a Pinger's own, that say what went wrong without a word of what a server sent.
var phrases = []string{
	"the server closed the connection without an answer", "the server closed the connection in the TLS handshake", "the proxy closed the connection without an answer",
	"the proxy closed the connection in the TLS handshake",
	"connection lost before the answer", "refused a redirect from https to http", "stopped after 10 redirects", "redirect refused by the client's CheckRedirect",
	"failed to parse Location header", "unsupported protocol scheme", "http: no Host in request URL",

	"net/http: HTTP/1.x transport connection broken", "http: server gave HTTP response to HTTPS client",
	"malformed HTTP response", "malformed HTTP status code", "malformed HTTP version", "malformed MIME header line", "malformed MIME header",
	"net/http: server response headers exceeded 65536 bytes; aborted", "net/http: server response headers exceeded",
	"net/http: HTTP/1.x too many 1xx informational responses", "net/http: too many 1xx informational responses", "http2: too many 1xx informational responses",
	"bad Content-Length", "invalid empty Content-Length", "http: message cannot contain multiple Content-Length headers",
	"unsupported transfer encoding", "too many transfer encodings", "invalid Trailer key", "bad trailer key",
	"http: unexpected EOF reading trailer", "http: suspiciously long trailer after chunked body",
	"malformed chunked encoding", "chunked encoding contains too much non-data", "chunked line ends with bare LF", "invalid CR in chunked line",
	"empty hex number for chunk length", "invalid byte in chunk length", "http chunk length too large", "header line too long", "message too large",

	"net/http: TLS handshake timeout", "net/http: timeout awaiting response headers", "http2: timeout awaiting response headers",
	"net/http: request canceled while waiting for connection", "net/http: request canceled", "http: server closed idle connection", "http: idle connection timeout",
	"net/http: cannot rewind body after connection loss", "net/http: invalid method", "net/http: invalid header",
	"http: RoundTripper implementation", "net/http: Transport.DialContext hook returned (nil, nil)", "net/http: skip alternate protocol",
	"http2: Transport: cannot retry err", "http2: Transport received Server's graceful shutdown GOAWAY", "http2: server sent GOAWAY and closed the connection",
	"http2: client connection lost", "http2: client connection force closed", "http2: response header list larger than advertised limit", "http2: ", "stream error", "connection error",

	"tls: failed to verify certificate", "tls: first record does not look like a TLS handshake", "tls: handshake failure",
	"tls: failed to parse certificate from server", "tls: server selected unsupported protocol version", "tls: server chose an unconfigured cipher suite", "tls: ", "remote error", "local error",
	"x509: certificate signed by unknown authority", "x509: certificate has expired or is not yet valid", "x509: ",
	"username/password authentication failed", "no acceptable authentication methods", "unexpected protocol version",
	"gzip: invalid header", "gzip: invalid checksum", "i/o timeout", "use of closed network connection", "context deadline exceeded", "context canceled",
	"unexpected EOF", "heartbeat: not sent", "heartbeat: pinger panicked", "heartbeat: pinger ended its goroutine",
}
