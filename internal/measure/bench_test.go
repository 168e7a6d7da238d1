package measure_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// A stillClock stands still, so every Beat but the first is rate-limited.
type stillClock struct{ now time.Time }

func (c *stillClock) Now() time.Time                       { return c.now }
func (c *stillClock) After(time.Duration) <-chan time.Time { return nil }

// An otherReporter is a second type of reporter, so that a call through the
// interface cannot always be predicted.
type otherReporter struct {
	path   string
	lastAt time.Time
}

func (r *otherReporter) Path() string                    { return r.path }
func (r *otherReporter) LastSuccessfulSyncAt() time.Time { return r.lastAt }

var sent = heartbeat.PingerFunc(func(context.Context) error { return nil })

// benchReporters returns n reporters that synced at the given time: trackers, or
// with mixed every other one of another type.
func benchReporters(n int, at time.Time, mixed bool) []heartbeat.SyncReporter {
	reporters := make([]heartbeat.SyncReporter, n)
	for i := range reporters {
		path := "/data/" + strconv.Itoa(i) + ".db"
		if mixed && i%2 == 1 {
			reporters[i] = &otherReporter{path, at}
			continue
		}
		tracker := heartbeat.NewSyncTracker(path)
		tracker.Record(at)
		reporters[i] = tracker
	}
	return reporters
}

// reportRatio runs the two by turns, so that whatever else the machine does slows
// both, and reports how many times as long ours takes: the median of the turns.
func reportRatio(b *testing.B, unit string, theirs, ours func()) {
	turn := func(f func(), times int) time.Duration {
		start := time.Now()
		for range times {
			f()
		}
		return time.Since(start)
	}
	times := max(1, int(time.Millisecond/max(1, turn(ours, 3)/3)))
	ratios := make([]float64, 101)
	for i := range ratios {
		ratios[i] = float64(turn(ours, times)) / float64(turn(theirs, times))
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
}

// BenchmarkBeat compares a check of N healthy databases with the least that can
// be done: a loop that compares each time with a threshold. With a FailPinger the
// check looks for the earliest last sync besides.
func BenchmarkBeat(b *testing.B) {
	for _, kind := range []string{"trackers", "mixed"} {
		for _, n := range []int{1, 100, 10_000, 100_000, 1_000_000} {
			// The databases are made once, so that all walk the same memory.
			clock := &stillClock{time.Now()}
			reporters := sync.OnceValue(func() []heartbeat.SyncReporter {
				return benchReporters(n, clock.now, kind == "mixed")
			})
			loop := bareLoop(reporters, clock.now.Add(-heartbeat.DefaultInterval))
			b.Run(fmt.Sprintf("loop/%s/N=%d", kind, n), func(b *testing.B) {
				reporters()
				b.ReportAllocs()
				stale := 0
				for b.Loop() {
					stale += loop()
				}
				require.Zero(b, stale)
				reportPerDatabase(b, n)
			})
			b.Run(fmt.Sprintf("beat/%s/N=%d", kind, n), func(b *testing.B) {
				benchBeat(b, reporters(), loop, &heartbeat.Options{Clock: clock, Logger: quiet})
			})
			b.Run(fmt.Sprintf("beat-with-FailPinger/%s/N=%d", kind, n), func(b *testing.B) {
				fail := heartbeat.PingerFunc(func(context.Context) error { return nil })
				benchBeat(b, reporters(), loop, &heartbeat.Options{Clock: clock, Logger: quiet, FailPinger: fail})
			})
		}
	}
}

func bareLoop(reporters func() []heartbeat.SyncReporter, threshold time.Time) func() (stale int) {
	return func() (stale int) {
		for _, r := range reporters() {
			if r.LastSuccessfulSyncAt().Before(threshold) {
				stale++
			}
		}
		return stale
	}
}

func benchBeat(b *testing.B, reporters []heartbeat.SyncReporter, loop func() int, opts *heartbeat.Options) {
	monitor, err := heartbeat.New(sent, reporters, opts)
	require.NoError(b, err)
	require.Equal(b, heartbeat.Sent, monitor.Beat(b.Context()).Outcome)
	b.ReportAllocs()
	for b.Loop() {
		if r := monitor.Beat(b.Context()); r.Reason != heartbeat.ReasonRateLimited {
			b.Fatal(r.Outcome, r.Reason)
		}
	}
	reportPerDatabase(b, len(reporters))
	reportRatio(b, "x-loop", func() { loop() }, func() { monitor.Beat(b.Context()) })
}

func reportPerDatabase(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/database")
}

// A storedReporter is the least that a tracker can be.
type storedReporter struct {
	path   string
	lastAt atomic.Pointer[time.Time]
}

func (r *storedReporter) Path() string                    { return r.path }
func (r *storedReporter) LastSuccessfulSyncAt() time.Time { return *r.lastAt.Load() }
func (r *storedReporter) Record(at time.Time)             { r.lastAt.Store(&at) }

// BenchmarkRecord has 8 writers record syncs flat out, each of a database of its
// own, while a Monitor checks these databases as often as it can.
func BenchmarkRecord(b *testing.B) {
	const writers = 8
	type recorder interface {
		heartbeat.SyncReporter
		Record(at time.Time)
	}
	for _, kind := range []struct {
		name string
		make func(path string) recorder
	}{
		{"store", func(path string) recorder { return &storedReporter{path: path} }},
		{"record", func(path string) recorder { return heartbeat.NewSyncTracker(path) }},
	} {
		b.Run(kind.name, func(b *testing.B) {
			var recorders []recorder
			var reporters []heartbeat.SyncReporter
			for i := range writers + runtime.GOMAXPROCS(0) { // RunParallel rounds up
				r := kind.make(strconv.Itoa(i))
				r.Record(time.Now())
				recorders, reporters = append(recorders, r), append(reporters, r)
			}
			monitor, err := heartbeat.New(sent, reporters, &heartbeat.Options{Logger: quiet})
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			var checks sync.WaitGroup
			checks.Go(func() {
				for ctx.Err() == nil {
					monitor.Beat(ctx)
				}
			})
			var next atomic.Int32
			b.ReportAllocs()
			b.SetParallelism((writers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				r := recorders[next.Add(1)-1]
				for pb.Next() {
					r.Record(time.Now())
				}
			})
			cancel()
			checks.Wait()
		})
	}
}

// BenchmarkPing compares a ping on loopback with a bare client that makes a
// connection for each request too, sends the same and drains the answer.
func BenchmarkPing(b *testing.B) {
	for _, size := range []int{0, 2, 10_000} {
		body := make([]byte, size)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(body)
		}))
		b.Cleanup(server.Close)
		url := server.URL + "/ping/0123-4567"
		pinger, err := heartbeat.NewHTTPPinger(url, nil)
		require.NoError(b, err)
		get := bareGet(b, url)
		ping := func() {
			if err := pinger.Ping(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("client/body=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				get()
			}
		})
		b.Run(fmt.Sprintf("pinger/body=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ping()
			}
			reportRatio(b, "x-client", get, ping)
		})
	}
}

