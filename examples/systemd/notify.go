package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-heartbeat/heartbeat"
)

// Watchdog returns a Pinger whose heartbeat is systemd's own: WATCHDOG=1, which
// WatchdogSec= of the unit waits for. So systemd restarts a daemon whose databases
// are no longer in sync, whatever it is that keeps them from it. The first
// heartbeat says READY=1 too: a unit with Type=notify has started once its
// databases are in sync, and what is ordered After= it starts only then.
//
// Its Ping returns an error where no systemd started the process: a heartbeat that
// nobody gets must not be logged as sent. Each error wraps heartbeat.ErrNotSent,
// since of a datagram either all is sent or nothing: so it is tried again ten
// seconds later.
func Watchdog() heartbeat.Pinger {
	var ready atomic.Bool
	return heartbeat.PingerFunc(func(context.Context) error {
		state := daemon.SdNotifyWatchdog
		if !ready.Load() {
			state = daemon.SdNotifyReady + "\n" + state
		}
		if err := notify(state); err != nil {
			return fmt.Errorf("systemd's watchdog: %w: %w", heartbeat.ErrNotSent, err)
		}
		ready.Store(true)
		return nil
	})
}

// Status shows a Result as the unit's status line, in "systemctl status". It is
// meant for Options.OnResult, which has the skipped checks too. What cannot be told
// is left out: a status line is no reason for an alarm.
func Status(result heartbeat.Result) {
	_ = notify("STATUS=" + oneLine(result.String()))
}

// notify sends a state to systemd.
func notify(state string) error {
	sent, err := daemon.SdNotify(false, state)
	if err == nil && !sent {
		return errors.New("NOTIFY_SOCKET is not set: the process is no service of systemd's, or one without Type=notify")
	}
	return err
}

// oneLine makes one line of a text that names a path or an error: a line end in it
// would begin another assignment, such as READY=1.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
