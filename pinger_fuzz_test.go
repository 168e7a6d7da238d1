package heartbeat_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

// urlProblems are all that NewHTTPPinger can say of a URL (P4). None has a part
// that changes, so none can repeat a password or a path.
var urlProblems = []string{
	"is empty",
	"begins or ends with white space",
	"has a space in its query; write it as %20",
	"has a % that is not followed by two hexadecimal digits",
	"cannot be parsed",
	"has no scheme (http or https)",
	"has a scheme other than http and https",
	"has no host",
	"has a port outside 1 to 65535",
}

func urlProblem(text string) string {
	return "heartbeat: ping URL " + text + "; it must be absolute, such as https://hc-ping.com/your-uuid-here"
}

// FuzzNewHTTPPingerURL: whatever the URL, NewHTTPPinger does not panic; its error
// is one of the fixed texts (P4); with RedactURL only scheme and host are shown;
// and an error of the transport that quotes the URL comes out without it (P5).
func FuzzNewHTTPPingerURL(f *testing.F) {
	for _, seed := range []string{
		"", " ", "https://hc-ping.com/abc123", "http://user:hunter22@host.example/path?token=s3cr3t#frag",
		"hc-ping.com/abc123", "ftp://host/abc123", "https://", "https:///abc123", "http://host:0/", "http://host:99999/",
		"http://host:port/", "http://user:pa%zzss@host/", "http://host/%zz", "http://host/\x00abc", "http://[::1]:80/abc123",
		"http://[::1/abc123", "http:abc123", "http://hc:8000/ping/abchc123", "http://a/banana", "http://host/a%2Fbcdef?x=%31234",
		"http://host/?a=b c", "https://ho st/abc123", "HTTP://HOST:/ABC123", "http://host/?token=s3;cr3t", "http://ünïcødé/pässwörd",
		"http://host/quo\"ted", "http://hc:8000/ping/abchc123", "http://h\"st/quoted", "http://host/?1\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := heartbeat.NewHTTPPinger(raw, nil); err != nil {
			problem, _ := strings.CutPrefix(err.Error(), "heartbeat: ping URL ")
			problem, _, _ = strings.Cut(problem, "; it must be absolute")
			require.Equal(t, urlProblem(problem), err.Error())
			require.Contains(t, urlProblems, problem)
			return
		}
		pinger, err := heartbeat.NewHTTPPinger(raw, &heartbeat.HTTPOptions{
			RedactURL: true,
			Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return nil, fmt.Errorf("cannot get %s, that is %s", req.URL, req.URL.Path)
			})},
		})
		require.NoError(t, err)
		u, err := url.Parse(raw)
		require.NoError(t, err)
		origin := u.Scheme + "://" + u.Host
		require.Equal(t, origin, pinger.String())

		text := pinger.Ping(t.Context()).Error()
		prefix := "heartbeat: ping: " + (&url.Error{Op: "Get", URL: origin, Err: errors.New("")}).Error()
		require.True(t, strings.HasPrefix(text, prefix), text)
		text = strings.ToLower(text[len(prefix):])
		require.Equal(t, "unknown error (its text is withheld, since it may repeat the ping url)", text)
	})
}

