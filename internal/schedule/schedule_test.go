package schedule

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func newSchedule(interval time.Duration, beats, signals int) *Schedule {
	return New(Settings{Interval: interval, Spacing: time.Minute, MaxSyncAge: interval, Beats: beats, Signals: signals})
}

// look tells a verdict: one that is not healthy is a loss.
func look(s *Schedule, at time.Duration, healthy bool, action Action) Plan {
	return s.Decide(start.Add(at), Verdict{Healthy: healthy, Lost: !healthy, Fresh: time.Hour}, action)
}

func next(s *Schedule, at time.Duration) (Action, time.Duration) {
	action, wake := s.Next(start.Add(at))
	return action, wake.Sub(start)
}

func requireWait(t *testing.T, s *Schedule, at, until time.Duration) {
	t.Helper()
	action, wake := next(s, at)
	require.Equal(t, Wait, action)
	require.Equal(t, until, wake)
}

func settle(s *Schedule, at time.Duration, plan Plan, o Outcome) (is Settlement) {
	for _, a := range plan.Attempts {
		is = s.Settle(start.Add(at), a, o)
	}
	return is
}

// S1, S4: the grid is start + k·interval; points that passed meanwhile are dropped.
func TestS1_S4_Grid(t *testing.T) {
	s := newSchedule(5*time.Minute, 1, 0)
	s.Start(start)
	for _, step := range []struct{ at, next time.Duration }{
		{0, 5 * time.Minute}, {5*time.Minute + 17*time.Second, 10 * time.Minute}, {33 * time.Minute, 35 * time.Minute}, {35 * time.Minute, 40 * time.Minute},
	} {
		action, _ := next(s, step.at)
		require.Equal(t, Check, action)
		plan := look(s, step.at, true, Check)
		require.Len(t, plan.Attempts, 1)
		settle(s, step.at, plan, Outcome{Sent: true})
		requireWait(t, s, step.at, step.next)
	}
}

// S7: a jump that is longer than a Duration can say begins a new grid.
func TestS7_Centuries(t *testing.T) {
	s := newSchedule(5*time.Minute, 1, 0)
	s.Start(time.Time{})
	far := time.Time{}.AddDate(2000, 0, 0)
	action, _ := s.Next(far)
	require.Equal(t, Check, action)
	plan := s.Decide(far, Verdict{Healthy: true}, Check)
	s.Settle(far, plan.Attempts[0], Outcome{Sent: true})
	action, wake := s.Next(far)
	require.Equal(t, Wait, action)
	require.Equal(t, 5*time.Minute, wake.Sub(far))
}

// S3, S7: a reading that is less than the spacing out of order is no clock that was set
// back; one of the spacing is. Then what was left to wait is waited for in full.
func TestS3_S7_Back(t *testing.T) {
	for _, back := range []time.Duration{time.Minute - 1, time.Minute, 3 * time.Hour} {
		s := newSchedule(5*time.Minute, 1, 0)
		now := 30 * time.Minute
		settle(s, now, look(s, now, true, Beat), Outcome{RetryAfter: 2 * time.Minute})
		require.Empty(t, look(s, now-back, true, Beat).Attempts)
		left := 2 * time.Minute // on the clock that goes on from there
		if back < time.Minute {
			left += back
		}
		require.Empty(t, look(s, now-back+left-1, true, Beat).Attempts)
		require.Len(t, look(s, now-back+left, true, Beat).Attempts, 1)
	}
}

// S6: a Retry-After is minded for an hour at most, and none is no limit.
func TestS6_RetryAfter(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Minute, 90 * time.Second: 90 * time.Second, 9 * time.Hour: time.Hour} {
		s := newSchedule(24*time.Hour, 1, 0)
		s.Start(start)
		require.Equal(t, Settlement{true, want}, settle(s, 0, look(s, 0, true, Check), Outcome{RetryAfter: asked}))
		requireWait(t, s, 0, want)
	}
}

// L1: of a beat's failures the first is told apart, and those of Beats all are. A try
// that ends after the next grid point is no second one, and one that was cut is none.
func TestL1_FirstFailure(t *testing.T) {
	s := newSchedule(2*time.Minute, 1, 0)
	fails := func(at time.Duration, action Action) bool {
		plan := look(s, at, true, action)
		require.Len(t, plan.Attempts, 1)
		return settle(s, at, plan, Outcome{}).FirstFailure
	}
	require.True(t, fails(0, Beat))
	require.True(t, fails(time.Minute, Beat))
	s.Start(start.Add(2 * time.Minute))
	plan := look(s, 2*time.Minute, true, Check)
	require.False(t, settle(s, 2*time.Minute, plan, Outcome{Cut: true, NotSent: true}).FirstFailure)
	require.True(t, fails(2*time.Minute+RetryPause, Check))
	plan = look(s, 3*time.Minute+RetryPause, true, Check)
	require.False(t, settle(s, 4*time.Minute, plan, Outcome{}).FirstFailure, "of the beat before")
	require.True(t, fails(4*time.Minute+RetryPause, Check), "of the next beat")
}

