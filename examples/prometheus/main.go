// Prometheus exports what a heartbeat Monitor does and knows, with the package
// heartbeatprom. The file alerts.yml has rules that use its metrics.
//
// This program watches one database that syncs every few seconds, and sends its
// heartbeats to a receiver of its own on the loopback interface:
//
//	go run -C examples/prometheus . -listen localhost:9469
//	curl http://localhost:9469/metrics
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeatprom"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

const usage = `Usage: prometheus [-listen ADDRESS]

Shows the metrics of package heartbeatprom: it watches a database that syncs every
few seconds, sends a heartbeat each minute to a receiver of its own, and serves
/metrics until it is interrupted. alerts.yml has rules for these metrics.

`

func main() {
	listen, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, listen, func(url string) { fmt.Println("serving", url) }); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

// parse returns the address to listen on. It has told out what is wrong.
func parse(args []string, out io.Writer) (listen string, err error) {
	flags := flag.NewFlagSet("prometheus", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&listen, "listen", "localhost:9469", "`address` to serve /metrics on; port 0 takes any that is free")
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q; the address is -listen ADDRESS", flags.Arg(0))
	case listen == "":
		err = errors.New("-listen is empty; write an address such as localhost:9469")
	}
	if err != nil {
		fmt.Fprintln(out, "prometheus:", err)
	}
	return listen, err
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
	collector := heartbeatprom.NewCollector()
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
		Interval: time.Minute,
		OnResult: collector.OnResult,
	})
	if err != nil {
		return err
	}
	collector.Add(monitor)
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
