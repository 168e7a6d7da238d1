//go:build race

package heartbeat_test

func init() { raceEnabled = true }
