package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// S6: a Retry-After pushes back the next attempt on its own target, by an hour at
// most, and no other.
func TestRetryAfterDelaysItsTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		code  int
		after string
		want  []time.Duration
	}{
		{429, "30", []time.Duration{0, time.Minute}},
		{429, "150", []time.Duration{0, 150 * time.Second}},
		{503, "150", []time.Duration{0, 150 * time.Second}},
		{500, "150", []time.Duration{0, time.Minute}},
		{429, "600", []time.Duration{0, 10 * time.Minute}},
		{429, "7200", []time.Duration{0, time.Hour}},
	} {
		t.Run(fmt.Sprint(row.code, " ", row.after), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var busy, other []time.Duration
				busyPinger := newPinger(t, "http://busy.example", viaFunc(func(req *http.Request) (*http.Response, error) {
					if busy = append(busy, time.Since(start)); len(busy) == 1 {
						return answerWith(req, row.code, http.Header{"Retry-After": {row.after}}, ""), nil
					}
					return answerWith(req, 200, nil, "OK"), nil
				}))
				otherPinger := heartbeat.PingerFunc(func(context.Context) error {
					other = append(other, time.Since(start))
					return nil
				})
				runFor(t, 61*time.Minute, heartbeat.MultiPinger(busyPinger, otherPinger), &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: 24 * time.Hour})
				require.Equal(t, row.want, busy[:2])
				require.Len(t, other, 13)
				for k, at := range other {
					require.Equal(t, time.Duration(k)*5*time.Minute, at)
				}
			})
		})
	}
}

// S6: a Beat does not get past a Retry-After either.
func TestRetryAfterHoldsBeat(t *testing.T) {
	t.Parallel()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	reporter := heartbeattest.NewReporter("/data/app.db")
	reporter.Set(clock.Now())
	code, pings := 429, 0
	p := newPinger(t, "http://server.example", viaFunc(func(req *http.Request) (*http.Response, error) {
		pings++
		return answerWith(req, code, http.Header{"Retry-After": {"5400"}}, ""), nil
	}))
	m, err := heartbeat.New(p, []heartbeat.SyncReporter{reporter}, &heartbeat.Options{Clock: clock, MaxSyncAge: 24 * time.Hour, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Failed, m.Beat(t.Context()).Outcome)
	code = 200
	clock.Advance(time.Hour - 1)
	result := m.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonRateLimited, result.Reason)
	require.Equal(t, 1, pings)
	clock.Advance(1)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Equal(t, 2, pings)
}

// P6, S2, S3: of three targets the second hangs until its timeout. The others are
// pinged while it does, and only it is pinged again a minute later.
func TestOneOfThreeHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		at := map[string][]time.Duration{}
		called := func(name string) (n int) {
			mu.Lock()
			defer mu.Unlock()
			at[name] = append(at[name], time.Since(start))
			return len(at[name])
		}
		first, third := make(chan struct{}), make(chan struct{})
		errNotReached := errors.New("the others were not pinged")
		p := heartbeat.MultiPinger(
			namedPing{"first", func(context.Context) error {
				if called("first") == 1 {
					close(first)
				}
				return nil
			}},
			namedPing{"second", func(ctx context.Context) error {
				if called("second") != 1 {
					return nil
				}
				for _, c := range []chan struct{}{first, third} {
					select {
					case <-c:
					case <-ctx.Done():
						return errNotReached
					}
				}
				<-ctx.Done() // the others have arrived, and this one hangs
				return ctx.Err()
			}},
			heartbeat.MultiPinger(namedPing{"third", func(context.Context) error {
				if called("third") == 1 {
					close(third)
				}
				return nil
			}}),
		)
		var results []heartbeat.Result
		lines := runFor(t, 11*time.Minute, p, &heartbeat.Options{
			Interval: 5 * time.Minute, MaxSyncAge: time.Hour, OnResult: func(r heartbeat.Result) { results = append(results, r) },
		})
		grid := []time.Duration{0, 5 * time.Minute, 10 * time.Minute}
		require.Equal(t, map[string][]time.Duration{
			"first": grid, "second": {0, time.Minute, 5 * time.Minute, 10 * time.Minute}, "third": grid,
		}, at)
		require.Len(t, results, 4)
		require.Equal(t, heartbeat.Failed, results[0].Outcome)
		require.EqualError(t, results[0].Err, "second: context deadline exceeded")
		require.ErrorIs(t, results[0].Err, context.DeadlineExceeded)
		for _, r := range results[1:] {
			require.Equal(t, heartbeat.Sent, r.Outcome)
		}
		slices.Sort(lines[:2])
		require.Equal(t, []string{ // L1: one for each check and target
			"INFO heartbeat sent url=first",
			"INFO heartbeat sent url=third",
			"ERROR heartbeat failed url=second error=context deadline exceeded",
			"INFO heartbeat sent url=second",
		}, lines[:4])
		require.Len(t, lines, 10)
	})
}

// P6, S2, S3: a pinger that blocks past its ctx holds up the checks, and so the
// beats, of the others. Nobody is pinged twice for it, and nothing overlaps.
func TestPingerBlocksPastItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var slow, quick []time.Duration
		p := heartbeat.MultiPinger(
			heartbeat.PingerFunc(func(ctx context.Context) error {
				slow = append(slow, time.Since(start))
				time.Sleep(90 * time.Second) // on the bubble's clock
				return ctx.Err()
			}),
			heartbeat.PingerFunc(func(context.Context) error {
				quick = append(quick, time.Since(start))
				return nil
			}),
		)
		runFor(t, 7*time.Minute, p, &heartbeat.Options{Interval: 5 * time.Minute, MaxSyncAge: time.Hour})
		// The grid point at 5:00 falls into the slow one's fourth attempt.
		require.Equal(t, []time.Duration{0, 6 * time.Minute}, quick)
		require.Equal(t, []time.Duration{0, 90 * time.Second, 180 * time.Second, 270 * time.Second, 360 * time.Second}, slow)
	})
}

