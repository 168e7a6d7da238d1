package heartbeat_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

func TestConfigEnabled(t *testing.T) {
	t.Parallel()
	require.False(t, heartbeat.Config{}.Enabled())
	require.False(t, heartbeat.Config{URLs: []string{"", ""}, Interval: time.Hour, FailURL: "http://host/fail"}.Enabled())
	require.True(t, heartbeat.Config{URL: "x"}.Enabled())
	require.True(t, heartbeat.Config{URLs: []string{"", "x"}}.Enabled())
}

// P4, P5: errors name the key they are about and hold no URL.
func TestConfigErrors(t *testing.T) {
	t.Parallel()
	const a, b = "https://a.example/s3cr3t-a", "https://b.example/s3cr3t-b"
	about := func(key, problem string) string {
		return "heartbeat: " + key + ": " + strings.TrimPrefix(urlProblem(problem), "heartbeat: ")
	}
	for _, row := range []struct {
		config heartbeat.Config
		want   string
	}{
		{heartbeat.Config{}, "heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off"},
		{heartbeat.Config{FailURL: a}, "heartbeat: heartbeat-fail-url: set without a URL to ping; set heartbeat-url too"},
		{heartbeat.Config{URL: "ftp://s3cr3t"}, about("heartbeat-url", "has a scheme other than http and https")},
		{heartbeat.Config{URL: a, URLs: []string{b, "s3cr3t"}}, about("heartbeat-urls[1]", "has no scheme (http or https)")},
		{heartbeat.Config{URLs: []string{a, ""}}, about("heartbeat-urls[1]", "is empty")},
		{heartbeat.Config{URL: a, FailURL: "https:///s3cr3t"}, about("heartbeat-fail-url", "has no host")},
		{heartbeat.Config{URL: a, URLs: []string{b, a}}, "heartbeat: heartbeat-urls[1]: the same URL as heartbeat-url; leave one of them out"},
		{heartbeat.Config{URLs: []string{a, b, b}}, "heartbeat: heartbeat-urls[2]: the same URL as heartbeat-urls[1]; leave one of them out"},
		{heartbeat.Config{URL: a, FailURL: a}, "heartbeat: heartbeat-fail-url: the same URL as heartbeat-url; leave one of them out"},
		{heartbeat.Config{URLs: []string{a, b}, FailURL: b}, "heartbeat: heartbeat-fail-url: the same URL as heartbeat-urls[1]; leave one of them out"},
	} {
		m, err := row.config.NewMonitor(fresh(), nil)
		require.Nil(t, m)
		require.EqualError(t, err, row.want)
		requireNone(t, errorTexts(err), "s3cr3t")
	}
	_, err := heartbeat.Config{URL: a}.NewMonitor(append(fresh(), fresh()...), nil)
	require.ErrorIs(t, err, heartbeat.ErrDuplicatePath)
	_, err = heartbeat.Config{URL: a}.NewMonitor(nil, &heartbeat.Options{MaxSyncAge: -1})
	require.Error(t, err)
}

// A Config's URLs are all pinged, its fail URL when the databases turn unhealthy;
// what it sets takes the place of the like in the options, which stay as they are.
func TestConfigNewMonitor(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, r.RequestURI)
	}))
	defer server.Close()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	replaced := heartbeattest.NewPinger(clock)
	opts := heartbeat.Options{Clock: clock, Interval: time.Minute, Logger: slog.New(slog.DiscardHandler), FailPinger: replaced}
	before := opts
	m, err := heartbeat.Config{
		URL: server.URL + "/1", URLs: []string{server.URL + "/2", server.URL + "/3?x"}, Interval: 10 * time.Minute, FailURL: server.URL + "/fail",
	}.NewMonitor([]heartbeat.SyncReporter{reporter}, &opts)
	require.NoError(t, err)
	require.Equal(t, before, opts)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	slices.Sort(paths)
	require.Equal(t, []string{"/1", "/2", "/3?x"}, paths)
	clock.Advance(10 * time.Minute) // MaxSyncAge is the Config's interval
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(time.Minute)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Equal(t, "/fail", paths[len(paths)-1])
	require.Empty(t, replaced.Times())

	// A MaxSyncAge of its own outlasts the interval, and takes the place of the options'.
	m, err = heartbeat.Config{URL: server.URL + "/1", MaxSyncAge: 26 * time.Hour}.NewMonitor([]heartbeat.SyncReporter{reporter},
		&heartbeat.Options{Clock: clock, Interval: time.Hour, MaxSyncAge: time.Hour, Logger: opts.Logger})
	require.NoError(t, err)
	reporter.Set(clock.Now())
	clock.Advance(26 * time.Hour)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(1)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Equal(t, time.Hour, m.Status().Interval)

	// What it does not set is the options'.
	m, err = heartbeat.Config{URL: server.URL + "/1"}.NewMonitor([]heartbeat.SyncReporter{reporter}, &opts)
	require.NoError(t, err)
	reporter.Set(clock.Now())
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(time.Minute + 1)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Len(t, replaced.Times(), 1)
}

