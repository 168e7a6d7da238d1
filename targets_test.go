package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
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
		require.Equal(t, []time.Duration{0, 5 * time.Minute}, quick)
		require.Equal(t, []time.Duration{0, 90 * time.Second, 180 * time.Second, 270 * time.Second, 360 * time.Second}, slow)
	})
}
