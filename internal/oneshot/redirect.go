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

// checkRedirect is an [http.Client]'s CheckRedirect. It keeps what is secret from every
// host but the first.
//
// It gives req a header of its own making. What net/http has put there was rejected, on
// the first host too: net/http leaves Authorization and Cookie out where the host is spelt
// otherwise, and after another host, and adds a Referer with the URL that it came from. Only
// its Cookie is kept, from which it has taken what the client's jar knows better. The jar's
// cookies are added later, for the host that they are for.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	a := attemptOf(req.Context())
	a.connected.Store(true) // also with a transport that traces nothing
	if len(via) > maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	// Also on the same host: who listens there would read the URL, which is a credential.
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
	// It is asked last, so that it sees what will be sent.
	if c.theirs != nil {
		if err := c.theirs(req, via); redact.Is(err, http.ErrUseLastResponse) {
			return err
		} else if err != nil {
			return fmt.Errorf("redirect refused by the client's CheckRedirect: %w", err)
		}
	}
	a.request = req // not before: what is refused is not answered
	return nil
}

// Authority returns the host of u and, where its scheme does not imply it, the port: in a
// form that is equal for two URLs of one host. So case and a final dot do not count. Hosts
// are equal as ASCII, in which DNS and TLS know them. A host outside ASCII equals its
// punycode form. It never equals an ASCII host by case folding.
//
// The scheme does not count: a check is one check by http and by https. So a port that the
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
// [strings.EqualFold] were rejected for hosts outside ASCII: they make the Kelvin sign a k,
// and so another host the first.
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
// dial the host. A table of our own, or a dependency that has one, was rejected: it could
// differ from the one that says where a request goes. To read the name from the Host field
// of a request was rejected too, since capital letters stay capital there.
//
// A label that becomes plain ASCII, without punycode, is equal to another by Unicode's
// folding only: such a host is returned as it is.
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