// F1: a check within a second of the limit serves as well.
func TestF1_BesideACheck(t *testing.T) {
	for fresh, want := range map[time.Duration]time.Duration{
		298 * time.Second: 298*time.Second + 1, 299*time.Second - 2: 299*time.Second - 1, 299*time.Second - 1: 300 * time.Second, time.Hour: 300 * time.Second,
	} {
		s := newSchedule(5*time.Minute, 1, 1)
		s.Start(start)
		settle(s, 0, s.Decide(start, Verdict{Healthy: true, Fresh: fresh}, Check), Outcome{Sent: true})
		requireWait(t, s, 0, want)
	}
}

// F5: before a signal is reserved, beats in flight are cut. So are those
// that were given up. Unless such a beat was answered, or is proven not to have left,
// the signal is made once more a spacing later.
func TestF5_Exclusion(t *testing.T) {
	for _, row := range []struct {
		name  string
		beat  *Outcome // nil: it is still in flight
		again bool
	}{
		{"in flight", nil, true},
		{"cut", &Outcome{Cut: true}, true},
		{"cut before it left", &Outcome{Cut: true, NotSent: true}, false},
		{"answered in time", &Outcome{Sent: true}, false},
		{"failed in time", &Outcome{}, false},
		{"given up", &Outcome{GaveUp: true}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSchedule(10*time.Minute, 1, 1)
			s.Start(start)
			beat := look(s, 0, true, Check)
			signal := look(s, 5*time.Second, false, Peek)
			require.True(t, signal.Cut)
			require.Empty(t, signal.Attempts)
			if row.beat != nil {
				settle(s, 6*time.Second, beat, *row.beat)
			}
			s.Reserve(start.Add(6*time.Second), &signal)
			require.Len(t, signal.Attempts, 1)
			settle(s, 7*time.Second, signal, Outcome{Sent: true})
			if row.beat == nil {
				settle(s, 8*time.Second, beat, Outcome{Sent: true})
				require.True(t, s.beats.targets[0].owed, "a beat from before an outage pays none of its debts")
			}
			plan := look(s, 66*time.Second-1, false, Check)
			require.Empty(t, plan.Attempts)
			plan = look(s, 66*time.Second, false, Check)
			require.Equal(t, row.again, len(plan.Attempts) == 1)
			settle(s, 67*time.Second, plan, Outcome{Sent: true})
			require.Empty(t, look(s, 5*time.Minute, false, Check).Attempts, "no third")
		})
	}
}

// S7: a jump makes a beat owed at once, and the grid stays. Only one of ten seconds is
// seen; a timer that is late is one on the system's clock only.
func TestS7_Jump(t *testing.T) {
	wall := time.Now() // with a monotonic reading
	for late, jumps := range map[time.Duration]int{RetryPause - 1: 0, RetryPause: 1, 40 * time.Minute: 1} {
		for _, system := range []bool{false, true} {
			s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: 2 * time.Hour, Beats: 1, Signals: 1, SystemClock: system})
			s.Start(wall)
			plan := s.Decide(wall, Verdict{Healthy: true, Fresh: 2 * time.Hour}, Check)
			s.Settle(wall, plan.Attempts[0], Outcome{Sent: true})
			_, wake := s.Next(wall)
			if system {
				require.Equal(t, maxWait, wake.Sub(wall))
			} else {
				require.Equal(t, time.Hour, wake.Sub(wall))
				wake = wall.Add(maxWait)
			}
			now := wake.Add(late)
			action, _ := s.Next(now)
			if !system || jumps == 0 {
				require.Equal(t, Wait, action)
				requireElapsed(t, s, now, time.Hour, time.Hour, never)
				continue
			}
			require.Equal(t, Check, action)
			requireElapsed(t, s, now, time.Hour, time.Hour-late, 2*time.Hour)
			requireElapsed(t, s, now, 0, 0, never)
			plan = s.Decide(now, Verdict{Healthy: true, Fresh: 2 * time.Hour}, Check)
			s.Settle(now, plan.Attempts[0], Outcome{Sent: true})
			for at := now; ; {
				action, wake := s.Next(at)
				if action == Check {
					require.Equal(t, time.Hour, at.Sub(wall), "the grid stays")
					break
				}
				at = wake
			}
			requireElapsed(t, s, now.Add(2*time.Hour), 2*time.Hour, 2*time.Hour, never)
			requireElapsed(t, s, now.Add(2*time.Hour), 2*time.Hour+1, 2*time.Hour+1-late, 0)
			requireElapsed(t, s, now.Add(2*time.Hour+1), 3*time.Hour, 3*time.Hour, never) // nothing that counts is older
		}
	}
}

