package heartbeat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/stretchr/testify/require"
)

func TestStatus(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	require.Equal(t, heartbeat.Status{
		Healthy:   true,
		Interval:  heartbeat.DefaultInterval,
		Databases: []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch}},
	}, f.Status())
	sent := f.Beat(t.Context())
	f.clock.Advance(time.Hour)
	status := f.Status()
	require.Equal(t, heartbeat.Status{
		Interval:   heartbeat.DefaultInterval,
		LastResult: sent,
		LastSentAt: epoch,
		Databases:  []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch, Reason: heartbeat.ReasonStale}},
	}, status, "it is judged now")

	result := f.Beat(t.Context())
	f.Status().LastResult.Unhealthy[0].Path = "mine"
	require.Equal(t, result, f.Status().LastResult, "a caller's change stays with the caller")
}

func TestJSON(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	toJSON := func(v any) string {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		return string(text)
	}
	require.JSONEq(t, `{"healthy":true,"interval":300000000000,"databases":[{"path":"/data/app.db","last_sync_at":"2026-01-01T00:00:00Z"}]}`, toJSON(f.Status()))
	f.pinger.Fail(errors.New("connection refused"))
	result := f.Beat(t.Context())
	require.JSONEq(t, `{"time":"2026-01-01T00:00:00Z","outcome":"failed","databases":1,"error":"connection refused",
		"targets":[{"name":"https://hc-ping.com","error":"connection refused"}]}`, toJSON(result))
	f.log.take()
	f.log.logger(slog.LevelInfo).Info("checked", "result", result)
	require.Equal(t, "level=INFO msg=checked result.outcome=failed result.databases=1 result.error=\"connection refused\"\n", f.log.take())

	f.reporter.Set(time.Time{})
	result = f.Beat(t.Context())
	want := `{"time":"2026-01-01T00:00:00Z","outcome":"skipped","reason":"database not synced","databases":1,
		"unhealthy":[{"path":"/data/app.db","reason":"database not synced"}]}`
	require.JSONEq(t, want, toJSON(result))
	require.JSONEq(t, `{"healthy":false,"interval":300000000000,"last_result":`+want+`,"databases":[{"path":"/data/app.db","reason":"database not synced"}]}`, toJSON(f.Status()))
	f.log.take()
	f.log.logger(slog.LevelInfo).Info("checked", "result", result)
	require.Equal(t, "level=INFO msg=checked result.outcome=skipped result.databases=1 result.reason=\"database not synced\" result.unhealthy=1\n", f.log.take())
}

func TestOutcome_String(t *testing.T) {
	require.Equal(t, "sent skipped failed Outcome(0)", fmt.Sprint(heartbeat.Sent, heartbeat.Skipped, heartbeat.Failed, heartbeat.Outcome(0)))
	require.Equal(t, "Outcome(-1) Outcome(4)", fmt.Sprint(heartbeat.Outcome(-1), heartbeat.Outcome(4)))
}

func TestMonitor_Format(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.Equal(t, "heartbeat.Monitor(1 databases, 1 targets)", fmt.Sprintf(verb, f.Monitor))
	}
	var none *heartbeat.Monitor
	require.Equal(t, "<nil>", fmt.Sprint(none))
}

// What a caller does to a Result stays with the caller.
func TestResult_IsTheCallers(t *testing.T) {
	f := newFixture(t, heartbeat.Options{OnResult: func(r heartbeat.Result) {
		for i := range r.Unhealthy {
			r.Unhealthy[i].Path = "callback's"
		}
	}, FailPinger: heartbeat.PingerFunc(func(ctx context.Context) error {
		r, _ := heartbeat.ResultFromContext(ctx)
		r.Unhealthy[0].Path = "pinger's"
		return errors.New("no answer")
	})})
	f.Beat(t.Context())
	f.clock.Advance(time.Hour)
	result := f.Beat(t.Context())
	require.Equal(t, "/data/app.db", result.Unhealthy[0].Path)
	result.Unhealthy[0].Path = "caller's"
	require.Equal(t, "/data/app.db", f.Status().LastResult.Unhealthy[0].Path)
}

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

// P5: an error that is no target's is shown by the same rule.
func TestP5_ServeHTTPAfterEndedContext(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.Beat(ctx).Err, context.Canceled)
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	require.Contains(t, w.Body.String(), `context canceled"`)
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
	text, err = json.Marshal(heartbeat.Result{})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &back))
	require.Zero(t, back)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"outcome":"lost"}`), &back), `"lost" is not an outcome; it must be sent, skipped or failed`)
	require.NoError(t, json.Unmarshal([]byte(`{"outcome":"failed","error":""}`), &back))
	require.NoError(t, back.Err)
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
