package heartbeat_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// H1: healthy is synced at least once, and at most MaxSyncAge away. H2: that holds
// for the future too.
func TestH1_H2_Verdict(t *testing.T) {
	const maxAge = 7 * time.Minute
	for _, test := range []struct {
		name     string
		lastSync time.Time
		reason   heartbeat.Reason
	}{
		{"never", time.Time{}, heartbeat.ReasonNotSynced},
		{"now", epoch, ""},
		{"exactly MaxSyncAge ago", epoch.Add(-maxAge), ""},
		{"a nanosecond more", epoch.Add(-maxAge - 1), heartbeat.ReasonStale},
		{"exactly MaxSyncAge ahead", epoch.Add(maxAge), ""},
		{"a nanosecond further", epoch.Add(maxAge + 1), heartbeat.ReasonFuture},
		{"another time zone", epoch.In(time.FixedZone("", -11*3600)), ""},
		{"ancient", time.Unix(math.MinInt64>>20, 0), heartbeat.ReasonStale},
		{"distant", time.Unix(1<<55, 0), heartbeat.ReasonFuture},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, heartbeat.Options{MaxSyncAge: maxAge})
			f.reporter.Set(test.lastSync)
			want := []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: test.lastSync, Reason: test.reason}}
			status := f.Status()
			require.Equal(t, want, status.Databases)
			require.Equal(t, test.reason == "", status.Healthy)
			require.Equal(t, test.reason == "", status.Databases[0].Healthy())
			result := f.Beat(t.Context())
			require.Equal(t, test.reason, result.Reason)
			require.Equal(t, 1, result.Databases)
			if test.reason == "" {
				require.Equal(t, heartbeat.Sent, result.Outcome)
				require.Nil(t, result.Unhealthy)
				require.Len(t, f.pinger.Times(), 1)
			} else {
				require.Equal(t, heartbeat.Skipped, result.Outcome)
				require.Equal(t, want, result.Unhealthy)
				require.Empty(t, f.pinger.Times())
			}
		})
	}
}

// H1: exactly MaxSyncAge still counts, to the nanosecond, whatever part of a second a
// time has.
func TestH1_Nanoseconds(t *testing.T) {
	for _, part := range []time.Duration{1, 500 * time.Millisecond, time.Second - 1} {
		f := newFixture(t, heartbeat.Options{})
		f.reporter.Set(epoch.Add(part))
		f.clock.Advance(part + heartbeat.DefaultInterval)
		require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome, part)
		f.clock.Advance(1)
		require.Equal(t, heartbeat.ReasonStale, f.Beat(t.Context()).Reason, part)
		f.reporter.Set(f.clock.Now().Add(heartbeat.DefaultInterval))
		require.Equal(t, heartbeat.ReasonRateLimited, f.Beat(t.Context()).Reason, part)
		f.reporter.Set(f.clock.Now().Add(heartbeat.DefaultInterval + 1))
		require.Equal(t, heartbeat.ReasonFuture, f.Beat(t.Context()).Reason, part)
	}
}

// H1, F5: looks never overlap. So a Beat that has asked a Source before another found a
// new database unsynced does not ping after it.
func TestH1_OneLookAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asking, calls atomic.Int32
		var unsynced atomic.Bool
		pinger := &heartbeattest.Pinger{}
		m, err := heartbeat.New(pinger, nil, &heartbeat.Options{Logger: quiet, Source: func() []heartbeat.SyncReporter {
			dbs := []heartbeat.SyncReporter{reporterFunc{"/data/slow.db", func() time.Time {
				require.EqualValues(t, 1, asking.Add(1))
				defer asking.Add(-1)
				if calls.Add(1) == 1 {
					time.Sleep(5 * time.Second)
				}
				return time.Now()
			}}}
			if unsynced.Load() {
				dbs = append(dbs, heartbeat.NewSyncTracker("/data/new.db"))
			}
			return dbs
		}})
		require.NoError(t, err)
		first, second := make(chan heartbeat.Result, 1), make(chan heartbeat.Result, 1)
		go func() { first <- m.Beat(t.Context()) }()
		synctest.Wait() // it has asked Source, and waits for the database
		unsynced.Store(true)
		go func() { second <- m.Beat(t.Context()) }()
		time.Sleep(4 * time.Second)
		require.Empty(t, second, "the second waits for the first")
		require.Empty(t, pinger.Times())
		time.Sleep(time.Minute)
		require.Equal(t, heartbeat.Sent, (<-first).Outcome)
		require.Equal(t, heartbeat.ReasonNotSynced, (<-second).Reason)
		require.Len(t, pinger.Times(), 1)
	})
}

