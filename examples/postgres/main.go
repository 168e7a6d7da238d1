// Postgres sends a heartbeat while a PostgreSQL standby keeps up with its primary:
// see [Replica]. It asks the primary, or with no -standby the standby itself:
//
//	go run -C examples/postgres . -dsn "host=db1 user=monitor" -standby db2 -url URL
//	go run -C examples/postgres . -dsn "host=db2 user=monitor" -url URL
//
// The -standby is no host but the application_name that the standby connects by,
// as "SELECT application_name FROM pg_stat_replication" on the primary lists it. A
// standby takes it from its primary_conninfo, or else from its cluster_name; one
// that has neither is called walreceiver, and two of them cannot be told apart.
//
// A command line shows in ps: so leave a password to PGPASSFILE, PGPASSWORD or
// ~/.pgpass, which are honoured, and the ping URL to HEARTBEAT_URL.
//
// Exit status: 0 once interrupted, 2 if the usage is wrong, else 1.
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
	"strings"
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
	s, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(2)
	}
	if err := s.run(ctx, os.Stderr, pollEvery); err != nil {
		fmt.Fprintln(os.Stderr, "postgres:", err)
		os.Exit(1)
	}
}

// settings are what the command line and the environment ask for.
type settings struct {
	server   *pgx.ConnConfig
	standby  string
	interval time.Duration
	pinger   heartbeat.Pinger
}

// parse returns errors that name the flag that they are about, and quote neither
// the ping URL nor a password.
func parse(args []string) (s *settings, err error) {
	s = &settings{}
	flags := flag.NewFlagSet("postgres", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	dsn := flags.String("dsn", "", "`connection string` of the server to ask; PGHOST and its like fill it up")
	flags.StringVar(&s.standby, "standby", "", "`application_name` of the standby to watch, as pg_stat_replication of the primary lists it: what the\nstandby's primary_conninfo says, else its cluster_name; none if the server to ask is that standby")
	url := flags.String("url", "", "`URL` to ping; HEARTBEAT_URL unless set")
	flags.DurationVar(&s.interval, "interval", heartbeat.DefaultInterval, "time between two heartbeats, 1m at least, and how old a sync may be")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Println("Usage: postgres [flags]")
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return nil, err
	case err != nil && strings.Contains(err.Error(), "://"):
		return nil, errors.New("a URL stands where none belongs") // without quoting it, as err does
	case err != nil:
		return nil, err
	case flags.NArg() > 0:
		return nil, errors.New("there is an argument that belongs to no flag; quote a -dsn that has spaces")
	case s.interval < heartbeat.MinInterval:
		return nil, fmt.Errorf("-interval is below %v", heartbeat.MinInterval)
	case s.interval > 365*24*time.Hour:
		return nil, errors.New("-interval is longer than a year")
	}
	// An unset variable would choose another server, another standby or another URL.
	flags.Visit(func(f *flag.Flag) {
		if f.Value.String() == "" {
			err = fmt.Errorf("-%s is empty; leave it out, or set it", f.Name)
		}
	})
	if err != nil {
		return nil, err
	}
	s.pinger, err = heartbeat.NewHTTPPinger(cmp.Or(*url, os.Getenv("HEARTBEAT_URL")), &heartbeat.HTTPOptions{RedactURL: true})
	if err != nil {
		return nil, fmt.Errorf("-url, or HEARTBEAT_URL: %w", err)
	}
	if s.server, err = pgx.ParseConfig(*dsn); err != nil { // here: sql.Open would leave it to the first poll
		return nil, fmt.Errorf("-dsn: %w", err)
	}
	return s, nil
}

// run watches the standby and sends heartbeats until ctx is done.
func (s *settings) run(ctx context.Context, stderr io.Writer, every time.Duration) error {
	db := stdlib.OpenDB(*s.server)
	defer db.Close()
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	replica := NewReplica(cmp.Or(s.standby, "standby"), db, s.standby, nil)
	monitor, err := heartbeat.New(s.pinger, []heartbeat.SyncReporter{replica}, &heartbeat.Options{
		Interval: s.interval,
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
	said := &said{logger: logger, path: replica.Path()}
	for {
		pollCtx, cancel := context.WithTimeout(ctx, pollEvery)
		err := replica.Poll(pollCtx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		said.poll(err, replica.Behind(), time.Now())
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

// said is what the log has said of the standby, so that it says each thing once and
// not at every poll.
type said struct {
	logger *slog.Logger
	path   string
	err    string        // empty: none
	lag    time.Duration // zero: none
}

// poll logs what a poll has changed: an error, a lag of a minute and then of twice
// as long each time, and that both are over.
func (s *said) poll(err error, behind *Behind, now time.Time) {
	if err != nil {
		if text := err.Error(); text != s.err {
			s.err = text
			s.logger.Warn("cannot tell the standby's position", "db", s.path, "error", text)
		}
		return
	}
	if s.err != "" {
		s.err = ""
		s.logger.Info("the standby's position is known again", "db", s.path)
	}
	var lag time.Duration
	if behind != nil {
		lag = now.Sub(behind.Since).Round(time.Second)
	}
	switch {
	case lag >= time.Minute && lag >= 2*s.lag:
		s.lag = lag
		s.logger.Warn("the standby lags", "db", s.path, "lag", lag, "bytes", behind.Bytes)
	case lag < time.Minute && s.lag > 0:
		s.lag = 0
		s.logger.Info("the standby keeps up again", "db", s.path)
	}
}
