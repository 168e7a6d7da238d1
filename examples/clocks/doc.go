// Package clocks shows, in its tests, that the fake clocks of
// github.com/jonboulle/clockwork, github.com/benbjohnson/clock,
// k8s.io/utils/clock/testing and github.com/juju/clock/testclock each drive a
// heartbeat.Monitor as they stand, with no adapter.
//
// The one rule with all of them: wait until the Monitor's Run is waiting on the
// clock, then advance. A step that is taken earlier is lost on it.
package clocks
