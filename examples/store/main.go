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
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
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
