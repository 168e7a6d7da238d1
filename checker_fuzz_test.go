package heartbeat_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// distance is how far a and b are apart by the wall clock, in nanoseconds, where
// a time.Duration may not hold it.
func distance(a, b time.Time) *big.Int {
	seconds := new(big.Int).Sub(big.NewInt(a.Unix()), big.NewInt(b.Unix()))
	d := seconds.Mul(seconds, big.NewInt(1e9))
	d.Add(d, big.NewInt(int64(a.Nanosecond()-b.Nanosecond())))
	return d.Abs(d)
}

// FuzzVerdict judges a database whose last sync is anywhere, by a clock that
// stands anywhere and, with monotonic, tells another time by its other reading.
func FuzzVerdict(f *testing.F) {
	const minute = int64(time.Minute)
	now := epoch.Unix()
	f.Add(now, int64(0), now, int64(0), 5*minute, int64(0), false)
	f.Add(now, int64(0), now-300, int64(0), 5*minute, int64(0), false)
	f.Add(now, int64(0), now-301, int64(999_999_999), 5*minute, int64(0), false)
	f.Add(now, int64(0), now+300, int64(1), 5*minute, int64(0), false)
	f.Add(now, int64(0), now, int64(0), 5*minute, 5*minute, true)
	f.Add(now, int64(0), now, int64(0), 5*minute, 5*minute+1, true)
	f.Add(now, int64(0), now, int64(0), 5*minute, -5*minute-1, true)
	f.Add(now, int64(0), time.Time{}.Unix(), int64(0), int64(math.MaxInt64), int64(0), false)
	f.Add(time.Time{}.Unix()+60, int64(0), time.Time{}.Unix(), int64(0), 5*minute, int64(0), false)
	f.Add(now, int64(0), now-math.MaxInt64/int64(time.Second), int64(0), int64(math.MaxInt64), int64(0), true)
	f.Add(now, int64(0), now+math.MaxInt64/int64(time.Second)+1, int64(0), int64(math.MaxInt64), int64(0), true)
	f.Add(int64(1)<<60, int64(0), -int64(1)<<60, int64(0), minute, int64(0), false)
	f.Add(now, int64(0), now-1, int64(0), int64(1), int64(0), false)

	// Beyond the limit, time.Time itself wraps around. In the first minute of all
	// time, a Monitor's first Beat is rate-limited.
	const limit = 1 << 61
	first := time.Time{}.Unix() + 60
	f.Fuzz(func(t *testing.T, nowSec, nowNano, atSec, atNano, maxAge, drift int64, monotonic bool) {
		if maxAge <= 0 || nowSec < first || nowSec > limit || atSec < -limit || atSec > limit {
			t.Skip()
		}
		now, at := time.Unix(nowSec, nowNano&math.MaxInt64%int64(time.Second)), time.Unix(atSec, atNano&math.MaxInt64%int64(time.Second))
		if at.Unix() == (time.Time{}).Unix() && at.Nanosecond() == 0 {
			at = time.Time{}
		}
		// A reading exists for the years 1885 to 2157 only; now's is an hour.
		monotonic = monotonic && inRange(now) && inRange(at) && drift > math.MinInt64+int64(time.Hour)
		age := distance(now, at)
		if monotonic {
			now, at = withMonotonic(now, time.Hour), withMonotonic(at, time.Hour-time.Duration(drift))
			if other := new(big.Int).Abs(big.NewInt(drift)); other.Cmp(age) > 0 {
				age = other
			}
		}

		judge := func(at time.Time) heartbeat.DatabaseStatus {
			clock := &stillClock{now}
			pinger := heartbeattest.NewPinger(clock)
			reporter := heartbeattest.NewReporter("/data/app.db")
			reporter.Set(at)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{reporter},
				&heartbeat.Options{MaxSyncAge: time.Duration(maxAge), Clock: clock, Logger: quiet})
			require.NoError(t, err)
			status := monitor.Status()
			result := monitor.Beat(t.Context())
			require.Equal(t, status.Healthy, len(pinger.Times()) == 1, "Beat agrees with Status")
			require.Equal(t, status.Healthy, result.Outcome == heartbeat.Sent)
			require.Equal(t, status.Databases[0].Reason, result.Reason)
			return status.Databases[0]
		}
		verdict := judge(at)

		// The model.
		want := !at.IsZero() && age.Cmp(big.NewInt(maxAge)) <= 0
		require.Equal(t, want, verdict.Healthy(), "now %v, last sync %v, MaxSyncAge %v: %q", now, at, time.Duration(maxAge), verdict.Reason)
		require.Equal(t, at.IsZero(), verdict.Reason == heartbeat.ReasonNotSynced)

		// Monotone: what is further away on the same side is no healthier.
		if further := at.Add(at.Sub(now) / 2); !monotonic && !at.IsZero() && !verdict.Healthy() && !further.IsZero() {
			require.False(t, judge(further).Healthy(), "now %v, last sync %v, or further away %v", now, at, further)
		}
	})
}

func inRange(t time.Time) bool { return t.Year() > 1885 && t.Year() < 2157 }