// FuzzResponse: whatever bytes a server answers with, a ping does not panic, no
// error at any level repeats the URL's credential (P5), and what it makes of the
// answer agrees with a small model (P1).
func FuzzResponse(f *testing.F) {
	const secret = "s3cr3t-t0ken"
	for _, seed := range []string{
		"", "\r\n", "HTTP/1.1 200 OK\r\n\r\nOK", "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nOK (not found)",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nPing-Body-Limit: 10000\r\n\r\nOK",
		"HTTP/1.0 202 Accepted\r\n\r\nGot it, thanks!", "HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nOK (\r\nc\r\nrate-limited)\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK", "HTTP/1.1 404 Not Found\r\n\r\nno /ping/" + secret,
		"HTTP/1.1 302 Found\r\nLocation: /ping/" + secret + "\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: http://[/" + secret + "\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: " + secret + "://x/\r\n\r\n", "HTTP/1.1 302 Found\r\n\r\n",
		"HTTP/1.1 200 OK\r\n/ping/" + secret + "\r\n\r\n", "HTTP/1.1 /ping/" + secret + " OK\r\n\r\n", "/ping/" + secret + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: /ping/" + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + secret,
		"HTTP/1.1 200 OK\r\n\r\nOK (" + secret + ")", "HTTP/1.1 200 OK\r\n\r\nOK (" + strings.Repeat(".", 50) + secret + ")",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secret, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: " + secret + ": \r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n", "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhi",
		"HTTP/1.1 429 Slow\r\nRetry-After: 30\r\n\r\n", "HTTP/1.1 000 x\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				if _, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
					_, _ = server.Write(answer)
				}
			}()
			return client, nil
		}}
		defer transport.CloseIdleConnections()
		pinger, err := heartbeat.NewHTTPPinger("http://server.example/ping/"+secret, &heartbeat.HTTPOptions{
			Client: &http.Client{Transport: transport},
		})
		require.NoError(t, err)
		err = pinger.Ping(t.Context())
		for _, text := range errorTexts(err) {
			require.NotContains(t, text, secret)
		}

		model := bufio.NewReader(bytes.NewReader(answer))
		resp, modelErr := http.ReadResponse(model, nil)
		for n := 0; modelErr == nil && resp.StatusCode/100 == 1 && resp.StatusCode != 101 && n < 5; n++ {
			resp, modelErr = http.ReadResponse(model, nil)
		}
		switch {
		case modelErr != nil:
			require.Error(t, err)
		case resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "", resp.StatusCode == 100:
			require.Error(t, err) // where it leads answers the same
		case resp.StatusCode/100 != 2:
			status, ok := errorAs[*heartbeat.StatusError](err)
			if resp.StatusCode/100 == 1 && !ok { // one informational answer too many
				require.Error(t, err)
				break
			}
			require.True(t, ok, "%v", err)
			require.Equal(t, resp.StatusCode, status.Code)
		default:
			body, bodyErr := io.ReadAll(io.LimitReader(resp.Body, 64))
			switch {
			case bytes.HasPrefix(body, []byte("OK (")):
				require.ErrorIs(t, err, heartbeat.ErrNotAccepted)
			case bodyErr != nil && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip"):
			default: // also where the body breaks: the ping has arrived
				require.NoError(t, err)
			}
		}
	})
}

// FuzzRetryAfter: whatever the server asks for, RetryAfter is 0 to 1 hour (S6),
// and agrees with a small model.
func FuzzRetryAfter(f *testing.F) {
	const date = "Tue, 24 Nov 2026 08:00:00 GMT"
	for _, seed := range []struct {
		code        int
		after, date string
	}{
		{429, "30", ""}, {503, "3600", ""}, {503, "3601", ""}, {429, "99999999999999999999999", ""}, {429, "-1", ""}, {429, "+1", ""},
		{429, " 7 ", ""}, {429, "1.5", ""}, {429, "", ""}, {429, "soon", ""}, {200, "30", ""}, {500, "30", ""}, {404, "30", ""},
		{429, "Tue, 24 Nov 2026 08:05:00 GMT", date}, {503, "Tue, 24 Nov 2026 07:05:00 GMT", date}, {503, "Tue, 24 Nov 2026 12:05:00 GMT", date},
		{503, "Tuesday, 24-Nov-26 08:05:00 GMT", "Tue Nov 24 08:00:00 2026"}, {503, "Fri, 31 Dec 9999 23:59:59 GMT", ""},
		{503, "Mon, 01 Jan 0001 00:00:00 GMT", date}, {429, "1e3", date}, {429, "0x10", date}, {429, "18700000000000000000A", "0"}, {429, "1_0", date},
	} {
		f.Add(seed.code, seed.after, seed.date)
	}
	f.Fuzz(func(t *testing.T, code int, after, date string) {
		pinger, err := heartbeat.NewHTTPPinger("http://server.example/ping", &heartbeat.HTTPOptions{
			Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return answerWith(req, code, http.Header{"Retry-After": {after}, "Date": {date}}, ""), nil
			})},
		})
		require.NoError(t, err)
		before := time.Now()
		err = pinger.Ping(t.Context())
		if code/100 == 2 {
			require.NoError(t, err)
			return
		}
		status, ok := errorAs[*heartbeat.StatusError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, code, status.Code)
		require.GreaterOrEqual(t, status.RetryAfter, time.Duration(0))
		require.LessOrEqual(t, status.RetryAfter, time.Hour)

		low, high := time.Duration(0), time.Duration(0)
		after = strings.TrimSpace(after)
		if code != 429 && code != 503 {
			require.Zero(t, status.RetryAfter)
		} else if after != "" && strings.Trim(after, "0123456789") == "" {
			low = time.Hour
			if n, err := strconv.Atoi(after); err == nil && n < 3600 {
				low = time.Duration(n) * time.Second
			}
			high = low
		} else if until, err := http.ParseTime(after); err == nil {
			now, err := http.ParseTime(date)
			low, high = until.Sub(now), until.Sub(now)
			if err != nil {
				low, high = time.Until(until), until.Sub(before)
			}
		}
		require.GreaterOrEqual(t, status.RetryAfter, min(max(low, 0), time.Hour))
		require.LessOrEqual(t, status.RetryAfter, min(max(high, 0), time.Hour))
	})
}