const never = math.MaxInt64

// requireElapsed asks for the time to sync since so long ago.
func requireElapsed(t *testing.T, s *Schedule, now time.Time, ago, want, wantKnown time.Duration) {
	t.Helper()
	elapsed, known := s.Elapsed(now, now.Add(-ago))
	require.Equal(t, want, elapsed)
	require.Equal(t, wantKnown, known)
}

// S7: jumps that come again and again are remembered as long as a sync may be older
// than they are, in the time that did not jump; the oldest become one.
func TestS7_ManyJumps(t *testing.T) {
	for _, maxSyncAge := range []time.Duration{time.Hour, 1000 * time.Hour} {
		s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: maxSyncAge, Beats: 1, Signals: 1, SystemClock: true})
		s.Start(start)
		now := start
		sum := func() time.Duration {
			elapsed, _ := s.Elapsed(now, start)
			return now.Sub(start) - elapsed
		}
		for n := 1; n <= 10*maxJumps; n++ {
			plan := s.Decide(now, Verdict{Healthy: true, Fresh: time.Hour}, Check)
			for _, a := range plan.Attempts {
				s.Settle(now, a, Outcome{Sent: true})
			}
			_, wake := s.Next(now)
			now = wake.Add(20 * time.Second)
			s.Next(now)
			require.LessOrEqual(t, sum(), time.Duration(n)*20*time.Second)
			require.LessOrEqual(t, len(s.jumps), maxJumps)
		}
		if maxSyncAge == time.Hour {
			require.Less(t, sum(), 2*time.Hour, "what is past is forgotten")
		} else {
			require.Equal(t, 10*maxJumps*20*time.Second, sum(), "nothing is past")
			require.Len(t, s.jumps, maxJumps)
		}
	}
}

// S7: a suspend is seen on the system's clock too, though no timer was late by the monotonic
// clock, which stood still.
func TestS7_Suspend(t *testing.T) {
	reading := func(asleep, awake time.Duration) time.Time {
		return withMonotonic(start.Add(asleep+awake), time.Second+awake)
	}
	s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: time.Hour, Beats: 1, Signals: 1, SystemClock: true})
	s.Start(reading(0, 0))
	plan := s.Decide(reading(0, 0), Verdict{Healthy: true, Fresh: time.Hour}, Check)
	s.Settle(reading(0, 0), plan.Attempts[0], Outcome{Sent: true})
	action, wake := s.Next(reading(0, 0))
	require.Equal(t, Wait, action)
	now := reading(40*time.Minute, wake.Sub(reading(0, 0)))
	action, _ = s.Next(now)
	require.Equal(t, Check, action)
	requireElapsed(t, s, now, time.Hour, 20*time.Minute, time.Hour)
}

// withMonotonic returns wall with that monotonic reading. The fields are those of time.Time.
func withMonotonic(wall time.Time, reading time.Duration) time.Time {
	const secondsTo1885 = 59453308800 - 62135596800 // from 1970
	bits := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&wall))
	bits.wall, bits.ext = 1<<63|uint64(wall.Unix()-secondsTo1885)<<30|uint64(wall.Nanosecond()), int64(reading)
	return wall
}

// S7: a late wake-up that a Beat has seen already is one jump.
func TestS7_SeenTwice(t *testing.T) {
	s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: time.Hour, Beats: 1, Signals: 1, SystemClock: true})
	s.Start(start)
	settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
	s.Next(start)
	settle(s, 7*time.Minute, look(s, 7*time.Minute, true, Beat), Outcome{Sent: true})
	next(s, 7*time.Minute)
	requireElapsed(t, s, start.Add(7*time.Minute), 7*time.Minute, maxWait, time.Hour)
}

