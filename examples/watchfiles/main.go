// Watchfiles sends a heartbeat while files keep arriving: it supervises anything
// that leaves files behind, such as a nightly backup, an rsync or a WAL archive.
//
//	go run ./examples/watchfiles -h
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

//go:embed usage.txt
var usage string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "watchfiles: %v (see watchfiles -h)\n", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (code int, err error) {
	flags := flag.NewFlagSet("watchfiles", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	url := os.Getenv("HEARTBEAT_URL")
	flags.Func("url", "", func(s string) error {
		if url = s; s == "" { // an unset variable in a crontab is no wish to only report
			return errors.New("is empty")
		}
		return nil
	})
	interval := flags.Duration("interval", heartbeat.DefaultInterval, "")
	maxAge := flags.Duration("max-age", 0, "")
	once := flags.Bool("once", false, "")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return 0, nil
	} else if err != nil && strings.Contains(err.Error(), "://") {
		return 2, errors.New("a URL stands where none belongs") // without quoting it, as err does
	} else if err != nil {
		return 2, err
	}
	if *interval < heartbeat.MinInterval {
		return 2, fmt.Errorf("-interval is below %v", heartbeat.MinInterval)
	}
	opts := &heartbeat.Options{Interval: *interval, MaxSyncAge: cmp.Or(*maxAge, *interval)}

	level := slog.LevelInfo
	if *once { // cron mails what is printed
		level = slog.LevelWarn
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	var monitor *heartbeat.Monitor
	var pinger heartbeat.Pinger
	if url != "" {
		opts.Logger = logger
		if pinger, err = heartbeat.NewHTTPPinger(url, &heartbeat.HTTPOptions{RedactURL: true}); err != nil {
			return 2, err
		}
	} else { // nothing is sent, and no log line may say so
		opts.Logger = slog.New(slog.DiscardHandler)
		opts.OnResult = func(heartbeat.Result) { report(monitor.Status()) }
		pinger = heartbeat.PingerFunc(func(context.Context) error { return nil })
	}
	var trees []heartbeat.SyncReporter
	for _, path := range flags.Args() {
		if strings.HasPrefix(path, "-") || strings.Contains(path, "://") {
			return 2, errors.New("flags and the URL go before the paths")
		}
		trees = append(trees, tree{heartbeat.NewSyncTracker(filepath.Clean(path))})
	}
	if len(trees) == 0 {
		return 2, errors.New("no path to watch")
	}
	if monitor, err = heartbeat.New(pinger, trees, opts); err != nil {
		return 2, err
	}

	// The first check waits for the first walks, but not for ever: silence
	// should have a line in the log that explains it.
	var first sync.WaitGroup
	first.Add(len(trees))
	for _, t := range trees {
		go t.(tree).watch(ctx, opts.MaxSyncAge, logger, sync.OnceFunc(first.Done))
	}
	walked := make(chan struct{})
	go func() { first.Wait(); close(walked) }()
	timeout := time.After(heartbeat.MinInterval)
	if *once {
		timeout = nil
	}
	select {
	case <-walked:
	case <-timeout:
	case <-ctx.Done():
	}
	if !*once {
		return 0, monitor.Run(ctx)
	}
	switch result := monitor.Beat(ctx); {
	case ctx.Err() == nil && result.Outcome == heartbeat.Skipped:
		return 1, nil
	case result.Outcome == heartbeat.Sent:
		return 0, nil
	}
	return 3, nil
}

func report(status heartbeat.Status) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PATH\tLAST SYNC\tSTATE")
	for _, db := range status.Databases {
		last := "never"
		if !db.LastSyncAt.IsZero() {
			last = db.LastSyncAt.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", db.Path, last, cmp.Or(db.Reason, "fresh"))
	}
	w.Flush()
}
