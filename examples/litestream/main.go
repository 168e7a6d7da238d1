// The litestream example is a small replication daemon made of real parts:
// Litestream as a library, SQLite, and a heartbeat that leaves only while every
// database is known to be in its replica.
//
//	go run .                              demonstrates it on faults, in less than a minute
//	go run . -config FILE                 is the daemon, until SIGINT or SIGTERM, with replicas in files
//	go run -tags backends . -config FILE  is the daemon with all replicas that Litestream has
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit statuses, beside 0.
const (
	exitFailed = 1 // a stage was not observed, or a last sync failed
	exitUsage  = 2 // the command line or the configuration is wrong
)

// sameSignal is how long further signals are taken for the first.
const sameSignal = time.Second

const usage = `Usage: litestream [-config file]

Replicates SQLite databases with Litestream, and sends heartbeats while all are
known to be in their replicas. README.md and litestream.yml, beside its source,
say what goes into the file. It stops at SIGINT or SIGTERM, within ten seconds.

`

func main() {
	// Where nobody reads the output any more, writing it fails, and does not end the
	// process: neither last syncs nor temporary files may be lost to that.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once told to stop, a second signal ends the process at once, even while a
	// last sync waits for a replica that does not answer. One that comes within
	// moments is the same: timeout(1), for one, signals the process and its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	flags := flag.NewFlagSet("litestream", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	configPath := flags.String("config", "", "replicate the databases in this YAML `file`; without it, a demonstration runs")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "unexpected argument %q; the configuration goes after -config\n", flags.Arg(0))
		return exitUsage
	}

	if flags.NFlag() == 0 { // not: -config "", as a script's unset variable makes it
		if err := demonstrate(ctx, stdout); err != nil {
			fmt.Fprintln(stderr, err)
			return exitFailed
		}
		return 0
	}

	return replicate(ctx, *configPath, stderr)
}

// replicate runs the daemon that a configuration describes.
func replicate(ctx context.Context, configPath string, stderr io.Writer) (status int) {
	cfg, err := loadConfig(configPath)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	d, err := newDaemon(cfg, options{
		logger: logger,
		// Litestream tells each compaction at INFO; what it warns of is enough here.
		litestreamLogger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", configPath, err)
		return exitUsage
	}
	if err := d.run(ctx); err != nil {
		logger.Error("daemon failed", "error", err)
		return exitFailed
	}
	return 0
}