func bareGet(b *testing.B, url string) func() {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return func() {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// A countingClock counts the wake-ups that it is asked for.
type countingClock struct {
	*heartbeattest.Clock
	wakeUps atomic.Int64
}

func (c *countingClock) After(d time.Duration) <-chan time.Time {
	c.wakeUps.Add(1)
	return c.Clock.After(d)
}

// drive moves a running Monitor's clock from wake-up to wake-up for d, by steps
// that are no longer than the time between two.
func drive(tb testing.TB, clock *heartbeattest.Clock, d, step time.Duration, sync func()) {
	for end := clock.Now().Add(d); clock.Now().Before(end); {
		sync()
		if err := clock.Step(tb.Context(), step); err != nil {
			tb.Fatal(err)
		}
	}
}

// run runs the Monitor until the function that it returns is called.
func run(tb testing.TB, monitor *heartbeat.Monitor) (stop func()) {
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- monitor.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(tb, <-done)
	}
}

// BenchmarkIdle measures what a Monitor takes that has nothing to do: a day at
// the default interval on a fake clock, and memory.
func BenchmarkIdle(b *testing.B) {
	b.Run("wakeups", func(b *testing.B) { countWakeUps(b, nil) })
	b.Run("wakeups-with-FailPinger", func(b *testing.B) {
		countWakeUps(b, heartbeat.PingerFunc(func(context.Context) error { return nil }))
	})
	b.Run("monitors", func(b *testing.B) {
		const n = 10_000
		monitors := make([]*heartbeat.Monitor, n)
		for b.Loop() {
			clear(monitors)
			before := heap()
			for i := range monitors {
				monitors[i], _ = heartbeat.New(sent, nil, &heartbeat.Options{Logger: quiet})
			}
			b.ReportMetric(float64(heap()-before)/n, "B/monitor")
		}
		runtime.KeepAlive(monitors)
	})
	b.Run("databases", func(b *testing.B) { // without the trackers themselves
		const n = 100_000
		reporters := benchReporters(n, time.Now(), false)
		for b.Loop() {
			before := heap()
			monitor, _ := heartbeat.New(sent, reporters, &heartbeat.Options{Logger: quiet})
			b.ReportMetric(float64(heap()-before)/n, "B/database")
			runtime.KeepAlive(monitor)
		}
		runtime.KeepAlive(reporters)
	})
}

// countWakeUps runs days in which the database syncs every ten seconds, at three
// seconds past: so a check finds a last sync that is seconds old.
func countWakeUps(b *testing.B, fail heartbeat.Pinger) {
	clock := &countingClock{Clock: heartbeattest.NewClock(epoch)}
	tracker := heartbeat.NewSyncTracker("/data/app.db")
	tracker.Record(epoch)
	monitor, err := heartbeat.New(sent, []heartbeat.SyncReporter{tracker},
		&heartbeat.Options{Clock: clock, Logger: quiet, FailPinger: fail})
	require.NoError(b, err)
	before := runtime.NumGoroutine()
	defer run(b, monitor)()
	require.NoError(b, clock.BlockUntil(b.Context(), 1))
	b.ReportMetric(float64(runtime.NumGoroutine()-before), "goroutines")
	start := clock.wakeUps.Load()
	for b.Loop() {
		drive(b, clock.Clock, day, time.Second, func() {
			if clock.Now().Second()%10 == 3 {
				tracker.Record(clock.Now())
			}
		})
	}
	require.NoError(b, clock.BlockUntil(b.Context(), 1))
	b.ReportMetric(float64(clock.wakeUps.Load()-start)/float64(b.N)/24, "wakeups/hour")
}

// heap returns the bytes of live objects.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkYear runs a year at the shortest interval, every beat of it with a
// log line that is formatted and thrown away.
func BenchmarkYear(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		clock := heartbeattest.NewClock(epoch)
		tracker := heartbeat.NewSyncTracker("/data/app.db")
		record := func() { tracker.Record(clock.Now()) }
		record()
		var beats int
		pinger := heartbeat.PingerFunc(func(context.Context) error { beats++; return nil })
		monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{tracker}, &heartbeat.Options{
			Interval: heartbeat.MinInterval, Clock: clock, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		require.NoError(b, err)
		stop := run(b, monitor)
		drive(b, clock, 365*day, heartbeat.MinInterval, record)
		require.NoError(b, clock.BlockUntil(b.Context(), 1)) // the last beat is done
		stop()
		require.Equal(b, 525_600+1, beats)
		b.ReportMetric(float64(beats), "beats/op")
	}
}

// BenchmarkAddRemove adds N databases one by one and removes them again, first
// come first gone, while checks run as fast as they can.
func BenchmarkAddRemove(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("N=%d", n), func(b *testing.B) {
			now := time.Now()
			reporters := benchReporters(n, now, false)
			monitor, err := heartbeat.New(sent, nil, &heartbeat.Options{Clock: &stillClock{now}, Logger: quiet})
			require.NoError(b, err)
			ctx, cancel := context.WithCancel(b.Context())
			var checks sync.WaitGroup
			checks.Go(func() {
				for ctx.Err() == nil {
					monitor.Beat(ctx)
				}
			})
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range reporters {
					if err := monitor.Add(r); err != nil {
						b.Fatal(err)
					}
				}
				for _, r := range reporters {
					if !monitor.Remove(r.Path()) {
						b.Fatal("not removed")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n), "ns/change")
			cancel()
			checks.Wait()
		})
	}
}

