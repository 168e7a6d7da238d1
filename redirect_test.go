package heartbeat_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

// P3: ten redirects are followed, no more; a loop ends.
func TestRedirectLimit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		redirects, requests int
		want                string
	}{
		{1, 2, ""},
		{10, 11, ""},
		{11, 11, "stopped after 10 redirects"},
		{1 << 30, 11, "stopped after 10 redirects"},
	} {
		t.Run(strconv.Itoa(row.redirects), func(t *testing.T) {
			t.Parallel()
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests++; requests <= row.redirects {
					http.Redirect(w, r, "/ping/"+uuid, http.StatusFound)
				}
			}))
			defer server.Close()
			err := newPinger(t, server.URL+"/ping/"+uuid, nil).Ping(t.Context())
			if row.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: %s", server.URL, row.want))
			}
			require.Equal(t, row.requests, requests)
		})
	}
}

// P3: from https to http no redirect is followed, nor to another scheme.
func TestRedirectToPlainHTTP(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("pinged over http") }))
	defer plain.Close()
	target := plain.URL + "/" + uuid
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, http.StatusMovedPermanently) }))
	defer secure.Close()
	err := newPinger(t, secure.URL, &heartbeat.HTTPOptions{Client: secure.Client()}).Ping(t.Context())
	require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: refused a redirect from https to http", secure.URL))

	target = "ftp://ftp.example/" + uuid
	plain.Config.Handler = secure.Config.Handler
	err = newPinger(t, plain.URL, nil).Ping(t.Context())
	require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: unsupported protocol scheme", plain.URL))
}

// P3: what the options' headers say stays on the URL's host and port, the ping
// URL is in no Referer, and a host that is not the first one gets a plain request.
func TestHeadersOnRedirect(t *testing.T) {
	t.Parallel()
	header := http.Header{
		"Authorization": {"Bearer s3cr3t-t0ken"}, "X-Api-Key": {"k3y-of-the-service"}, "x-small": {"s3cr3t-small"}, "Cookie": {"session=s3cr3t"},
		"Proxy-Authorization": {"Basic s3cr3t"}, "Referer": {"http://me.example/s3cr3t"}, "User-Agent": {"s3cr3t-agent"}, "Host": {"s3cr3t-virtual.example"},
	}
	type seen struct{ host, path string }
	for _, location := range []string{"http://localhost:{port}/b", "http://127.0.0.1:{other}/b", "http://127.0.0.1:{port}/same", "/same"} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			var requests []seen
			var headers []http.Header
			handler := func(w http.ResponseWriter, r *http.Request) {
				requests = append(requests, seen{r.Host, r.URL.Path})
				headers = append(headers, r.Header)
				if strings.HasPrefix(r.URL.Path, "/ping") {
					http.Redirect(w, r, w.Header().Get("To"), http.StatusFound)
				}
			}
			var to string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("To", to)
				handler(w, r)
			}))
			defer server.Close()
			other := httptest.NewServer(http.HandlerFunc(handler))
			defer other.Close()
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			_, otherPort, _ := net.SplitHostPort(other.Listener.Addr().String())
			to = strings.NewReplacer("{port}", port, "{other}", otherPort).Replace(location)

			pingURL := strings.Replace(server.URL, "http://", "http://me:hunter22@", 1) + "/ping/" + uuid + "?token=s3cr3t"
			opts := &heartbeat.HTTPOptions{Header: header.Clone()}
			opts.Header.Del("Authorization")
			require.NoError(t, newPinger(t, pingURL, opts).Ping(t.Context())) // with the URL's password
			require.NoError(t, newPinger(t, pingURL, &heartbeat.HTTPOptions{Header: header}).Ping(t.Context()))

			require.Len(t, requests, 4)
			require.Equal(t, "s3cr3t-virtual.example", requests[0].host)
			require.Equal(t, "Basic "+base64.StdEncoding.EncodeToString([]byte("me:hunter22")), headers[0].Get("Authorization"))
			require.Equal(t, "Bearer s3cr3t-t0ken", headers[2].Get("Authorization"))
			for _, i := range []int{1, 3} {
				require.NotContains(t, headers[i].Get("Referer"), "127.0.0.1")
				if requests[i].path == "/same" {
					require.Equal(t, header["X-Api-Key"], headers[i]["X-Api-Key"])
					require.Equal(t, header["x-small"], headers[i]["X-Small"])
					require.Equal(t, header["Cookie"], headers[i]["Cookie"])
					require.Equal(t, "s3cr3t-agent", headers[i].Get("User-Agent"))
					continue
				}
				require.Equal(t, "/b", requests[i].path)
				require.NotContains(t, requests[i].host, "s3cr3t")
				require.Equal(t, http.Header{
					"Accept-Encoding": {"identity"}, "Connection": {"close"}, "User-Agent": {"go-heartbeat/1 (+https://github.com/go-heartbeat/heartbeat)"},
				}, headers[i])
			}
			if requests[3].path == "/same" {
				require.Equal(t, "Bearer s3cr3t-t0ken", headers[3].Get("Authorization"))
			}
		})
	}
}