// H1: the zero time stays unhealthy even where everything else is fresh.
func TestH1_ZeroIsNeverFresh(t *testing.T) {
	f := newFixture(t, heartbeat.Options{MaxSyncAge: math.MaxInt64})
	f.reporter.Set(time.Time{})
	require.Equal(t, heartbeat.ReasonNotSynced, f.Beat(t.Context()).Reason)
	f.reporter.Set(time.Unix(-1<<40, 0))
	require.Equal(t, heartbeat.ReasonStale, f.Beat(t.Context()).Reason)
	f.reporter.Set(epoch.AddDate(-200, 0, 0))
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
}

// H1: on a clock that starts at the zero time, a database that has never synced is not
// fresh, however young the clock is.
func TestH1_YoungClock(t *testing.T) {
	const maxAge = 5 * time.Minute
	for _, age := range []time.Duration{0, maxAge, maxAge + 1} {
		m, err := heartbeat.New(sent, []heartbeat.SyncReporter{heartbeat.NewSyncTracker("/data/app.db")},
			&heartbeat.Options{MaxSyncAge: maxAge, Clock: &stillClock{time.Time{}.Add(age)}, Logger: quiet})
		require.NoError(t, err)
		require.Equal(t, heartbeat.ReasonNotSynced, m.Beat(t.Context()).Reason, "%v", age)
	}
}

// H3: all must be healthy, and there must be one. H4: only Remove makes one leave.
func TestH3_H4_All(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	second := heartbeattest.NewReporter("/data/users.db")
	require.NoError(t, f.Add(second))
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonNotSynced, result.Reason)
	require.Equal(t, 2, result.Databases)

	require.True(t, f.Remove("/data/users.db"))
	require.False(t, f.Remove("/data/users.db"))
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)

	require.True(t, f.Remove("/data/app.db"))
	f.clock.Advance(time.Hour)
	f.log.take()
	result = f.Beat(t.Context())
	require.Equal(t, heartbeat.Result{Time: f.clock.Now(), Outcome: heartbeat.Skipped, Reason: heartbeat.ReasonNoDatabases}, result)
	require.Equal(t, "level=WARN msg=\"heartbeat skipped\" reason=\"no databases\"\n", f.log.take())
	status := f.Status()
	require.False(t, status.Healthy)
	require.Empty(t, status.Databases)
	require.Len(t, f.pinger.Times(), 1)

	require.NoError(t, f.Add(second), "a removed path is free again")
	second.Set(f.clock.Now())
	require.Equal(t, heartbeat.Sent, f.Beat(t.Context()).Outcome)
}

