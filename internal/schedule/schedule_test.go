package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// told tells a verdict and returns the attempts.
func told(s *Schedule, at time.Duration, number uint64, healthy bool, by By) Plan {
	v := Verdict{Number: number, Healthy: healthy, Fresh: time.Hour}
	if !healthy {
		v.Unhealthy = []uint64{1}
	}
	return s.Judged(start.Add(at), &v, by)
}

func next(s *Schedule, at time.Duration) (Action, time.Duration) {
	action, wake := s.Next(start.Add(at))
	return action, wake.Sub(start)
}

// S1, S4: the grid is start + k·interval; points that passed meanwhile are dropped.
func TestS1_S4_Grid(t *testing.T) {
	s := New(5*time.Minute, time.Minute, 1, 0)
	s.Start(start)
	for _, step := range []struct{ at, next time.Duration }{
		{0, 5 * time.Minute}, {5*time.Minute + 17*time.Second, 10 * time.Minute}, {33 * time.Minute, 35 * time.Minute}, {35 * time.Minute, 40 * time.Minute},
	} {
		action, _ := next(s, step.at)
		require.Equal(t, Check, action)
		plan := told(s, step.at, uint64(step.at)+2, true, ByRun)
		require.Len(t, plan.Attempts, 1)
		s.Settle(start.Add(step.at), plan.Attempts[0], Outcome{Sent: true})
		action, wake := next(s, step.at)
		require.Equal(t, Wait, action)
		require.Equal(t, step.next, wake)
	}
}

// S7: a jump that is longer than a Duration can say begins a new grid.
func TestS7_Centuries(t *testing.T) {
	s := New(5*time.Minute, time.Minute, 1, 0)
	s.Start(time.Time{})
	far := time.Time{}.AddDate(2000, 0, 0)
	action, _ := s.Next(far)
	require.Equal(t, Check, action)
	plan := s.Judged(far, &Verdict{Number: 2, Healthy: true}, ByRun)
	s.Settle(far, plan.Attempts[0], Outcome{Sent: true})
	action, wake := s.Next(far)
	require.Equal(t, Wait, action)
	require.Equal(t, 5*time.Minute, wake.Sub(far))
}

// S3, S7: a reading that is less than the spacing out of order is no clock that was set
// back; one of the spacing is. Then what was left to wait is waited for in full.
func TestS3_S7_Back(t *testing.T) {
	for _, back := range []time.Duration{time.Minute - 1, time.Minute, 3 * time.Hour} {
		s := New(5*time.Minute, time.Minute, 1, 0)
		now := 30 * time.Minute
		plan := told(s, now, 2, true, ByBeat)
		s.Settle(start.Add(now), plan.Attempts[0], Outcome{RetryAfter: 2 * time.Minute})
		require.Empty(t, told(s, now-back, 3, true, ByBeat).Attempts)
		left := 2 * time.Minute // on the clock that goes on from there
		if back < time.Minute {
			left += back
		}
		require.Empty(t, told(s, now-back+left-1, 4, true, ByBeat).Attempts)
		require.Len(t, told(s, now-back+left, 5, true, ByBeat).Attempts, 1)
	}
}

// S6: a Retry-After is minded for an hour at most, and none is no limit.
func TestS6_RetryAfter(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Minute, 90 * time.Second: 90 * time.Second, 9 * time.Hour: time.Hour} {
		s := New(24*time.Hour, time.Minute, 1, 0)
		s.Start(start)
		plan := told(s, 0, 2, true, ByRun)
		require.True(t, s.Settle(start, plan.Attempts[0], Outcome{RetryAfter: asked}))
		action, wake := next(s, 0)
		require.Equal(t, Wait, action)
		require.Equal(t, want, wake)
	}
}

// L1: of a beat's failures the first is told apart, and those of Beats all are.
func TestL1_FirstFailure(t *testing.T) {
	s := New(2*time.Minute, time.Minute, 1, 0)
	fails := func(at time.Duration, number uint64, by By) bool {
		plan := told(s, at, number, true, by)
		require.Len(t, plan.Attempts, 1)
		return s.Settle(start.Add(at), plan.Attempts[0], Outcome{})
	}
	require.True(t, fails(0, 2, ByBeat))
	require.True(t, fails(time.Minute, 3, ByBeat))
	s.Start(start.Add(2 * time.Minute))
	require.True(t, fails(2*time.Minute, 4, ByRun))
	require.False(t, fails(3*time.Minute, 5, ByRun))
	require.True(t, fails(4*time.Minute, 6, ByRun), "the next beat's")
}

// P6: a ping is given the spacing, unless another target's beat is due before; a
// signal is given until the next look.
func TestP6_Timeout(t *testing.T) {
	s := New(90*time.Second, time.Minute, 2, 1)
	require.Equal(t, time.Minute, told(s, 0, 2, true, ByBeat).Timeout, "without Run")
	s = New(90*time.Second, time.Minute, 2, 1)
	s.Start(start)
	plan := told(s, 0, 2, true, ByRun)
	require.Equal(t, time.Minute, plan.Timeout, "both are pinged")
	s.Settle(start, plan.Attempts[0], Outcome{Sent: true})
	s.Settle(start, plan.Attempts[1], Outcome{})
	plan = told(s, time.Minute, 3, true, ByRun)
	require.Len(t, plan.Attempts, 1)
	require.Equal(t, 30*time.Second, plan.Timeout, "the other is due at 90 s")
	require.Equal(t, time.Minute, told(s, 61*time.Second, 4, true, ByBeat).Timeout, "a Beat holds up no one")
	plan = told(s, 62*time.Second, 5, false, ByRun)
	require.True(t, plan.Lost)
	require.Equal(t, Pause, plan.Timeout)
	s.Settle(start.Add(62*time.Second), plan.Attempts[0], Outcome{NotSent: true})
	require.Equal(t, 5*time.Second, told(s, 85*time.Second, 6, false, ByRun).Timeout, "the grid point is at 90 s")
}

// F5: a verdict with the number of the newest, or a lower one, changes nothing.
func TestF5_Order(t *testing.T) {
	s := New(5*time.Minute, time.Minute, 1, 1)
	require.True(t, told(s, 0, 2, true, ByBeat).Newest)
	require.False(t, told(s, 0, 2, false, ByBeat).Newest)
	plan := told(s, time.Second, 4, false, ByBeat)
	require.True(t, plan.Newest && plan.Lost)
	require.Len(t, plan.Attempts, 1)
	plan = told(s, time.Second, 3, true, ByBeat)
	require.True(t, plan.Overtaken)
	require.Empty(t, plan.Attempts)
}

// F1: a check within a second of the limit serves as well.
func TestF1_BesideACheck(t *testing.T) {
	for fresh, want := range map[time.Duration]time.Duration{
		298 * time.Second: 298*time.Second + 1, 299*time.Second - 2: 299*time.Second - 1, 299*time.Second - 1: 300 * time.Second, time.Hour: 300 * time.Second,
	} {
		s := New(5*time.Minute, time.Minute, 1, 1)
		s.Start(start)
		plan := s.Judged(start, &Verdict{Number: 2, Healthy: true, Fresh: fresh}, ByRun)
		s.Settle(start, plan.Attempts[0], Outcome{Sent: true})
		action, wake := next(s, 0)
		require.Equal(t, Wait, action)
		require.Equal(t, want, wake)
	}
}
