package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/stretchr/testify/require"
)

// BenchmarkBeat compares a check of real Litestream databases with the least
// that can be done: a loop that asks each for its last sync and compares that
// with a threshold.
func BenchmarkBeat(b *testing.B) {
	const databases = 10_000
	reporters := make([]heartbeat.SyncReporter, databases)
	for i := range reporters {
		db := litestream.NewDB(fmt.Sprintf("/data/%d.db", i))
		db.RecordSuccessfulSync()
		reporters[i] = db
	}
	b.Run("loop", func(b *testing.B) {
		b.ReportAllocs()
		threshold := time.Now().Add(-time.Hour)
		for b.Loop() {
			for _, r := range reporters {
				if r.LastSuccessfulSyncAt().Before(threshold) {
					b.Fatal("stale")
				}
			}
		}
	})
	b.Run("beat", func(b *testing.B) {
		b.ReportAllocs()
		// The clock stands still, so that only the first beat is due.
		monitor, err := heartbeat.New(&heartbeattest.Pinger{}, reporters, &heartbeat.Options{
			Clock:  heartbeattest.NewClock(time.Now()),
			Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(b, err)
		require.Equal(b, heartbeat.Sent, monitor.Beat(b.Context()).Outcome)
		for b.Loop() {
			if monitor.Beat(b.Context()).Reason != heartbeat.ReasonRateLimited {
				b.Fatal("not judged healthy")
			}
		}
	})
}

// BenchmarkPing compares a ping with Litestream's, and with a client that sends
// the same request and reads the answer to its end.
func BenchmarkPing(b *testing.B) {
	for _, size := range []int{0, 2, 10_000} {
		body := strings.Repeat("x", size)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, body)
		}))
		b.Cleanup(server.Close)

		bench := func(name string, ping func(b *testing.B) error) {
			b.Run(fmt.Sprintf("%s/body=%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := ping(b); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
		b.Cleanup(client.CloseIdleConnections)
		bench("client", func(b *testing.B) error {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				return err
			}
			request.Header.Set("User-Agent", "go-heartbeat/1")
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			_, err = io.Copy(io.Discard, response.Body)
			return err
		})
		pinger, err := heartbeat.NewHTTPPinger(server.URL, nil)
		require.NoError(b, err)
		bench("heartbeat", func(b *testing.B) error { return pinger.Ping(b.Context()) })

		theirs := litestream.NewHeartbeatClient(server.URL, time.Minute)
		bench("litestream", func(b *testing.B) error { return theirs.Ping(b.Context()) })
	}
}

// BenchmarkRestoreCheck restores a database of 10 MB that does not compress.
func BenchmarkRestoreCheck(b *testing.B) {
	const size = 10_000_000
	dir := b.TempDir()
	path := filepath.Join(dir, "app.db")
	require.NoError(b, createDB(b.Context(), path))
	sqlite, err := sql.Open("sqlite", "file:"+path)
	require.NoError(b, err)
	_, err = sqlite.ExecContext(b.Context(), `INSERT INTO attachment VALUES (randomblob(?));`, size)
	require.NoError(b, errors.Join(err, sqlite.Close()))
	db, err := newDB(dbConfig{Path: path, Replica: replicaConfig{URL: "file://" + dir + "/replica"}})
	require.NoError(b, err)
	db.SetLogger(slog.New(slog.DiscardHandler))
	db.Replica.Client.SetLogger(slog.New(slog.DiscardHandler))
	db.MonitorInterval, db.Replica.MonitorEnabled = 0, false
	require.NoError(b, db.Open())
	b.Cleanup(func() { _ = db.Close(context.Background()) })
	require.NoError(b, db.SyncAndWait(b.Context()))
	check := &restoreCheck{
		reporter: newReporter(db, systemClock{}, nil), every: time.Hour, dir: dir, timeout: time.Hour, freeSpace: freeSpace,
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, check.restoreInTime(b.Context()))
	}
}