// H5: a panic is one database's bad health, told in one line.
func TestH5_Panic(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	require.NoError(t, f.Add(&panicReporter{"/data/broken.db", "index out of range"}))
	require.NoError(t, f.Add((*panicReporter)(nil)))
	late := heartbeattest.NewReporter("/data/late.db")
	require.NoError(t, f.Add(late))
	late.Set(epoch.Add(-time.Hour))

	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Skipped, result.Outcome)
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	require.Equal(t, 4, result.Databases)
	require.Equal(t, []heartbeat.DatabaseStatus{
		{Path: "/data/broken.db", Reason: heartbeat.ReasonPanicked},
		{Path: "*heartbeat_test.panicReporter", Reason: heartbeat.ReasonPanicked},
		{Path: "/data/late.db", LastSyncAt: epoch.Add(-time.Hour), Reason: heartbeat.ReasonStale},
	}, result.Unhealthy)
	require.Equal(t, `level=ERROR msg="sync reporter panicked" db=/data/broken.db panic="index out of range"
level=WARN msg="heartbeat skipped" reason="sync reporter panicked" db=/data/broken.db unhealthy=3 databases=4
level=ERROR msg="sync reporter panicked" db=*heartbeat_test.panicReporter panic="runtime error: invalid memory address or nil pointer dereference"
level=DEBUG msg="heartbeat skipped" reason="sync reporter panicked" db=*heartbeat_test.panicReporter
level=DEBUG msg="heartbeat skipped" reason="last sync too old" db=/data/late.db last_sync=2025-12-31T23:00:00.000Z age=1h0m0s max=5m0s
`, f.log.take())
	require.Len(t, f.Status().Databases, 4)
	require.Empty(t, f.log.take(), "Status does not log")
}

// H1: no ping leaves on a verdict that a blocking reporter has made old.
func TestH1_VerdictIsNotOld(t *testing.T) {
	for _, test := range []struct {
		blocked time.Duration
		outcome heartbeat.Outcome
	}{{10 * time.Minute, heartbeat.Skipped}, {4 * time.Minute, heartbeat.Sent}} {
		synctest.Test(t, func(t *testing.T) {
			db := heartbeat.NewSyncTracker("/data/app.db")
			db.Record(time.Now())
			block := test.blocked
			m, err := heartbeat.New(&heartbeattest.Pinger{}, []heartbeat.SyncReporter{db, reporterFunc{"/data/slow.db", func() time.Time {
				at := time.Now()
				time.Sleep(block)
				block = 0
				return at
			}}}, &heartbeat.Options{Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, test.outcome, m.Beat(t.Context()).Outcome)
		})
	}
}

func TestAddRemove_KeepsOrder(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	for i := range 100 {
		require.NoError(t, f.Add(heartbeat.NewSyncTracker(fmt.Sprint(i))))
	}
	var want []string
	want = append(want, "/data/app.db")
	for i := range 100 {
		if i%7 == 0 {
			want = append(want, fmt.Sprint(i))
		} else {
			require.True(t, f.Remove(fmt.Sprint(i)))
			require.Len(t, f.Status().Databases, len(want)+99-i, "each Remove is seen by the next check")
		}
	}
	require.ErrorIs(t, f.Add(heartbeat.NewSyncTracker("49")), heartbeat.ErrDuplicatePath)
	require.NoError(t, f.Add(heartbeat.NewSyncTracker("last")))
	want = append(want, "last")
	var paths []string
	for _, db := range f.Status().Databases {
		paths = append(paths, db.Path)
	}
	require.Equal(t, want, paths)
	require.Equal(t, len(want), f.Beat(t.Context()).Databases)
}

// A database that was removed is not kept alive, also if nobody looks.
func TestAddRemove_WithoutLooks(t *testing.T) {
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	change := func(path string) weak.Pointer[heartbeat.SyncTracker] {
		db := heartbeat.NewSyncTracker(path)
		require.NoError(t, m.Add(db))
		require.True(t, m.Remove(path))
		return weak.Make(db)
	}
	gone := change("first")
	change("second")
	change("third")
	runtime.GC()
	require.Nil(t, gone.Value())
	require.Empty(t, m.Status().Databases) // m is alive until here
}

// A check that is under way keeps the set it began with.
func TestAddRemove_DuringCheck(t *testing.T) {
	var m *heartbeat.Monitor
	calls := 0
	reporter := reporterFunc{"/data/first.db", func() time.Time {
		calls++
		if calls == 1 {
			require.True(t, m.Remove("/data/second.db"))
			require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/third.db")))
		}
		return time.Now()
	}}
	m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return nil }),
		[]heartbeat.SyncReporter{reporter, heartbeat.NewSyncTracker("/data/second.db")}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/second.db", Reason: heartbeat.ReasonNotSynced}}, m.Beat(t.Context()).Unhealthy)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/third.db", Reason: heartbeat.ReasonNotSynced}}, m.Beat(t.Context()).Unhealthy)
}