// signalTest drives a Monitor by Beat on a fake clock.
type signalTest struct {
	*testing.T
	clock    *heartbeattest.Clock
	a, b     *heartbeattest.Reporter
	signal   *heartbeattest.Pinger
	monitor  *heartbeat.Monitor
	log      *lineLog
	reported int
}

func newSignalTest(t *testing.T) *signalTest {
	t.Helper()
	clock := heartbeattest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := &signalTest{
		T: t, clock: clock, log: &lineLog{}, signal: heartbeattest.NewPinger(clock),
		a: heartbeattest.NewReporter("a.db"), b: heartbeattest.NewReporter("b.db"),
	}
	var err error
	s.monitor, err = heartbeat.New(heartbeattest.NewPinger(clock), []heartbeat.SyncReporter{s.a}, &heartbeat.Options{
		Clock: clock, Logger: slog.New(s.log), FailPinger: namedPing{"fail", s.signal.Ping},
	})
	require.NoError(t, err)
	return s
}

// beat lets the given databases sync, makes a check two minutes later, and returns
// the log lines of it that are about the signal.
func (s *signalTest) beat(healthy bool, synced ...*heartbeattest.Reporter) (lines []string) {
	s.Helper()
	s.clock.Advance(6 * time.Minute)
	for _, r := range synced {
		r.Set(s.clock.Now())
	}
	result := s.monitor.Beat(s.Context())
	require.Equal(s, healthy, result.Outcome == heartbeat.Sent, "%+v", result)
	all := s.log.lines()
	for _, line := range all[s.reported:] {
		if strings.Contains(line, "heartbeat failure signal") {
			lines = append(lines, line)
		}
	}
	s.reported = len(all)
	return lines
}

// Failure signal: once for each outage, never at start-up.
func TestFailureSignal(t *testing.T) {
	t.Parallel()
	const sent = "INFO heartbeat failure signal sent url=fail"
	s := newSignalTest(t)
	require.Empty(t, s.beat(false), "nothing was healthy yet")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false), "once")
	require.Empty(t, s.beat(true, s.a))
	require.Equal(t, []string{sent}, s.beat(false), "a second outage")
	require.Len(t, s.signal.Times(), 2)
}

// Failure signal: a failed one is tried again at the following checks, until it is
// out or the databases have recovered.
func TestFailureSignalIsRetried(t *testing.T) {
	t.Parallel()
	const sent, failed = "INFO heartbeat failure signal sent url=fail", "ERROR heartbeat failure signal failed url=fail error=no route"
	s := newSignalTest(t)
	s.signal.Fail(errors.New("no route"))
	s.beat(true, s.a)
	require.Equal(t, []string{failed}, s.beat(false))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Equal(t, []string{sent}, s.beat(false))
	require.Empty(t, s.beat(false))

	s.beat(true, s.a)
	s.signal.Fail(errors.New("no route"))
	require.Equal(t, []string{failed}, s.beat(false))
	s.signal.Fail(nil)
	require.Empty(t, s.beat(true, s.a), "recovered")
	require.Len(t, s.signal.Times(), 4)
}

// Failure signal: a database that was added later and has never synced was never
// healthy, and so raises no alarm of its own.
func TestFailureSignalOfNewDatabase(t *testing.T) {
	t.Parallel()
	s := newSignalTest(t)
	s.beat(true, s.a)
	require.NoError(t, s.monitor.Add(s.b))
	require.Empty(t, s.beat(false, s.a), "b has never synced")
	require.Len(t, s.beat(false), 1, "a was healthy")
	require.Empty(t, s.beat(true, s.a, s.b))
	require.Len(t, s.beat(false, s.a), 1, "and now b was")
	require.True(t, s.monitor.Remove("b.db"))
	require.Empty(t, s.beat(true, s.a))
}

// Failure signal under Run: a failed one goes out again a minute later, and a
// Retry-After is minded.
func TestFailureSignalUnderRun(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		err  error
		want []time.Duration
	}{
		{errors.New("no route"), []time.Duration{5*time.Minute + 1, 6*time.Minute + 1}},
		{&heartbeat.StatusError{Code: 503, RetryAfter: 150 * time.Second}, []time.Duration{5*time.Minute + 1, 5*time.Minute + 1 + 150*time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			fail := heartbeat.PingerFunc(func(context.Context) error {
				if at = append(at, time.Since(start)); len(at) == 1 {
					return row.err
				}
				return nil
			})
			lines := runFor(t, 30*time.Minute, heartbeat.PingerFunc(func(context.Context) error { return nil }), &heartbeat.Options{FailPinger: fail})
			require.Equal(t, row.want, at)
			require.Contains(t, lines, "ERROR heartbeat failure signal failed error="+row.err.Error())
			require.Contains(t, lines, "INFO heartbeat failure signal sent")
		})
	}
}

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

	// What it does not set is the options'.
	m, err = heartbeat.Config{URL: server.URL + "/1"}.NewMonitor([]heartbeat.SyncReporter{reporter}, &opts)
	require.NoError(t, err)
	reporter.Set(clock.Now())
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	clock.Advance(time.Minute + 1)
	require.Equal(t, heartbeat.ReasonStale, m.Beat(t.Context()).Reason)
	require.Len(t, replaced.Times(), 1)
}