// P3: a redirect from another host back to the first brings the headers back, and
// one from http to https on the same host keeps them. The header Host goes abroad no more
// than the others, also with a location that names no scheme.
func TestHeadersOnRedirectAndBack(t *testing.T) {
	t.Parallel()
	var got []string
	p := newPinger(t, "http://a.example/1", &heartbeat.HTTPOptions{
		Header: http.Header{"X-Api-Key": {"k3y"}, "Authorization": {"k3y"}, "Host": {"virtual.example"}},
		Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.Empty(t, req.Header.Get("Referer"))
			require.Equal(t, req.Header.Get("X-Api-Key"), req.Header.Get("Authorization"))
			got = append(got, strings.TrimSpace(req.URL.String()+" "+req.Header.Get("X-Api-Key")+" "+req.Host))
			if next := map[string]string{"/1": "//b.example/2", "/2": "/3", "/3": "http://A.example:80/4", "/4": "https://a.example/5"}[req.URL.Path]; next != "" {
				return answerWith(req, 307, http.Header{"Location": {next}}, ""), nil
			}
			return answerWith(req, 200, nil, "OK"), nil
		})},
	})
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, []string{"http://a.example/1 k3y virtual.example", "http://b.example/2", "http://b.example/3", "http://A.example:80/4 k3y", "https://a.example/5 k3y"}, got)
}

// P3: the caller's CheckRedirect is asked as well, after ours, and may end it.
func TestCallersCheckRedirect(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ping" {
			http.Redirect(w, r, "/next", http.StatusFound)
		}
	}))
	defer server.Close()
	errTheirs := errors.New("no redirects here")
	for _, row := range []struct {
		theirs error
		want   string
	}{
		{nil, ""},
		{errTheirs, fmt.Sprintf("heartbeat: ping: Get %q: redirect refused by the client's CheckRedirect", server.URL)},
		{http.ErrUseLastResponse, "heartbeat: server answered 302 Found"},
	} {
		calls := 0
		client := &http.Client{CheckRedirect: func(req *http.Request, via []*http.Request) error {
			calls++
			require.Equal(t, "/next", req.URL.Path)
			require.Len(t, via, 1)
			return row.theirs
		}}
		err := newPinger(t, server.URL+"/ping", &heartbeat.HTTPOptions{Client: client}).Ping(t.Context())
		require.Equal(t, 1, calls)
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, row.want)
		require.Equal(t, row.theirs == errTheirs, errors.Is(err, errTheirs))
	}
}

// exported lists the exported fields of a struct: plain ones and slices by value,
// the others by what they point to.
func exported(v any) map[string]string {
	fields := map[string]string{}
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		name, field := value.Type().Field(i).Name, value.Field(i)
		if !value.Type().Field(i).IsExported() {
			continue
		}
		if field.Kind() == reflect.Interface {
			field = field.Elem()
		}
		switch field.Kind() {
		case reflect.Func, reflect.Pointer, reflect.Map, reflect.Chan:
			fields[name] = fmt.Sprint(field.Pointer())
		case reflect.Invalid:
			fields[name] = "nil"
		default:
			fields[name] = fmt.Sprintf("%#v", field.Interface())
		}
	}
	return fields
}

