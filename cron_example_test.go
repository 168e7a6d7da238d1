package heartbeat_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

// A cron job sends one heartbeat after its sync, and tries again until it is out:
// Run ends when OnResult cancels its context. Beat would make one attempt only.
func ExampleMonitor_Run_cron() {
	server := service()
	defer server.Close()

	beatOnce := func(ctx context.Context, pinger heartbeat.Pinger, db heartbeat.SyncReporter) error {
		ctx, cancel := context.WithTimeout(ctx, 4*time.Minute) // end before cron starts the next job
		defer cancel()
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
			OnResult: func(result heartbeat.Result) {
				if result.Outcome == heartbeat.Sent {
					cancel()
				}
			},
			Logger: plainLog(),
		})
		if err != nil {
			return err
		}
		if err := monitor.Run(ctx); err != nil {
			return err
		}
		if status := monitor.Status(); status.LastSentAt.IsZero() {
			return fmt.Errorf("no heartbeat was sent: %v", status.LastResult)
		}
		return nil
	}

	db := heartbeat.NewSyncTracker("/data/app.db")
	began := time.Now()
	// … replicate. If that fails, ping the fail URL here: a Monitor that has just
	// started knows of no database that was healthy before.
	db.Record(began)
	pinger, err := heartbeat.NewHTTPPinger(server.URL+"/your-uuid-here", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(beatOnce(context.Background(), pinger, db))
	// Output:
	// service: GET /your-uuid-here
	// level=INFO msg="heartbeat sent"
	// <nil>
}

// What ExampleMonitor_Run_cron does when the service cannot be had at once: a 503 is
// mended by a second try after a minute, and a service that refuses connections for
// a quarter of a minute by a third try after twenty seconds. With nothing wrong it
// ends at once, and when its time is over it ends without a heartbeat.
func TestS2_RunUntilSent(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, row := range []struct {
		name     string
		answer   func(since time.Duration) (int, error)
		attempts []time.Duration
		took     time.Duration
		sent     bool
	}{
		{"accepted", func(time.Duration) (int, error) { return http.StatusOK, nil }, []time.Duration{0}, 0, true},
		{"503", func(since time.Duration) (int, error) {
			if since < time.Second {
				return http.StatusServiceUnavailable, nil
			}
			return http.StatusOK, nil
		}, []time.Duration{0, time.Minute}, time.Minute, true},
		{"refused", func(since time.Duration) (int, error) {
			if since < 15*time.Second {
				return 0, refused
			}
			return http.StatusOK, nil
		}, []time.Duration{0, 10 * time.Second, 20 * time.Second}, 20 * time.Second, true},
		{"503 for ever", func(time.Duration) (int, error) { return http.StatusServiceUnavailable, nil },
			[]time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute}, 4*time.Minute - 1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var attempts []time.Duration
				client := &http.Client{Transport: roundTripFunc(func(*http.Request) (*http.Response, error) {
					attempts = append(attempts, time.Since(start))
					code, err := row.answer(time.Since(start))
					if err != nil {
						return nil, err
					}
					w := httptest.NewRecorder()
					w.WriteHeader(code)
					return w.Result(), nil
				})}
				pinger, err := heartbeat.NewHTTPPinger("https://hc-ping.example/your-uuid-here", &heartbeat.HTTPOptions{Client: client})
				require.NoError(t, err)
				db := heartbeat.NewSyncTracker("/data/app.db")
				db.Record(start)
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute-1)
				defer cancel()
				monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
					OnResult: func(result heartbeat.Result) {
						if result.Outcome == heartbeat.Sent {
							cancel()
						}
					},
					Logger: slog.New(slog.DiscardHandler),
				})
				require.NoError(t, err)
				require.NoError(t, monitor.Run(ctx))
				require.Equal(t, row.took, time.Since(start))
				require.Equal(t, row.attempts, attempts)
				require.Equal(t, row.sent, !monitor.Status().LastSentAt.IsZero())
				if !row.sent {
					require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
				}
			})
		})
	}
}