// BenchmarkWeight builds a program that uses net/http and log/slog, without and
// with the library, and reports by how many bytes the binary grows.
func BenchmarkWeight(b *testing.B) {
	const program = `package main

import (
	"context"
	"log/slog"
	"net/http"
	%s
)

func main() {
	resp, err := http.Get("http://localhost/")
	slog.Info("got", "resp", resp, "err", err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { slog.Error("served", "err", http.ListenAndServe("localhost:0", nil)) }()
	%s
	<-ctx.Done()
}
`
	const use = `tracker := heartbeat.NewSyncTracker("/data/app.db")
	config := heartbeat.Config{URL: "http://localhost/"}
	monitor, err := config.NewMonitor([]heartbeat.SyncReporter{tracker}, nil)
	if err != nil {
		panic(err)
	}
	_ = monitor.Run(ctx)`
	build := func(name, imports, statements string) int64 {
		source := filepath.Join(b.TempDir(), name+".go")
		require.NoError(b, os.WriteFile(source, fmt.Appendf(nil, program, imports, statements), 0o600))
		binary := filepath.Join(b.TempDir(), name)
		out, err := exec.CommandContext(b.Context(), "go", "build", "-ldflags=-s -w", "-o", binary, source).CombinedOutput()
		require.NoError(b, err, string(out))
		info, err := os.Stat(binary)
		require.NoError(b, err)
		return info.Size()
	}
	for b.Loop() {
		without := build("without", "", "")
		with := build("with", `"github.com/go-heartbeat/heartbeat"`, use)
		b.ReportMetric(float64(without), "B-without")
		b.ReportMetric(float64(with-without), "B-added")
	}
}

// BenchmarkTargets pings three real servers, the second of which hangs until the
// timeout, and reports how far apart the first and the third were reached.
func BenchmarkTargets(b *testing.B) {
	var first, third atomic.Pointer[time.Time]
	arrives := func(at *atomic.Pointer[time.Time]) string {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			now := time.Now()
			at.Store(&now)
		}))
		b.Cleanup(server.Close)
		return server.URL
	}
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	b.Cleanup(hanging.Close)
	var pingers []heartbeat.Pinger
	for _, url := range []string{arrives(&first), hanging.URL, arrives(&third)} {
		p, err := heartbeat.NewHTTPPinger(url, &heartbeat.HTTPOptions{Timeout: 20 * time.Millisecond})
		require.NoError(b, err)
		pingers = append(pingers, p)
	}
	pinger := heartbeat.MultiPinger(pingers...)
	var apart time.Duration
	for b.Loop() {
		require.Error(b, pinger.Ping(b.Context()))
		apart = max(apart, first.Load().Sub(*third.Load()).Abs())
	}
	b.ReportMetric(float64(apart.Microseconds())/1000, "ms-apart-at-most")
}
