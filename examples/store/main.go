// Store shows how a daemon embeds heartbeats whose set of databases has an owner
// already, as Litestream's Store is: see heartbeat.go, which is all that it takes.
//
//	go run ./examples/store
//
// It enables and disables two databases, makes a check after each step, and sends
// its heartbeats to a receiver of its own on the loopback interface.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

const usage = `Usage: store

Enables and disables two databases, and shows what a check finds after each step.
`

func main() {
	switch err := parse(os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	}
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

// parse tells out what is wrong with args, which are to be none.
func parse(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q: there is nothing to set", flags.Arg(0))
		fmt.Fprintln(out, "store:", err)
		return err
	}
	return nil
}

func run(ctx context.Context, stdout io.Writer) error {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	store := &Store{}
	monitor, err := store.NewMonitor(heartbeat.Config{URL: receiver.URL}, heartbeat.Options{
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	say := func(step string) {
		result := monitor.Beat(ctx) // a daemon would have monitor.Run do this
		fmt.Fprintf(stdout, "%-14s %v: %v\n", step, result.Outcome, result)
	}
	say("at first")
	err = errors.Join(store.EnableDB(ctx, "/data/a.db", time.Second), store.EnableDB(ctx, "/data/b.db", time.Second))
	if err != nil {
		return err
	}
	store.awaitSyncs()
	say("two enabled")
	fmt.Fprintf(stdout, "%-14s %d databases\n", "status", len(monitor.Status().Databases))
	if err := store.DisableDB("/data/b.db"); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%-14s %d database\n", "one disabled", len(monitor.Status().Databases))
	return store.DisableDB("/data/a.db")
}

// awaitSyncs waits until each enabled database has made its first sync.
func (s *Store) awaitSyncs() {
	for _, db := range s.reporters() {
		for db.LastSuccessfulSyncAt().IsZero() {
			time.Sleep(time.Millisecond)
		}
	}
}