func TestSyncTracker(t *testing.T) {
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	require.Equal(t, "/data/app.db", tracker.Path())
	require.Zero(t, tracker.LastSuccessfulSyncAt())
	tracker.Record(epoch)
	tracker.Record(epoch.Add(-time.Hour))
	require.Equal(t, epoch.Add(-time.Hour), tracker.LastSuccessfulSyncAt(), "the latest call counts")
	tracker.Record(time.Time{})
	require.Zero(t, tracker.LastSuccessfulSyncAt())
}

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
	f.Add(now, int64(math.MaxInt64)%int64(time.Second), now-math.MaxInt64/int64(time.Second), int64(0), int64(math.MaxInt64), int64(0), false)
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

		// The model. The largest Duration stands for all that is longer, so an age of that
		// is too old.
		want := !at.IsZero() && age.Cmp(big.NewInt(min(maxAge, math.MaxInt64-1))) <= 0
		require.Equal(t, want, verdict.Healthy(), "now %v, last sync %v, MaxSyncAge %v: %q", now, at, time.Duration(maxAge), verdict.Reason)
		require.Equal(t, at.IsZero(), verdict.Reason == heartbeat.ReasonNotSynced)

		// Monotone: what is further away on the same side is no healthier.
		if further := at.Add(at.Sub(now) / 2); !monotonic && !at.IsZero() && !verdict.Healthy() && !further.IsZero() {
			require.False(t, judge(further).Healthy(), "now %v, last sync %v, or further away %v", now, at, further)
		}
	})
}

func inRange(t time.Time) bool { return t.Year() > 1885 && t.Year() < 2157 }