// F3: what the last Run has lost is no news for the next, and what it has signalled does not
// keep the next from signalling.
func TestF3_NextRun(t *testing.T) {
	for _, sent := range []bool{false, true} {
		s := newSchedule(10*time.Minute, 1, 1)
		s.Start(start)
		settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
		plan := look(s, time.Minute, false, Peek)
		require.Len(t, plan.Attempts, 1)
		settle(s, time.Minute, plan, Outcome{Sent: sent})
		s.Stop()
		s.Start(start.Add(5 * time.Minute))
		plan = s.Decide(start.Add(5*time.Minute), Verdict{Fresh: time.Minute}, Check)
		require.Empty(t, plan.Attempts)
		require.Len(t, look(s, 6*time.Minute, false, Peek).Attempts, 1)
	}
}

// F1: a peek sends no beat, though one is owed.
func TestF1_PeekSendsNoBeat(t *testing.T) {
	s := newSchedule(10*time.Minute, 1, 1)
	s.Start(start)
	s.Decide(start, Verdict{Fresh: 2 * time.Second}, Check)
	requireWait(t, s, 0, 2*time.Second+1)
	action, _ := next(s, 3*time.Second)
	require.Equal(t, Peek, action)
	require.Empty(t, look(s, 3*time.Second, true, Peek).Attempts)
	requireWait(t, s, 3*time.Second, RetryPause)
}

// F1: databases are watched until each target has its signal.
func TestF1_TwoSignals(t *testing.T) {
	for failing := range 2 {
		s := newSchedule(time.Hour, 1, 2)
		s.Start(start)
		settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
		plan := look(s, time.Minute, false, Peek)
		require.Len(t, plan.Attempts, 2)
		for _, a := range plan.Attempts {
			s.Settle(start.Add(time.Minute), a, Outcome{Sent: a.Target != failing, RetryAfter: 40 * time.Minute})
		}
		s.Decide(start.Add(2*time.Minute), Verdict{Fresh: 10 * time.Minute}, Check)
		requireWait(t, s, 2*time.Minute+RetryPause-1, 2*time.Minute+RetryPause)
		s.Decide(start.Add(2*time.Minute+RetryPause), Verdict{Fresh: time.Second}, Check)
		requireWait(t, s, 2*time.Minute+RetryPause, 2*time.Minute+RetryPause+time.Second+1)
	}
}

// S1: a Beat at a grid point does not take the place of Run's look.
func TestS1_BeatAtAGridPoint(t *testing.T) {
	s := newSchedule(5*time.Minute, 1, 0)
	s.Start(start)
	settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
	settle(s, 5*time.Minute, look(s, 5*time.Minute, true, Beat), Outcome{Sent: true})
	requireWait(t, s, 5*time.Minute, 6*time.Minute)
}

// S2: the failure of a Beat plans no try, if no beat is owed.
func TestS2_BeatPlansNoTry(t *testing.T) {
	s := newSchedule(5*time.Minute, 1, 0)
	s.Start(start)
	require.Equal(t, Settlement{FirstFailure: true, Retry: time.Minute}, settle(s, 0, look(s, 0, true, Check), Outcome{}))
	settle(s, time.Minute, look(s, time.Minute, true, Check), Outcome{Sent: true})
	require.Equal(t, Settlement{FirstFailure: true}, settle(s, 2*time.Minute, look(s, 2*time.Minute, true, Beat), Outcome{}))
}

// S2, S7: the pause after a skipped beat ends with a clock that was set back, and a beat that
// fails later is tried again in ten seconds.
func TestS2_S7_RetryAfterSetBack(t *testing.T) {
	s := newSchedule(24*time.Hour, 1, 0)
	s.Start(start)
	s.Decide(start, Verdict{}, Check)
	settle(s, RetryPause, look(s, RetryPause, true, Check), Outcome{Sent: true})
	next(s, time.Hour)
	const back = -9 * time.Hour
	action, _ := next(s, back)
	require.Equal(t, Check, action)
	require.Equal(t, RetryPause, settle(s, back, look(s, back, true, Check), Outcome{NotSent: true}).Retry)
	requireWait(t, s, back, back+RetryPause)
}

// S2: a loss that a Beat has found is looked at again in ten seconds, and not at once.
func TestS2_LossFoundByBeat(t *testing.T) {
	s := newSchedule(time.Hour, 1, 1)
	s.Start(start)
	settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
	next(s, 10*time.Minute)
	require.Len(t, look(s, 10*time.Minute, false, Beat).Attempts, 1)
	requireWait(t, s, 10*time.Minute, 10*time.Minute+RetryPause)
}

