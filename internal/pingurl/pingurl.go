// Package pingurl reads the URL of a ping and checks what is sent with it. It refuses
// what can only be a mistake, since many services answer a wrong URL with a page and
// status 200: such a ping looks as if it had counted.
//
// Its errors repeat no part of a URL. Of a header they repeat only the name. The errors of net/url
// quote the part that cannot be parsed, which can be a password.
package pingurl

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/go-heartbeat/heartbeat/internal/oneshot"
)

// Reason stands for the reason of a ping, in the query of its URL and in its body.
const Reason = "{reason}"

// Parse returns the URL of a ping, which must be an absolute http or https URL with a
// host.
func Parse(raw string) (*url.URL, error) {
	if text := misread(raw); text != "" {
		return nil, errors.New("ping URL " + text)
	}
	u, err := url.Parse(raw)
	if text := malformed(raw, u, err); text != "" {
		return nil, errors.New("ping URL " + text + "; it must be absolute, such as https://hc-ping.com/your-uuid-here")
	}
	return u, nil
}

// malformed says what is wrong with a URL, or returns "". u and err are what [url.Parse] returned
// for raw. The text of err is not used, because it quotes a part of the URL. Only its type is
// used.
func malformed(raw string, u *url.URL, err error) string {
	var badEscape url.EscapeError
	switch {
	case raw == "":
		return "is empty"
	case strings.TrimSpace(raw) != raw:
		return "begins or ends with white space"
	case errors.As(err, &badEscape):
		return "has a % that is not followed by two hexadecimal digits"
	case err != nil:
		return "cannot be parsed"
	case u.Scheme == "":
		return "has no scheme (http or https)"
	case u.Scheme != "http" && u.Scheme != "https":
		return "has a scheme other than http and https"
	case u.Hostname() == "":
		return "has no host"
	case strings.Contains(u.RawQuery, " "): // a space in the path is escaped
		return "has a space in its query; write it as %20"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "has a port outside 1 to 65535"
		}
	}
	return ""
}

// lazy returns a pattern that is compiled when it is first used: most programs that import the
// library parse no URL before they have read their configuration, and some never do. To compile
// the pattern at each use was rejected: a process may have 10,000 pingers.
//
// Plain string functions were rejected too, though package regexp is a quarter of a megabyte in a
// program. The functions would take three times as many lines, and a pattern is easier to read.
func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

var (
	placeholder = lazy(`\$\{[^{}]*\}|<[^<>]*>|\{\{|\{[A-Za-z][A-Za-z_ .-]*\}`)
	escape      = lazy(`%[0-9A-Fa-f]{2}`)

	// This finds a second URL that follows a value directly, or after a comma or the like. A URL that
	// is itself a value, or that stands in the text of a message, is allowed. An escape such as %20
	// ends in characters that look like a value. So each escape is replaced by % before the search.
	secondInQuery = lazy(`(?i)[\w,;|&}]https?://`)

	// These find misspelt forms of Reason. In a URL one of the braces may be missing. A body may be a
	// program's text or JSON, with "reason" as a key. So in a body only a word with both braces around
	// it counts as a mistake.
	reasonInURL  = lazy(`(?i)(?:\{|%7B|\$)(?:\{|\s|\+|%20)*reasons?\b|\breasons?(?:\s|\+|%20)*(?:\}|%7D)`)
	reasonInText = lazy(`(?i)\{[ \t]*reasons?[ \t]*\}`)
)

// misread says why a URL would be read in another way than it is meant, or returns "". It looks at
// the text, since what net/url makes of it differs between versions of Go.
//
// Each case is refused because no service has a URL of that shape. A URL that a service may have
// is accepted, however odd: a URL that is refused is a heartbeat that is never sent. So a Reason
// in the query is taken out first, and a "{" is accepted if no plain name follows it, as JSON
// needs it.
func misread(raw string) string {
	beforeQuery, query, _ := strings.Cut(raw, "?")
	_, authority, _ := strings.Cut(beforeQuery, "://")
	authority, path, _ := strings.Cut(authority, "/")
	host := authority[strings.LastIndex(authority, "@")+1:]
	meant := strings.ReplaceAll(query, Reason, "\x00")
	switch {
	case strings.Contains(raw, "#"):
		return "has a #, and what follows that is never sent; write it as %23"
	case strings.Count(beforeQuery, "://") > 1, secondInQuery().MatchString(escape().ReplaceAllString(query, "%")), (host == "http" || host == "https") && strings.HasPrefix(path, "/"):
		return "has a second URL in it; give one, and escape a URL that is a part of it, as in https%3A%2F%2F"
	case reasonInURL().MatchString(beforeQuery): // Reason too
		return "has {reason} outside its query, where nothing takes its place"
	case misspelt(meant, reasonInURL()):
		return "has {reason} misspelt; write it in small letters, without spaces and not escaped"
	case placeholder().MatchString(beforeQuery), placeholder().MatchString(meant):
		return "has a placeholder left in it, such as ${NAME}, <name> or {name}; write what it stands for"
	case !strings.HasPrefix(host, "[") && strings.Count(host, ":") > 1:
		return "has a host with several colons; write an IPv6 address in brackets, as in http://[::1]:8000"
	}
	return ""
}

// misspelt reports whether text, in which "\x00" stands for Reason, has a misspelt Reason.
func misspelt(text string, like *regexp.Regexp) bool {
	return like.MatchString(text) || strings.Contains(text, "$\x00") || strings.Contains(text, "{\x00}")
}

var errBody = errors.New("ping body has {reason} misspelt; write it in small letters, without spaces or further braces")

// CheckBody returns an error if the body of a ping has a misspelt Reason. The error is always the
// same value, so a caller can tell that the body, and not the URL, is wrong.
func CheckBody(body string) error {
	if misspelt(strings.ReplaceAll(body, Reason, "\x00"), reasonInText()) {
		return errBody
	}
	return nil
}

// CheckHeader finds what net/http would refuse at every ping, such as a line end after a token
// that was read from a file. It also finds a Reason, which is not replaced in a header. net/http
// exports no function for this, and its error quotes a name that may be a whole line.
func CheckHeader(header http.Header) error {
	for name, values := range header {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
		}) {
			return errors.New("a header's name is empty or has a character that it must not have, such as a colon or a space")
		}
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("header %s has a line end or another control character in its value", name)
			}
			if strings.Contains(value, Reason) {
				return fmt.Errorf("header %s has {reason} in its value, where nothing takes its place; use the URL's query or the body", name)
			}
		}
	}
	return nil
}

// Same reports whether a and b are two spellings of one check's URL. Services ignore the scheme,
// and most services ignore a slash at the end. User and password make no difference: they say who
// pings, and not which check is pinged.
func Same(a, b *url.URL) bool {
	return oneshot.Authority(a) == oneshot.Authority(b) && a.RawQuery == b.RawQuery &&
		strings.TrimRight(a.Path, "/") == strings.TrimRight(b.Path, "/")
}