func TestFault_Reporters(t *testing.T) {
	now := withMonotonic(epoch, time.Hour)
	const age = heartbeat.DefaultInterval
	swings := 0
	for name, test := range map[string]struct {
		at   func() time.Time
		want heartbeat.Reason
	}{
		"zero":                        {func() time.Time { return time.Time{} }, heartbeat.ReasonNotSynced},
		"zero, elsewhere":             {func() time.Time { return time.Time{}.In(time.FixedZone("", 3600)) }, heartbeat.ReasonNotSynced},
		"zero of Unix":                {func() time.Time { return time.Unix(0, 0) }, heartbeat.ReasonStale},
		"a nanosecond after zero":     {func() time.Time { return time.Time{}.Add(1) }, heartbeat.ReasonStale},
		"before zero":                 {func() time.Time { return time.Time{}.Add(-time.Hour) }, heartbeat.ReasonStale},
		"least":                       {func() time.Time { return time.Unix(math.MinInt64, 0) }, ""}, // see below
		"greatest":                    {func() time.Time { return time.Unix(math.MaxInt64, 999999999) }, ""},
		"ancient":                     {func() time.Time { return time.Unix(-1<<60, 0) }, heartbeat.ReasonStale},
		"far future":                  {func() time.Time { return time.Unix(1<<60, 0) }, heartbeat.ReasonFuture},
		"now":                         {func() time.Time { return now }, ""},
		"without a monotonic reading": {func() time.Time { return now.Round(0) }, ""},
		"elsewhere":                   {func() time.Time { return now.In(time.FixedZone("", -11*3600)) }, ""},
		"oldest":                      {func() time.Time { return now.Add(-age) }, ""},
		"too old":                     {func() time.Time { return now.Add(-age - 1) }, heartbeat.ReasonStale},
		"newest":                      {func() time.Time { return now.Add(age) }, ""},
		"too new":                     {func() time.Time { return now.Add(age + 1) }, heartbeat.ReasonFuture},
		"old by the wall clock":       {func() time.Time { return withMonotonic(epoch.Add(-age-1), time.Hour) }, heartbeat.ReasonStale},
		"old by the monotonic clock":  {func() time.Time { return withMonotonic(epoch, time.Hour-age-1) }, heartbeat.ReasonStale},
		"new by the wall clock":       {func() time.Time { return withMonotonic(epoch.Add(age+1), time.Hour) }, heartbeat.ReasonFuture},
		"new by the monotonic clock":  {func() time.Time { return withMonotonic(epoch, time.Hour+age+1) }, heartbeat.ReasonFuture},
		"back and forth": {func() time.Time {
			swings++
			return now.Add(time.Duration(swings%2*2-1) * time.Hour)
		}, heartbeat.ReasonFuture},
		"panic":     {func() time.Time { panic(errors.New("closed")) }, heartbeat.ReasonPanicked},
		"nil panic": {func() time.Time { panic(nil) }, heartbeat.ReasonPanicked},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "least" || name == "greatest" { // time.Unix wraps around: whatever these are, they are not now
				test.want = heartbeat.ReasonFuture
				if test.at().Before(now) {
					test.want = heartbeat.ReasonStale
				}
			}
			clock := &stillClock{now}
			pinger := heartbeattest.NewPinger(clock)
			good := heartbeat.NewSyncTracker("/data/good.db")
			good.Record(now)
			monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{good, reporterFunc{"/data/app.db", test.at}, (*panicReporter)(nil)},
				&heartbeat.Options{Clock: clock, Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, heartbeat.ReasonPanicked, monitor.Beat(t.Context()).Unhealthy[min(1, len(test.want))].Reason, "a typed nil")
			require.True(t, monitor.Remove("*heartbeat_test.panicReporter"))
			swings = 0
			result := monitor.Beat(t.Context())
			require.Equal(t, test.want, result.Reason)
			swings = 0
			require.Equal(t, test.want, monitor.Status().Databases[1].Reason)
			if test.want != "" {
				require.Empty(t, pinger.Times())
			} else {
				require.Equal(t, heartbeat.Sent, result.Outcome)
			}
		})
	}
}

func TestFault_BlockingReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		monitor, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), []heartbeat.SyncReporter{reporterFunc{"/data/slow.db", func() time.Time {
			time.Sleep(15 * time.Second) // and asked again, since its answer may be too old
			return time.Now()
		}}}, &heartbeat.Options{Interval: time.Minute, Logger: quiet})
		require.NoError(t, err)
		stop := run(t, monitor)
		time.Sleep(10 * time.Second) // into the first check
		require.NoError(t, monitor.Add(alwaysFresh{}))
		require.True(t, monitor.Remove(alwaysFresh{}.Path()))
		require.Equal(t, 10*time.Second, time.Since(start), "neither waits for the reporter")
		time.Sleep(4 * time.Minute)
		stop()
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], time.Minute, "%v", at)
			require.LessOrEqual(t, at[i]-at[i-1], 2*time.Minute, "%v", at)
		}
		require.GreaterOrEqual(t, len(at), 3, "%v", at)
	})
}

func TestFault_SetChangesDuringCheck(t *testing.T) {
	f := newFixture(t, heartbeat.Options{})
	calls := 0
	changing := reporterFunc{"/data/changing.db", func() time.Time {
		calls++
		for i := range 10 { // changes what is being read
			path := fmt.Sprint("/data/new", calls, i)
			require.NoError(t, f.Add(reporterFunc{path, func() time.Time { panic("not of this check") }}))
			require.True(t, f.Remove(path))
		}
		require.True(t, f.Remove(f.reporter.Path())) // has been judged already
		require.NoError(t, f.Add(f.reporter))
		return epoch
	}}
	require.NoError(t, f.Add(changing))
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.Sent, result.Outcome)
	require.Equal(t, 2, result.Databases, "of when the check began")
}