// L1: a beat that is owed once more has its own first failure, after that of a Beat.
func TestL1_FirstFailureOwedAgain(t *testing.T) {
	s := newSchedule(10*time.Minute, 1, 0)
	s.Start(start)
	settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
	for at := time.Minute; at <= 2*time.Minute; at += time.Minute {
		require.Equal(t, Settlement{FirstFailure: true}, settle(s, at, look(s, at, true, Beat), Outcome{}))
	}
	s.Owe()
	require.Equal(t, Settlement{FirstFailure: true, Retry: time.Minute}, settle(s, 3*time.Minute, look(s, 3*time.Minute, true, Check), Outcome{}))
	require.Equal(t, Settlement{Retry: time.Minute}, settle(s, 4*time.Minute, look(s, 4*time.Minute, true, Check), Outcome{}))
}

// S7: a jump counts as long as a sync from before it may be young enough, leaving
// aside the jumps that came after it.
func TestS7_JumpBehindAJump(t *testing.T) {
	s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: time.Hour, Beats: 1, Signals: 1, SystemClock: true})
	s.Start(start)
	late := func(now time.Time, by time.Duration) time.Time {
		plan := s.Decide(now, Verdict{Healthy: true, Fresh: time.Hour}, Check)
		for _, a := range plan.Attempts {
			s.Settle(now, a, Outcome{Sent: true})
		}
		action, wake := s.Next(now)
		require.Equal(t, Wait, action)
		now = wake.Add(by)
		s.Next(now)
		return now
	}
	first := late(start, 20*time.Minute)
	second := late(first, 3*time.Hour)
	awake := second.Sub(first) - 3*time.Hour
	hour := first.Add(3 * time.Hour).Add(time.Hour) // awake since the first
	requireElapsed(t, s, hour, hour.Sub(start), hour.Sub(start)-20*time.Minute-3*time.Hour, 0)
	requireElapsed(t, s, hour.Add(1), hour.Sub(start), hour.Sub(start)-3*time.Hour, awake-1)
}

// S7, F5: what may still arrive at the service is remembered no longer because the clock
// was set back: a signal goes out twice, and no third time.
func TestS7_F5_SetBack(t *testing.T) {
	const back = 2 * time.Hour
	for name, before := range map[string]func(s *Schedule) (signals int){
		"after a beat was cut": func(s *Schedule) int {
			settle(s, time.Second, look(s, 0, true, Check), Outcome{Cut: true})
			return 0
		},
		"after a signal beside a beat": func(s *Schedule) int {
			beat := look(s, 0, true, Check)
			plan := look(s, 5*time.Second, false, Peek)
			s.Reserve(start.Add(5*time.Second), &plan)
			settle(s, 6*time.Second, plan, Outcome{Sent: true})
			settle(s, 7*time.Second, beat, Outcome{Sent: true})
			return len(plan.Attempts)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSchedule(10*time.Minute, 1, 1)
			s.Start(start)
			signals := before(s)
			for at := 10 * time.Second; at < 5*time.Minute; at += 5 * time.Second {
				plan := look(s, at-back, false, Check)
				if plan.Cut {
					s.Reserve(start.Add(at-back), &plan)
				}
				signals += len(plan.Attempts)
				settle(s, at-back, plan, Outcome{Sent: true})
			}
			require.Equal(t, 2, signals)
		})
	}
}

// S7: a jump is as long ago after the clock was set back as before.
func TestS7_JumpBeforeSetBack(t *testing.T) {
	s := New(Settings{Interval: time.Hour, Spacing: time.Minute, MaxSyncAge: time.Hour, Beats: 1, Signals: 1, SystemClock: true})
	s.Start(start)
	settle(s, 0, look(s, 0, true, Check), Outcome{Sent: true})
	_, wake := s.Next(start)
	jumped := wake.Add(20 * time.Minute)
	s.Next(jumped)
	s.Decide(jumped.Add(10*time.Minute), Verdict{Healthy: true}, Beat)
	now := jumped.Add(10*time.Minute - 2*time.Hour)
	requireElapsed(t, s, now, 10*time.Minute, 10*time.Minute, never)
	requireElapsed(t, s, now, 10*time.Minute+1, 1-10*time.Minute, 50*time.Minute)
}