// Validate says all that is wrong, each with its key, and NewMonitor says the same.
func TestConfig_Validate(t *testing.T) {
	t.Parallel()
	const a, b = "https://a.example/s3cr3t-a", "https://b.example/s3cr3t-b"
	const year = 365 * 24 * time.Hour
	for _, row := range []struct {
		config heartbeat.Config
		keys   []string
	}{
		{heartbeat.Config{}, nil},
		{heartbeat.Config{Interval: time.Hour}, nil},
		{heartbeat.Config{URL: a, URLs: []string{b}, FailURL: a + "/fail", FailBody: "{reason}", Interval: time.Second}, nil},
		{heartbeat.Config{URL: a, Interval: year, MaxSyncAge: year}, nil},
		{heartbeat.Config{URL: a, MaxSyncAge: time.Second}, nil},
		{heartbeat.Config{URL: a, Interval: -time.Minute}, []string{"heartbeat-interval"}},
		{heartbeat.Config{URL: a, Interval: 5}, []string{"heartbeat-interval"}},
		{heartbeat.Config{URL: a, Interval: time.Second - 1}, []string{"heartbeat-interval"}},
		{heartbeat.Config{URL: a, Interval: year + 1}, []string{"heartbeat-interval"}},
		{heartbeat.Config{URL: a, MaxSyncAge: -time.Minute}, []string{"heartbeat-max-sync-age"}},
		{heartbeat.Config{URL: a, MaxSyncAge: 300}, []string{"heartbeat-max-sync-age"}},
		{heartbeat.Config{URL: a, MaxSyncAge: 300000 * time.Hour}, []string{"heartbeat-max-sync-age"}},
		{heartbeat.Config{MaxSyncAge: -1, Interval: -1}, []string{"heartbeat-interval", "heartbeat-max-sync-age"}},
		{heartbeat.Config{FailURL: a}, []string{"heartbeat-fail-url"}},
		{heartbeat.Config{FailBody: "x"}, []string{"heartbeat-fail-body"}},
		{heartbeat.Config{URL: a, FailBody: "x"}, []string{"heartbeat-fail-body"}},
		{heartbeat.Config{URLs: []string{""}}, []string{"heartbeat-urls[0]"}},
		{heartbeat.Config{URL: a, URLs: []string{"", "", b}}, []string{"heartbeat-urls[0]", "heartbeat-urls[1]"}},
		{heartbeat.Config{URL: "s3cr3t", URLs: []string{a, "", a}, FailURL: a, Interval: 300},
			[]string{"heartbeat-interval", "heartbeat-url", "heartbeat-urls[1]", "heartbeat-urls[2]", "heartbeat-fail-url"}},
	} {
		err := row.config.Validate()
		if row.keys == nil {
			require.NoError(t, err)
			continue
		}
		require.Error(t, err)
		require.Equal(t, row.keys, keysOf(t, err))
		require.NotContains(t, err.Error(), "s3cr3t")
		_, made := row.config.NewMonitor(nil, nil)
		require.EqualError(t, made, err.Error())
		require.Equal(t, row.keys, keysOf(t, made))
	}
}

// keysOf returns the keys of the errors that err joins.
func keysOf(t *testing.T, err error) (keys []string) {
	t.Helper()
	for _, one := range err.(interface{ Unwrap() []error }).Unwrap() {
		keys = append(keys, one.(*heartbeat.ConfigError).Key)
	}
	return keys
}

// What is wrong with durations is said with the value, and with what would be right.
func TestConfig_durationErrors(t *testing.T) {
	t.Parallel()
	for interval, want := range map[time.Duration]string{
		-time.Minute:       "-1m0s is negative; use a positive one such as 5m",
		300:                "300ns is too short: the unit may be missing; write 5m for five minutes",
		300000 * time.Hour: "300000h0m0s is longer than a year; use a shorter one such as 5m",
	} {
		require.EqualError(t, heartbeat.Config{Interval: interval}.Validate(), "heartbeat: heartbeat-interval: "+want)
		require.EqualError(t, heartbeat.Config{MaxSyncAge: interval}.Validate(), "heartbeat: heartbeat-max-sync-age: "+want)
	}
}

