package oneshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

const maxRedirects = 10 // how many are followed

// redirects keep what is secret from every host but the first.
type redirects struct {
	home   *url.URL
	abroad http.Header
	custom func(*http.Request, []*http.Request) error // nil: none
}

// check is an [http.Client]'s CheckRedirect.
func (r redirects) check(req *http.Request, via []*http.Request) error {
	a := attemptOf(req.Context())
	a.connected.Store(true) // also with a transport that traces nothing
	if len(via) > maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("refused a redirect from https to http")
	}
	req.Header.Del("Referer") // net/http puts the URL it came from there
	if Authority(req.URL) != Authority(r.home) {
		r.goAbroad(req)
	} else {
		r.comeHome(req, a.header)
	}
	if r.custom != nil {
		if err := r.custom(req, via); redact.Is(err, http.ErrUseLastResponse) {
			return err
		} else if err != nil {
			return fmt.Errorf("redirect refused by the client's CheckRedirect: %w", err)
		}
	}
	a.request = req
	return nil
}

// goAbroad gives req the header for another host. What it had was all of the first
// host's: a client's cookies are added later.
func (r redirects) goAbroad(req *http.Request) {
	req.Host = ""
	req.Header = r.abroad.Clone()
	if req.Body == nil {
		req.Header.Del("Content-Type")
	}
}

// comeHome gives req what the first request had: net/http leaves Authorization and
// Cookie out where the host is spelt otherwise, and after another host. A Location
// seldom has a user, if it is absolute.
func (r redirects) comeHome(req *http.Request, first http.Header) {
	for name, values := range first {
		if _, kept := req.Header[name]; !kept && !strings.HasPrefix(name, "Content-") { // the body may be gone
			req.Header[name] = values
		}
	}
	if req.URL.User == nil {
		req.URL.User = r.home.User
	}
}

// Authority returns the host of u and, where its scheme does not imply it, the port:
// in a form that is equal for two URLs of one host. So case and a final dot do not
// count. Hosts are equal as ASCII, in which DNS and TLS know them: one outside ASCII
// equals its punycode form, and none that is ASCII but for its case.
func Authority(u *url.URL) string {
	host, port := hostname(u), u.Port()
	if port == "" || port == defaultPort(u) {
		return host
	}
	return net.JoinHostPort(host, port)
}

func port(u *url.URL) string { return cmp.Or(u.Port(), defaultPort(u)) }

func defaultPort(u *url.URL) string {
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// hostname returns the host of u as Authority compares it.
func hostname(u *url.URL) string {
	host := strings.TrimSuffix(u.Hostname(), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String()
	}
	if isASCII(host) {
		return strings.ToLower(host)
	}
	return punycode(host)
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// punycode returns the name that net/http asks DNS for in place of a host outside
// ASCII. Package net/http has the tables for that and no function, so it is asked to
// dial the host. A label that it makes plain ASCII, without punycode, is equal to
// another by Unicode's folding only: such a host is returned as it is.
func punycode(host string) string {
	mapped := host
	transport := http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		mapped, _, _ = net.SplitHostPort(address)
		return nil, net.ErrClosed
	}}
	_, _ = transport.RoundTrip(&http.Request{URL: &url.URL{Scheme: "http", Host: host}, Header: http.Header{}}) //nolint:bodyclose // there is no answer
	if !slices.EqualFunc(strings.Split(host, "."), strings.Split(mapped, "."), func(label, mapped string) bool {
		return isASCII(label) || strings.HasPrefix(mapped, "xn--")
	}) {
		return host
	}
	return mapped
}
