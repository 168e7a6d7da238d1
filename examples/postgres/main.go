// Postgres sends a heartbeat while a PostgreSQL standby keeps up with its primary:
// see [Replica]. It asks the primary, or with no -standby the standby itself:
//
//	go run -C examples/postgres . -dsn "host=db1 user=monitor" -standby db2 -url URL
//	go run -C examples/postgres . -dsn "host=db2 user=monitor" -url URL
//
// A command line shows in ps: so leave a password to PGPASSFILE, PGPASSWORD or
// ~/.pgpass, which are honoured, and the ping URL to HEARTBEAT_URL.
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
	"sync"
	"syscall"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// pollEvery is how often the server is asked. A standby answers its primary every
// 10 seconds too, unless its wal_receiver_status_interval says otherwise.
const pollEvery = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stderr, pollEvery); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stderr io.Writer, every time.Duration) error {
	flags := flag.NewFlagSet("postgres", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dsn := flags.String("dsn", "", "`connection string` of the server to ask; PGHOST and its like fill it up")
	standby := flags.String("standby", "", "application_name of the standby to watch; none if the server is that standby")
	url := flags.String("url", "", "`URL` to ping; HEARTBEAT_URL unless set")
	interval := flags.Duration("interval", heartbeat.DefaultInterval, "time between two heartbeats, and how old a sync may be")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pinger, err := heartbeat.NewHTTPPinger(cmp.Or(*url, os.Getenv("HEARTBEAT_URL")), &heartbeat.HTTPOptions{RedactURL: true})
	if err != nil {
		return err
	}
	config, err := pgx.ParseConfig(*dsn) // here: sql.Open would leave it to the first poll
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	replica := NewReplica(cmp.Or(*standby, "standby"), db, *standby, nil)
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{replica}, &heartbeat.Options{
		Interval: *interval,
		Logger:   logger,
	})
	if err != nil {
		return err
	}

	var polling sync.WaitGroup
	defer polling.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	synced := make(chan struct{})
	polling.Go(func() { poll(ctx, replica, every, logger, sync.OnceFunc(func() { close(synced) })) })

	// The first sync takes two polls, and the first check waits for it; but not
	// for ever, since silence should have a line in the log that explains it.
	select {
	case <-synced:
	case <-time.After(heartbeat.MinInterval):
	case <-ctx.Done():
	}
	return monitor.Run(ctx)
}

// poll polls until ctx is done.
func poll(ctx context.Context, replica *Replica, every time.Duration, logger *slog.Logger, synced func()) {
	var said string
	for {
		var text string
		pollCtx, cancel := context.WithTimeout(ctx, pollEvery)
		if err := replica.Poll(pollCtx); err != nil {
			text = err.Error()
		}
		cancel()
		if text != said && ctx.Err() == nil { // once, not every 10 seconds
			if said = text; text != "" {
				logger.Warn("cannot tell the standby's position", "db", replica.Path(), "error", text)
			}
		}
		if !replica.LastSuccessfulSyncAt().IsZero() {
			synced()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}
