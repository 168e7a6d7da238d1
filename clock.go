package heartbeat

import "time"

// A Clock tells a [Monitor] the time and wakes it up. It is the Monitor's only
// source of time, so that a test can drive one through a day in a millisecond:
// see package heartbeattest. The fake clocks of clockwork, benbjohnson/clock,
// k8s.io/utils/clock and juju/clock are Clocks as they stand.
//
// Both methods may be called from several goroutines at once.
type Clock interface {
	// Now returns the current time. One with a monotonic reading, as
	// [time.Now] gives, keeps the schedule when the wall clock is set.
	Now() time.Time

	// After returns a channel on which one value arrives once d has passed.
	// A Monitor's Run asks for one at a time, and only for a positive d. It gives
	// one up before its time only if a Beat, or a ping that ended late, has made
	// something due earlier.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