// Errors of several keys are one line, which begins with the library's name once;
// errors.As finds the first.
func TestConfig_ValidateOneLine(t *testing.T) {
	t.Parallel()
	err := heartbeat.Config{URL: "https://a.example/x", Interval: -1, FailBody: "x"}.Validate()
	require.EqualError(t, err, "heartbeat: heartbeat-interval: -1ns is negative; use a positive one such as 5m; "+
		"heartbeat-fail-body: set without heartbeat-fail-url, which it would be sent to; set that too")
	var first *heartbeat.ConfigError
	require.ErrorAs(t, fmt.Errorf("dbs[0]: %w", err), &first)
	require.Equal(t, "heartbeat-interval", first.Key)
	require.EqualError(t, first, "heartbeat: heartbeat-interval: -1ns is negative; use a positive one such as 5m")
}

// All formats have one key for a field, and none for HTTP.
func TestConfig_tags(t *testing.T) {
	t.Parallel()
	config := reflect.TypeFor[heartbeat.Config]()
	for field := range config.NumField() {
		tag := config.Field(field).Tag
		key := tag.Get("yaml")
		for _, format := range []string{"json", "toml", "mapstructure", "koanf"} {
			require.Equal(t, key, tag.Get(format), config.Field(field).Name)
		}
		if key != "-" {
			require.True(t, strings.HasPrefix(key, "heartbeat-"), key)
			key = strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
		}
		require.Equal(t, key, tag.Get("env"), config.Field(field).Name)
	}
	http, _ := config.FieldByName("HTTP")
	require.Equal(t, "-", http.Tag.Get("yaml"))
	// A struct that embeds a Config would be unmarshalled by such a method.
	for method := range reflect.TypeFor[*heartbeat.Config]().NumMethod() {
		require.NotContains(t, reflect.TypeFor[*heartbeat.Config]().Method(method).Name, "Unmarshal")
	}
}

// In JSON a duration is a number of nanoseconds, and a text is an error.
func TestConfig_JSON(t *testing.T) {
	t.Parallel()
	var config heartbeat.Config
	require.NoError(t, json.Unmarshal([]byte(`{
		"heartbeat-url": "https://a.example/1", "heartbeat-urls": ["https://b.example/2"],
		"heartbeat-interval": 3600000000000, "heartbeat-max-sync-age": 93600000000000,
		"heartbeat-fail-url": "https://a.example/1/fail", "heartbeat-fail-body": "{reason}",
		"HTTP": {"Method": "POST"}
	}`), &config))
	require.NoError(t, config.Validate())
	// Not require.Equal of the two: on a failure it would print no value of either.
	require.True(t, reflect.DeepEqual(heartbeat.Config{
		URL: "https://a.example/1", URLs: []string{"https://b.example/2"}, Interval: time.Hour, MaxSyncAge: 26 * time.Hour,
		FailURL: "https://a.example/1/fail", FailBody: "{reason}",
	}, config), config)
	for _, key := range []string{"heartbeat-interval", "heartbeat-max-sync-age"} {
		require.ErrorContains(t, json.Unmarshal([]byte(`{"`+key+`": "5m"}`), &config), key)
	}
	require.NoError(t, json.Unmarshal([]byte(`{"heartbeat-interval": 300}`), &config))
	require.ErrorContains(t, config.Validate(), "the unit may be missing")
}

// P5: a Config shows no URL, however it is printed.
func TestP5_ConfigPrints(t *testing.T) {
	config := heartbeat.Config{URL: "https://me:hunter22@a.example/s3cr3t", URLs: []string{"https://b.example/s3cr3t"}, FailURL: "https://a.example/s3cr3t/fail", FailBody: "s3cr3t"}
	config.HTTP = &heartbeat.HTTPOptions{Header: http.Header{"Authorization": {"Bearer s3cr3t"}}}
	log := &logBuffer{}
	log.logger(slog.LevelInfo).Info("x", "config", config, "pointer", &config)
	text, err := json.Marshal(config)
	require.NoError(t, err)
	shown := log.take() + string(text)
	for _, v := range []any{config, &config, struct{ C heartbeat.Config }{config}, struct{ heartbeat.Config }{config}, []heartbeat.Config{config}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown += fmt.Sprintf(verb, v)
		}
	}
	for _, secret := range []string{"s3cr3t", "hunter22", fmt.Sprintf("%x", "s3cr3t")} {
		require.NotContains(t, shown, secret)
	}
	config.Interval, config.MaxSyncAge = time.Hour, 26*time.Hour
	require.Equal(t, "heartbeat.Config{heartbeat-url, heartbeat-urls[0], heartbeat-fail-url, heartbeat-fail-body, "+
		"heartbeat-interval: 1h0m0s, heartbeat-max-sync-age: 26h0m0s}", fmt.Sprint(config))
}
