package heartbeat

import "time"

// A Clock tells a [Monitor] the time and wakes it up. All checks go by it. Only limits
// on what takes long, such as a ping, go by the system's clock. So a test with a fake
// clock takes a Monitor through a day in milliseconds: see package heartbeattest. The
// fake clocks of clockwork, benbjohnson/clock, k8s.io/utils/clock and juju/clock
// implement Clock as they are.
//
// Both methods may be called from several goroutines at once.
type Clock interface {
	// Now returns the current time. If the time has a monotonic reading, as that of
	// [time.Now] has, the regular checks of Run do not move when the wall clock is set.
	Now() time.Time

	// After returns a channel on which one value arrives once d has passed. Run asks
	// for one channel at a time, and only for a positive d. It gives up a channel early only
	// if a Beat, or a ping that ended while Run waited, has made something due earlier.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