// P3 (and issue 3): the caller's client, its transport and http.DefaultTransport
// are left as they were.
func TestCallersClientIsNotModified(t *testing.T) { // not parallel: others use http.DefaultTransport
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		if r.URL.Path == "/ping" {
			http.Redirect(w, r, "/next", http.StatusFound)
		}
	}))
	defer server.Close()
	client := server.Client()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client.Jar, client.Timeout = jar, time.Minute
	transport := client.Transport.(*http.Transport)
	std := http.DefaultTransport.(*http.Transport)
	_ = std.Clone() // what net/http sets up at a transport's first use is not ours
	_ = transport.Clone()
	header := http.Header{"x-api-key": {"k3y"}}
	opts := &heartbeat.HTTPOptions{Client: client, Header: header, Method: "get"}

	before := []map[string]string{exported(client), exported(transport), exported(transport.TLSClientConfig), exported(std), exported(opts), exported(http.DefaultClient)}
	for range 2 {
		p, err := heartbeat.NewHTTPPinger(server.URL+"/ping", opts)
		require.NoError(t, err)
		require.NoError(t, p.Ping(t.Context()))
		_, err = heartbeat.NewHTTPPinger(server.URL+"/ping", nil)
		require.NoError(t, err)
	}
	after := []map[string]string{exported(client), exported(transport), exported(transport.TLSClientConfig), exported(std), exported(opts), exported(http.DefaultClient)}
	require.Equal(t, before, after)
	require.Same(t, transport, client.Transport)
	require.Nil(t, client.CheckRedirect)
	require.Equal(t, http.Header{"x-api-key": {"k3y"}}, header)
}

// P3: what is one host, and what is another, by the names that DNS knows. On its own
// host a redirect keeps the header and the URL's user and password, whether its
// Location is absolute or relative.
func TestP3_OwnHostAndOthers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		ping, location string
		own            bool
	}{
		{"http://kelvin.example/1", "/2", true},
		{"http://kelvin.example/1", "http://kelvin.example/2", true},
		{"http://kelvin.example/1", "http://KELVIN.EXAMPLE./2", true},
		{"http://kelvin.example/1", "http://kelvin.example:80/2", true},
		{"http://Kelvin.example/1", "http://kelvin.example/2", true},
		{"http://kelvin.example/1", "https://kelvin.example/2", true},
		{"http://kelvin.example./1", "http://kelvin.example/2", true},
		{"http://kelvin.example/1", "http://\u212aelvin.example/2", false}, // the Kelvin sign
		{"http://\u212aelvin.example/1", "http://kelvin.example/2", false},
		{"http://ſecret.example/1", "http://secret.example/2", false}, // the long s
		{"http://ｓecret.example/1", "http://secret.example/2", false}, // a wide one
		{"http://a。example/1", "http://a.example/2", false},           // a wide dot
		{"http://bücher.example/1", "http://xn--bcher-kva.example/2", true},
		{"http://xn--bcher-kva.example/1", "http://BÜCHER.example/2", true},
		{"http://bücher.example/1", "http://bucher.example/2", false},
		{"http://bücher.example/1", "http://bücher.example:8080/2", false},
		{"http://kelvin.example/1", "https://kelvin.example:80/2", false},
		{"http://[::1]/1", "http://[0:0::1]:80/2", true},
		{"http://[::1]/1", "http://[::2]/2", false},
	} {
		for _, user := range []string{"", "me:hunter22@"} {
			var got *http.Request
			client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/1" {
					return answerWith(req, 307, http.Header{"Location": {row.location}}, ""), nil
				}
				got = req
				return answerWith(req, 200, nil, "OK"), nil
			})}
			header := http.Header{"X-Key": {"s3cr3t"}, "Cookie": {"k=s3cr3t"}}
			if user == "" {
				header.Set("Authorization", "Bearer s3cr3t")
			}
			p := newPinger(t, strings.Replace(row.ping, "//", "//"+user, 1), &heartbeat.HTTPOptions{Client: client, Header: header})
			require.NoError(t, p.Ping(t.Context()))
			for _, name := range []string{"X-Key", "Cookie", "Authorization"} {
				require.Equal(t, row.own, got.Header.Get(name) != "", "%s %v", name, row)
			}
		}
	}

	// A Location's own user and password count.
	client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.URL.Path == "/1" {
			return answerWith(req, 302, http.Header{"Location": {"http://other:one@host.example/2"}}, ""), nil
		}
		user, _, _ := req.BasicAuth()
		require.Equal(t, "other", user)
		return answerWith(req, 200, nil, "OK"), nil
	})}
	require.NoError(t, newPinger(t, "http://me:hunter22@host.example/1", &heartbeat.HTTPOptions{Client: client}).Ping(t.Context()))
}