// F5: an attempt that has hung for longer than it counts as in flight ends while one of the
// other kind is in flight, which is then made once more.
func TestF5_HungEndsBesideTheOther(t *testing.T) {
	for _, signalHangs := range []bool{false, true} {
		s := newSchedule(time.Hour, 1, 1)
		s.Start(start)
		hung := look(s, 0, true, Check)
		if signalHangs {
			settle(s, 0, hung, Outcome{Sent: true})
			hung = look(s, time.Minute, false, Peek)
		}
		require.Len(t, hung.Attempts, 1)
		at := time.Minute
		ping := func() Plan {
			plan := look(s, at, signalHangs, Check)
			if plan.Cut {
				s.Reserve(start.Add(at), &plan)
			}
			return plan
		}
		for ; at < 6*time.Minute; at += 5 * time.Second {
			settle(s, at, ping(), Outcome{}) // it fails, with an answer
		}
		last := ping()
		require.Len(t, last.Attempts, 1)
		settle(s, at+time.Second, hung, Outcome{Sent: true})   // this arrives now
		settle(s, at+2*time.Second, last, Outcome{Sent: true}) // or this one, before it
		at += 2 * time.Minute
		last = ping()
		require.Len(t, last.Attempts, 1, "the one that hung may be the last word; signal: %v", signalHangs)
		settle(s, at, last, Outcome{Sent: true})
		at += 2 * time.Minute
		require.Empty(t, ping().Attempts)
	}
}

// S7, F5: a signal that a beat may overtake is made once more, also if the clock is set back
// while the signal is in flight.
func TestS7_F5_InFlightAtSetBack(t *testing.T) {
	for _, back := range []time.Duration{0, time.Hour} {
		s := newSchedule(10*time.Minute, 1, 1)
		s.Start(start)
		settle(s, 0, look(s, 0, true, Check), Outcome{GaveUp: true})
		signal := look(s, 5*time.Second, false, Peek)
		require.Len(t, signal.Attempts, 1)
		settle(s, 6*time.Second-back, signal, Outcome{Sent: true})
		again := 0
		for at := 10 * time.Second; at < 3*time.Minute; at += 5 * time.Second {
			plan := look(s, at-back, false, Check)
			again += len(plan.Attempts)
			settle(s, at-back, plan, Outcome{Sent: true})
		}
		require.Equal(t, 1, again, "back by %v", back)
	}
}

// S2: of two targets, only the one that missed the beat is pinged again. A Beat pings both.
func TestS2_OnlyWhatIsOwed(t *testing.T) {
	s := newSchedule(10*time.Minute, 2, 0)
	s.Start(start)
	targets := func(plan Plan) (indexes []int) {
		for _, a := range plan.Attempts {
			indexes = append(indexes, a.Target)
		}
		return indexes
	}
	plan := look(s, 0, true, Check)
	require.Equal(t, []int{0, 1}, targets(plan))
	s.Settle(start, plan.Attempts[0], Outcome{Sent: true})
	s.Settle(start, plan.Attempts[1], Outcome{})
	require.Empty(t, look(s, time.Minute-1, true, Check).Attempts)
	plan = look(s, 2*time.Minute, true, Check)
	require.Equal(t, []int{1}, targets(plan))
	settle(s, 2*time.Minute, plan, Outcome{Sent: true})
	require.Empty(t, look(s, 4*time.Minute, true, Check).Attempts)
	require.Equal(t, []int{0, 1}, targets(look(s, 4*time.Minute, true, Beat)))
}

// F5: a ping that hangs for minutes and then ends may be what the service hears last. What
// began after it is made once more, and again if nobody knows what became of it.
func TestF5_HangsForMinutes(t *testing.T) {
	for name, hung := range map[string]struct {
		outcome Outcome
		again   int
	}{"arrives": {Outcome{Sent: true}, 1}, "is lost": {Outcome{GaveUp: true}, 2}, "never left": {Outcome{NotSent: true}, 0}} {
		t.Run(name, func(t *testing.T) {
			s := newSchedule(time.Hour, 1, 1)
			s.Start(start)
			beat := look(s, 0, true, Check)
			signals := 0
			for at := 5 * time.Second; at < 10*time.Minute; at += 5 * time.Second {
				if at == 5*time.Minute {
					require.Equal(t, 3, signals, "the third when the beat has hung for two minutes")
					settle(s, at, beat, hung.outcome)
				}
				plan := look(s, at, false, Check)
				if plan.Cut {
					s.Reserve(start.Add(at), &plan)
				}
				signals += len(plan.Attempts)
				settle(s, at, plan, Outcome{Sent: true})
			}
			require.Equal(t, 3+hung.again, signals)
		})
	}
}
