// Prometheus exports what a heartbeat Monitor does and knows: see [Collector],
// and alerts.yml for rules that use its metrics.
//
// This program watches one database that syncs every few seconds, and sends its
// heartbeats to a receiver of its own on the loopback interface:
//
//	go run -C examples/prometheus . -listen localhost:9469
//	curl http://localhost:9469/metrics
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

func main() {
	listen := flag.String("listen", "localhost:9469", "`address` to serve /metrics on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, func(url string) { fmt.Println("serving", url) }); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done, and calls ready with the address of the metrics.
func run(ctx context.Context, listen string, ready func(url string)) error {
	receiver, err := net.Listen("tcp", "localhost:0") // stands for Healthchecks.io and the like
	if err != nil {
		return err
	}
	defer receiver.Close()
	metrics, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer metrics.Close()

	pinger, err := heartbeat.NewHTTPPinger("http://"+receiver.Addr().String(), nil)
	if err != nil {
		return err
	}
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	tracker.Record(time.Now())
	monitor, collector, err := NewMonitor(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
		Interval: time.Minute,
	})
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector)
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return serve(ctx, receiver, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
	group.Go(func() error { return serve(ctx, metrics, mux) })
	group.Go(func() error { return monitor.Run(ctx) })
	group.Go(func() error { // the database
		for {
			select {
			case <-ctx.Done():
				return nil
			case at := <-time.After(5 * time.Second):
				tracker.Record(at)
			}
		}
	})
	ready("http://" + metrics.Addr().String() + "/metrics")
	return group.Wait()
}

// serve serves on l until ctx is done.
func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