// H1: no ping leaves on a verdict that many blocking reporters have made old: what
// they said is judged by the time at the end.
func TestH1_ManyBlockingReporters(t *testing.T) {
	for _, row := range []struct {
		maxAge time.Duration
		want   heartbeat.Outcome
	}{{2 * time.Minute, heartbeat.Sent}, {40 * time.Second, heartbeat.Skipped}} {
		synctest.Test(t, func(t *testing.T) {
			var reporters []heartbeat.SyncReporter
			for i := range 10 {
				reporters = append(reporters, reporterFunc{fmt.Sprint(i), func() time.Time {
					time.Sleep(5 * time.Second)
					return time.Now()
				}})
			}
			m, err := heartbeat.New(sent, reporters, &heartbeat.Options{MaxSyncAge: row.maxAge, Logger: quiet})
			require.NoError(t, err)
			require.Equal(t, row.want, m.Beat(t.Context()).Outcome)
		})
	}
}

// H5: panic(nil) is a panic too where a program allows it.
func TestH5_PanicNil(t *testing.T) {
	t.Setenv("GODEBUG", "panicnil=1")
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { panic(nil) }})
	require.NoError(t, f.Add(reporterFunc{"/data/broken.db", func() time.Time { panic(nil) }}))
	result := f.Beat(t.Context())
	require.Len(t, result.Unhealthy, 2)
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
}

// H4: a Source's databases are judged beside those that were added, and are in "all"
// for as long as it names them.
func TestH4_Source(t *testing.T) {
	second := heartbeattest.NewReporter("/data/users.db")
	second.Set(epoch)
	var named []heartbeat.SyncReporter
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { return named }})
	beat := func() heartbeat.Result {
		f.clock.Advance(time.Minute)
		return f.Beat(t.Context())
	}
	require.Equal(t, 1, beat().Databases)
	named = []heartbeat.SyncReporter{second}
	result := beat()
	require.Equal(t, 2, result.Databases)
	require.Equal(t, heartbeat.Sent, result.Outcome)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "/data/app.db", LastSyncAt: epoch}, {Path: "/data/users.db", LastSyncAt: epoch}}, f.Status().Databases)

	stale := heartbeattest.NewReporter("/data/app.db") // the path of one that was added
	named = []heartbeat.SyncReporter{second, stale, stale}
	result = beat()
	require.Equal(t, 4, result.Databases, "two with one path are both judged")
	require.Len(t, result.Unhealthy, 2)

	require.True(t, f.Remove("/data/app.db"))
	require.False(t, f.Remove("/data/users.db"), "it is not the Monitor's to remove")
	named = nil
	require.Equal(t, heartbeat.ReasonNoDatabases, beat().Reason)
	require.False(t, f.Status().Healthy)
}

// H4, H5: a Source that panics, or returns a nil, is an unhealthy check. The log says
// which it was, and what was added is judged all the same.
func TestH4_SourceMisbehaves(t *testing.T) {
	source := func() []heartbeat.SyncReporter { panic("closed") }
	f := newFixture(t, heartbeat.Options{Source: func() []heartbeat.SyncReporter { return source() }})
	result := f.Beat(t.Context())
	require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	require.Equal(t, []heartbeat.DatabaseStatus{{Path: "Options.Source", Reason: heartbeat.ReasonPanicked}}, result.Unhealthy)
	require.Equal(t, "level=ERROR msg=\"sync reporter panicked\" db=Options.Source panic=closed\n"+
		"level=WARN msg=\"heartbeat skipped\" reason=\"sync reporter panicked\" db=Options.Source\n", f.log.take())
	status := f.Status()
	require.False(t, status.Healthy)
	require.Len(t, status.Databases, 2)

	for _, bad := range []heartbeat.SyncReporter{nil, (*panicReporter)(nil)} {
		source = func() []heartbeat.SyncReporter { return []heartbeat.SyncReporter{f.reporter, bad} }
		result = f.Beat(t.Context())
		require.Equal(t, 3, result.Databases)
		require.Len(t, result.Unhealthy, 1)
		require.Equal(t, heartbeat.ReasonPanicked, result.Reason)
	}
	require.Empty(t, f.pinger.Times())
}

