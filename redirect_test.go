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
// one from http to https on the same host keeps them.
func TestHeadersOnRedirectAndBack(t *testing.T) {
	t.Parallel()
	var got []string
	p := newPinger(t, "http://a.example/1", &heartbeat.HTTPOptions{
		Header: http.Header{"X-Api-Key": {"k3y"}, "Host": {"virtual.example"}},
		Client: &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.Empty(t, req.Header.Get("Referer"))
			got = append(got, strings.TrimSpace(req.URL.String()+" "+req.Header.Get("X-Api-Key")+" "+req.Host))
			if next := map[string]string{"/1": "http://b.example/2", "/2": "/3", "/3": "http://A.example:80/4", "/4": "https://a.example/5"}[req.URL.Path]; next != "" {
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
