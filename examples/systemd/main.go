// Systemd has systemd restart a daemon whose replication has stalled: see
// [Watchdog]. The daemon copies a file to another place every few seconds, which
// stands for replication:
//
//	go build -C examples/systemd -o /usr/local/bin/replicate .
//	replicate [-interval 1m] [-every 10s] FROM TO
//
// replicate.service, beside this file, is its unit. To have people told as well,
// put the ping URL of a service into the environment variable HEARTBEAT_URL: it
// is a target beside the watchdog, and the failure of one does not hold back the
// other. A restart mends a daemon that is stuck; a full disk needs somebody.
//
// # The times
//
// A copy is made every -every, which must be shorter than -interval.
//
// WatchdogSec= counts from the last heartbeat, which leaves every -interval while
// the last sync is at most that old. So it must be longer than the interval;
// twice as long at least, or the program does not start: then one heartbeat that
// is late or skipped, and tried again ten seconds later, is no restart. A stalled
// daemon is ended after WatchdogSec at least, and WatchdogSec + interval at most,
// from its last sync: by SIGABRT, at which a Go program prints what each of its
// goroutines was waiting for.
//
// The watchdog begins with READY=1, and so with the first sync. A first sync that
// takes longer than TimeoutStartSec= (90 s unless set) is a failed start.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-heartbeat/heartbeat"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "replicate:", err)
		os.Exit(2)
	}
	if err := s.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "replicate:", err)
		os.Exit(1)
	}
}

// A service is what the command line and the environment ask for.
type service struct {
	from, to string
	every    time.Duration // from one copy to the next
	interval time.Duration // from one heartbeat to the next
	pinger   heartbeat.Pinger
}

func parse(args []string) (*service, error) {
	s := &service{}
	flags := flag.NewFlagSet("replicate", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	flags.DurationVar(&s.interval, "interval", heartbeat.MinInterval, "time between two heartbeats, and how old the last copy may be")
	flags.DurationVar(&s.every, "every", 10*time.Second, "time between two copies")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println("Usage: replicate [flags] FROM TO")
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
	}
	if err == nil && flags.NArg() != 2 {
		err = errors.New("two paths are needed: the file to copy, and where to")
	}
	if err != nil {
		return nil, err
	}
	s.from, s.to = flags.Arg(0), flags.Arg(1)
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, s.findTargets()
}

// check refuses what could only go wrong.
func (s *service) check() error {
	switch {
	case s.from == "" || s.to == "":
		return errors.New("a path is empty: is a variable unset?")
	case s.interval < heartbeat.MinInterval: // the Monitor's would be that long, and WatchdogSec= is compared with this
		return fmt.Errorf("-interval is %v; make it at least %v", s.interval, heartbeat.MinInterval)
	case s.interval > 365*24*time.Hour:
		return errors.New("-interval is longer than a year")
	case s.every < time.Second:
		return fmt.Errorf("-every is %v; make it at least 1s", s.every)
	case s.every >= s.interval:
		return fmt.Errorf("-every is %v, and -interval is %v; make -every shorter, or each copy is too old at the next heartbeat", s.every, s.interval)
	case placeOf(s.from) == placeOf(s.to):
		return errSameFile
	}
	return nil
}

var errSameFile = errors.New("FROM and TO are the same file: it would be its own copy")

// placeOf returns the path with its symbolic links followed, as far as it is there.
func placeOf(path string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(placeOf(parent), filepath.Base(path))
	}
	return path
}

// findTargets finds out who is to be told.
func (s *service) findTargets() error {
	var pingers []heartbeat.Pinger
	if os.Getenv("NOTIFY_SOCKET") != "" {
		pingers = append(pingers, Watchdog())
	}
	if url := os.Getenv("HEARTBEAT_URL"); url != "" {
		p, err := heartbeat.NewHTTPPinger(url, &heartbeat.HTTPOptions{RedactURL: true})
		if err != nil {
			return fmt.Errorf("HEARTBEAT_URL: %w", err)
		}
		pingers = append(pingers, p)
	}
	if len(pingers) == 0 {
		return errors.New("neither NOTIFY_SOCKET nor HEARTBEAT_URL is set: start it by systemd, with Type=notify, or set a URL to ping")
	}
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return err
	}
	if timeout > 0 && timeout < 2*s.interval {
		return fmt.Errorf("WatchdogSec= is %v, and -interval is %v; make WatchdogSec= at least twice as long", timeout, s.interval)
	}
	s.pinger = heartbeat.MultiPinger(pingers...)
	return nil
}

// run replicates and sends heartbeats until ctx is done.
func (s *service) run(ctx context.Context) error {
	tracker := heartbeat.NewSyncTracker(s.from)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil)) // systemd takes it into its journal
	monitor, err := heartbeat.New(s.pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
		Interval: s.interval,
		Logger:   logger,
		OnResult: Status,
	})
	if err != nil {
		return err
	}
	var replication sync.WaitGroup
	defer replication.Wait()
	defer func() { _ = notify(daemon.SdNotifyStopping) }()
	tried := make(chan struct{})
	replication.Go(func() { s.replicate(ctx, tracker, logger, sync.OnceFunc(func() { close(tried) })) })

	// The first check waits for the first copy; but not for ever, since silence
	// should have a line in the log that explains it.
	select {
	case <-tried:
	case <-time.After(heartbeat.MinInterval):
	case <-ctx.Done():
	}
	return monitor.Run(ctx)
}

// replicate copies the file again and again until ctx is done, and calls tried
// after each time.
func (s *service) replicate(ctx context.Context, tracker *heartbeat.SyncTracker, logger *slog.Logger, tried func()) {
	for {
		began := time.Now() // what is written meanwhile may not be in the copy
		if err := copyFile(s.from, s.to); err != nil {
			logger.Warn("cannot copy", "error", err)
		} else {
			tracker.Record(began)
		}
		tried()
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.every):
		}
	}
}

// copyFile puts a whole copy of from in the place of to, or leaves to as it is.
func copyFile(from, to string) (err error) {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // a device may have no end, and a named pipe may never open
		return fmt.Errorf("%s is no regular file", from)
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	// A link may have changed since the start. Lstat would miss one that leads to from.
	if there, err := os.Stat(to); err == nil && os.SameFile(info, there) {
		return errSameFile
	}
	part, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".*.part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) // there is none once it has its place
	_, err = io.Copy(part, source)
	err = cmp.Or(err, part.Sync(), part.Close())
	if err != nil {
		return err
	}
	return os.Rename(part.Name(), to)
}