// P5: an error names the URL's host in all its spellings, and no other.
func TestP5_HostInErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ url, asked, want string }{
		{"http://Server.example/x", "server.example", "lookup server.example: no such host"},
		{"http://server.example./x", "server.example.", "lookup server.example: no such host"},
		{"http://server.example./x", "server.example", "lookup server.example: no such host"},
		{"http://bücher.example/x", "xn--bcher-kva.example", "lookup xn--bcher-kva.example: no such host"},
		{"http://kelvin.example/x", "\u212aelvin.example", "lookup another host: no such host"},
		{"http://server.example/x", "s3cr3t.example", "lookup another host: no such host"},
	} {
		err := newPinger(t, row.url, viaFunc(func(*http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: "no such host", Name: row.asked, IsNotFound: true}
		})).Ping(t.Context())
		require.ErrorContains(t, err, ": "+row.want)
	}
}

// S6: what another host wishes, after a redirect, counts for a minute at most.
func TestS6_RetryAfterOfAnotherHost(t *testing.T) {
	t.Parallel()
	for location, want := range map[string]time.Duration{
		"":                           time.Hour,
		"/2":                         time.Hour,
		"http://server.example:80/2": time.Hour,
		"https://server.example/2":   time.Hour,
		"http://other.example/2":     time.Minute,
		"http://server.example:81/2": time.Minute,
	} {
		for _, after := range []string{"7200", "30"} {
			err := newPinger(t, "http://server.example/1", viaFunc(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/1" && location != "" {
					return answerWith(req, 302, http.Header{"Location": {location}}, ""), nil
				}
				resp := answerWith(req, 503, http.Header{"Retry-After": {after}}, "")
				resp.Request = nil // as a transport of a caller's may
				return resp, nil
			})).Ping(t.Context())
			status, ok := errorAs[*heartbeat.StatusError](err)
			require.True(t, ok)
			if after == "30" {
				require.Equal(t, 30*time.Second, status.RetryAfter)
			} else {
				require.Equal(t, want, status.RetryAfter, location)
			}
		}
	}
	// An answer that a caller's CheckRedirect asked for is the first host's.
	err := newPinger(t, "http://server.example/1", &heartbeat.HTTPOptions{Client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return answerWith(req, 302, http.Header{"Location": {"http://other.example"}}, ""), nil
		}),
	}}).Ping(t.Context())
	require.EqualError(t, err, "heartbeat: server answered 302 Found")
}

// A cookie that the server has just replaced is not sent again.
func TestRedirectReplacesCookie(t *testing.T) {
	var got atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "new", Path: "/"})
			http.Redirect(w, r, "/2", http.StatusFound)
			return
		}
		got.Store(r.Header.Get("Cookie"))
	}))
	defer server.Close()
	jar, _ := cookiejar.New(nil)
	p := newPinger(t, server.URL+"/1", &heartbeat.HTTPOptions{Client: &http.Client{Jar: jar}, Header: http.Header{"Cookie": {"session=old; a=1"}}})
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, "a=1; session=new", got.Load())
}

// A GET keeps its header on a redirect: only a POST that becomes a GET has lost its body.
func TestRedirectOfAGet(t *testing.T) {
	var got http.Header
	p := newPinger(t, "http://server.example/1", &heartbeat.HTTPOptions{
		Header: http.Header{"Content-Digest": {"x"}}, // a GET, which never had a body
		Client: &http.Client{Transport: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/1" {
				return answerWith(r, 302, http.Header{"Location": {"/2"}}, ""), nil
			}
			got = r.Header
			return answerWith(r, 200, http.Header{}, ""), nil
		})},
	})
	require.NoError(t, p.Ping(t.Context()))
	require.Equal(t, "x", got.Get("Content-Digest"))
}
