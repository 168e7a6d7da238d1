package heartbeat_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// ServeHTTP answers with the Status, and with 503 when a database is unhealthy.
func TestServeHTTP(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	f.Beat(t.Context())
	get := func(method string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest(method, "/healthz", nil))
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		return w
	}
	w := get(http.MethodGet)
	require.Equal(t, 200, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var status heartbeat.Status
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &status))
	require.Equal(t, f.Status(), status, "it comes back from JSON")

	f.clock.Advance(time.Hour)
	require.Equal(t, 503, get(http.MethodGet).Code)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		w := get(method)
		require.Equal(t, 405, w.Code)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	}
	server := httptest.NewServer(f)
	defer server.Close()
	resp, err := http.Head(server.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 503, resp.StatusCode)
}

// P5: what ServeHTTP shows holds no ping URL, whatever pingers say.
func TestP5_ServeHTTP(t *testing.T) {
	const secret = "https://hc-ping.com/6f7d4c1e-91c2"
	for _, pingers := range [][]heartbeat.Pinger{
		{heartbeat.PingerFunc(func(context.Context) error {
			return &url.Error{Op: "Get", URL: secret, Err: errors.New("no answer")}
		})},
		{namedPinger{heartbeat.PingerFunc(func(context.Context) error { return errors.New("cannot reach " + secret) }), secret},
			namedPinger{sent, "GET " + secret}},
	} {
		m, err := heartbeat.New(heartbeat.MultiPinger(pingers...), []heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
		require.NoError(t, err)
		require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		require.Contains(t, w.Body.String(), `"error"`)
		require.NotContains(t, w.Body.String(), "6f7d4c1e")
	}
}

// What each target came to is in the Result, whatever became of the others.
func TestResult_Targets(t *testing.T) {
	lost := errors.New("no answer")
	m, err := heartbeat.New(heartbeat.MultiPinger(sent, namedPinger{heartbeat.PingerFunc(func(context.Context) error { return lost }), "second"}),
		[]heartbeat.SyncReporter{alwaysFresh{}}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	result := m.Beat(t.Context())
	require.Equal(t, []heartbeat.TargetResult{{Name: "target 1"}, {Name: "second", Err: lost}}, result.Targets)
	require.Nil(t, m.Beat(t.Context()).Targets, "rate-limited")

	text, err := json.Marshal(result)
	require.NoError(t, err)
	var back heartbeat.Result
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, "no answer", back.Targets[1].Err.Error())
	require.Equal(t, "second: no answer", back.Err.Error())
	require.Equal(t, heartbeat.Failed, back.Outcome)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"outcome":"lost"}`), &back), `"lost" is not an outcome; it must be sent, skipped or failed`)
}

func TestResult_String(t *testing.T) {
	two := []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch.In(time.FixedZone("", 3600)), Reason: heartbeat.ReasonStale}, {}}
	for _, row := range []struct {
		result heartbeat.Result
		want   string
	}{
		{heartbeat.Result{Reason: heartbeat.ReasonStale, Unhealthy: two, Databases: 7}, "last sync too old: /data/app.db, last sync 2026-01-01T00:00:00Z (2 of 7 databases)"},
		{heartbeat.Result{Reason: heartbeat.ReasonNotSynced, Unhealthy: []heartbeat.DatabaseStatus{{Path: "/x"}}, Databases: 1}, "database not synced: /x (1 of 1 database)"},
		{heartbeat.Result{Reason: heartbeat.ReasonNotSynced, Unhealthy: []heartbeat.DatabaseStatus{{Path: "/a\r\nSTATUS=b"}}, Databases: 2}, "database not synced: /a  STATUS=b (1 of 2 databases)"},
		{heartbeat.Result{Reason: heartbeat.ReasonNoDatabases}, "no databases"},
		{heartbeat.Result{Reason: heartbeat.ReasonRateLimited, Databases: 3}, "rate limited"},
		{heartbeat.Result{Databases: 3}, "3 databases in sync"},
		{heartbeat.Result{Outcome: heartbeat.Failed, Err: errLost, Databases: 3}, "heartbeat failed: no answer"},
	} {
		require.Equal(t, row.want, row.result.String())
	}
}

// New refuses what would answer an outage with a heartbeat.
func TestNew_SamePinger(t *testing.T) {
	http1, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a", nil)
	require.NoError(t, err)
	same, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a", &heartbeat.HTTPOptions{Method: "POST"})
	require.NoError(t, err)
	other, err := heartbeat.NewHTTPPinger("https://hc-ping.com/a/fail", nil)
	require.NoError(t, err)
	recorder := &heartbeattest.Pinger{}
	for _, row := range []struct {
		pinger, fail heartbeat.Pinger
		refused      bool
	}{
		{http1, http1, true},
		{http1, same, true},
		{heartbeat.MultiPinger(sent, http1), heartbeat.MultiPinger(other, same), true},
		{recorder, recorder, true},
		{namedPinger{recorder, "x"}, namedPinger{recorder, "x"}, true},
		{http1, other, false},
		{sent, sent, false}, // functions cannot be compared
		{namedPinger{sent, "x"}, namedPinger{sent, "x"}, false},
	} {
		_, err := heartbeat.New(row.pinger, nil, &heartbeat.Options{FailPinger: row.fail})
		if row.refused {
			require.EqualError(t, err, "heartbeat: FailPinger pings what the pinger pings; give it the service's failure URL")
		} else {
			require.NoError(t, err)
		}
	}
	for _, none := range []heartbeat.Pinger{nil, (*heartbeat.HTTPPinger)(nil), heartbeat.PingerFunc(nil), (*heartbeattest.Pinger)(nil), &heartbeat.HTTPPinger{}} {
		_, err := heartbeat.New(none, nil, nil)
		require.EqualError(t, err, "heartbeat: pinger is nil; use NewHTTPPinger or a PingerFunc", "%T", none)
	}
}
