package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

func TestRun(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, `at first       skipped: no databases
two enabled    sent: 2 databases in sync
status         2 databases
one disabled   1 database
`, out.String())
}

// TestParse: -h explains the program, and arguments are refused.
func TestParse(t *testing.T) {
	var out strings.Builder
	require.NoError(t, parse(nil, &out))
	require.Empty(t, out.String())
	require.ErrorIs(t, parse([]string{"-h"}, &out), flag.ErrHelp)
	require.Equal(t, usage, out.String())
	require.ErrorContains(t, parse([]string{"/data/a.db"}, &out), `unexpected argument "/data/a.db"`)
	require.ErrorContains(t, parse([]string{""}, &out), `unexpected argument ""`)
	require.ErrorContains(t, parse([]string{"-x"}, &out), "not defined: -x")
}

// TestEmbeddingIsShort counts what a daemon has to add.
func TestEmbeddingIsShort(t *testing.T) {
	source, err := os.ReadFile("heartbeat.go")
	require.NoError(t, err)
	lines := strings.Count(string(source), "\n")
	require.LessOrEqual(t, lines, 25, "lines of heartbeat.go, comments and all")
}

func newMonitor(t *testing.T, store *Store) *heartbeat.Monitor {
	t.Helper()
	monitor, err := store.NewMonitor(heartbeat.Config{URL: "http://localhost:1/"}, heartbeat.Options{
		// An hour ahead, so that every sync is too old: each check names each database.
		Clock:  heartbeattest.NewClock(time.Now().Add(time.Hour)),
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return monitor
}

// names reports whether dbs has the database at path.
func names(dbs []heartbeat.DatabaseStatus, path string) bool {
	return slices.ContainsFunc(dbs, func(db heartbeat.DatabaseStatus) bool { return db.Path == path })
}

// TestOwnDatabase has 100 goroutines that enable and disable a database of their
// own: from the moment a call returns, each check and each Status knows of it.
func TestOwnDatabase(t *testing.T) {
	store := &Store{}
	monitor := newMonitor(t, store)
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			path := fmt.Sprintf("/data/%d.db", i)
			want := func(enabled bool) {
				if names(monitor.Status().Databases, path) != enabled {
					t.Errorf("%s is enabled: %v; Status says otherwise", path, enabled)
				}
				if names(monitor.Beat(t.Context()).Unhealthy, path) != enabled {
					t.Errorf("%s is enabled: %v; a check says otherwise", path, enabled)
				}
			}
			for range 20 {
				if err := store.EnableDB(t.Context(), path, time.Hour); err != nil {
					t.Error(err)
				}
				want(true)
				if err := store.DisableDB(path); err != nil {
					t.Error(err)
				}
				want(false)
			}
		})
	}
	group.Wait()
}

// TestSharedDatabases has 100 goroutines that enable and disable the same ten
// databases. Once they rest, the Monitor has the set that the Store has.
func TestSharedDatabases(t *testing.T) {
	store := &Store{}
	monitor := newMonitor(t, store)
	for range 20 {
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				path := fmt.Sprintf("/data/%d.db", i%10)
				if i%20 < 10 {
					_ = store.EnableDB(t.Context(), path, time.Hour) // it may be enabled already,
				} else {
					_ = store.DisableDB(path) // or not at all
				}
				monitor.Beat(t.Context())
			})
		}
		group.Wait()
		var got, want []string
		for _, db := range monitor.Status().Databases {
			got = append(got, db.Path)
		}
		for _, db := range store.reporters() {
			want = append(want, db.Path())
		}
		require.Equal(t, want, got)
	}
}