// A Source may call back, and may block without holding up anything but its check.
func TestH4_SourceCallsBack(t *testing.T) {
	var m *heartbeat.Monitor
	calls := 0
	source := func() []heartbeat.SyncReporter {
		if calls++; calls == 1 {
			m.Status()
			require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/new.db")))
			require.True(t, m.Remove("/data/new.db"))
		}
		return []heartbeat.SyncReporter{alwaysFresh{}}
	}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet, Source: source})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)

	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		m, err := heartbeat.New(heartbeat.PingerFunc(func(context.Context) error {
			at = append(at, time.Since(start))
			return nil
		}), nil, &heartbeat.Options{Logger: quiet, Interval: time.Minute, Source: func() []heartbeat.SyncReporter {
			time.Sleep(40 * time.Second)
			return []heartbeat.SyncReporter{alwaysFresh{}}
		}})
		require.NoError(t, err)
		stop := run(t, m)
		time.Sleep(20 * time.Second)
		require.NoError(t, m.Add(heartbeat.NewSyncTracker("/data/new.db")))
		require.True(t, m.Remove("/data/new.db"))
		require.Equal(t, 20*time.Second, time.Since(start))
		time.Sleep(4 * time.Minute)
		stop()
		require.Equal(t, seconds(40, 140, 240), at[:3], "the minute counts from when a ping went out")
	})
}

// A set that changes at every check, from a hundred goroutines, is judged as it was at
// one moment.
func TestH4_SourceUnderLoad(t *testing.T) {
	var mu sync.Mutex
	enabled := map[string]heartbeat.SyncReporter{}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet, FailPinger: heartbeattest.NewPinger(&stillClock{}), Source: func() []heartbeat.SyncReporter {
		mu.Lock()
		defer mu.Unlock()
		var named []heartbeat.SyncReporter
		for _, r := range enabled {
			named = append(named, r)
		}
		return named
	}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 100 {
		wg.Go(func() {
			path := fmt.Sprint("/data/", i)
			for range 20 {
				mu.Lock()
				enabled[path] = reporterFunc{path, time.Now}
				mu.Unlock()
				if m.Beat(t.Context()).Unhealthy != nil {
					wrong.Add(1)
				}
				mu.Lock()
				delete(enabled, path)
				mu.Unlock()
				m.Status()
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
	require.Empty(t, m.Status().Databases)
}

// A Source costs no allocation beyond its own.
func TestH4_SourceAllocates(t *testing.T) {
	named := make([]heartbeat.SyncReporter, 100)
	for i := range named {
		reporter := heartbeattest.NewReporter(fmt.Sprint("/data/", i))
		reporter.Set(epoch)
		named[i] = reporter
	}
	m, err := heartbeat.New(sent, nil, &heartbeat.Options{
		Logger: quiet, Clock: &stillClock{epoch}, FailPinger: &heartbeattest.Pinger{},
		Source: func() []heartbeat.SyncReporter { return named },
	})
	require.NoError(t, err)
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Beat(t.Context()) }))
}

// A reporter that ends its goroutine leaves the Monitor usable.
func TestH5_GoexitInALook(t *testing.T) {
	t.Parallel()
	n := 0
	m, err := heartbeat.New(sent, []heartbeat.SyncReporter{reporterFunc{"/data/app.db", func() time.Time {
		if n++; n == 1 {
			runtime.Goexit()
		}
		return time.Now()
	}}}, &heartbeat.Options{Logger: quiet})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Beat(t.Context())
	}()
	<-done
	require.Equal(t, heartbeat.Sent, m.Beat(t.Context()).Outcome)
}
