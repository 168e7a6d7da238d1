package oneshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// checkRedirect is an [http.Client]'s CheckRedirect. It keeps the first header, and the first URL's
// user and password, from every host except the first.
//
// It replaces the header of req. net/http's header was rejected, for the first host too. net/http
// leaves out Authorization and Cookie if the host is spelt differently, or if an earlier redirect
// led to another host. It also adds a Referer that contains the URL of the previous request. Only
// the Cookie field of net/http's header is kept. net/http has removed from it the cookies for
// which the client's jar has newer values. net/http adds the jar's cookies later, and only those
// of the new host.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	a := attemptOf(req.Context())
	a.connected.Store(true) // also with a transport that traces nothing
	if len(via) > maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	// This is refused on the same host too: anybody who listens on the network could read the URL,
	// which is a credential.
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("refused a redirect from https to http")
	}
	header := a.header.Clone()
	if cookie, ok := req.Header["Cookie"]; ok {
		header["Cookie"] = cookie
	}
	req.Header = header
	if Authority(req.URL) != Authority(c.home) {
		req.Host, req.Header = "", c.abroad.Clone()
	} else if req.URL.User == nil { // as in a Location that is absolute
		req.URL.User = c.home.User
	}
	if req.Body == nil && via[0].Body != nil { // a POST has become a GET
		maps.DeleteFunc(req.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Content-") })
	}
	// The caller's CheckRedirect is called last, so that it sees what will be sent.
	if c.theirs != nil {
		if err := c.theirs(req, via); redact.Is(err, http.ErrUseLastResponse) {
			return err
		} else if err != nil {
			return fmt.Errorf("redirect refused by the client's CheckRedirect: %w", err)
		}
	}
	a.request = req // not set earlier, because a refused redirect is never requested
	return nil
}

// Authority returns the host of u, with the port unless the scheme implies it. Two URLs of the
// same host and port have the same Authority, whatever the case of their letters, and with or
// without a dot at the end of the host. Hosts are compared in their ASCII form, which DNS and TLS
// use. A host outside ASCII equals its punycode form. It never equals an ASCII host by case
// folding.
//
// The scheme makes no difference: a check is one check by http and by https. So a port that the
// scheme implies is left out, and not filled in.
func Authority(u *url.URL) string {
	host, port := hostname(u), u.Port()
	if port == "" || port == defaultPorts[u.Scheme] {
		return host
	}
	return net.JoinHostPort(host, port)
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// hostname returns the host of u as Authority compares it. [strings.ToLower] and
// [strings.EqualFold] were rejected for hosts outside ASCII: for them the Kelvin sign is a k, so
// another host would equal the first one.
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

// punycode returns the name that net/http asks DNS for in place of a host outside ASCII. Package
// net/http has the tables for that but exports no function, so a transport is asked to dial the
// host. A table of our own, or a dependency that has a table, was rejected: it could differ from
// the table that decides where a request goes. To read the name from the Host field of a request
// was rejected too, since capital letters stay capital there.
//
// If a label outside ASCII becomes plain ASCII and not punycode, it equals an ASCII label only by
// Unicode's folding. Then the host is returned unchanged, so that it equals no ASCII host.
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
