//go:build unix

package measure_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

// serveEnv makes this program the service that is pinged: a process of its own, so
// that the CPU of its part is not counted.
const serveEnv = "HEARTBEAT_MEASURE_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	fmt.Println(server.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it is gone
}

// startService starts the service, and returns its URL.
func startService(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line)
}

// manyMonitors is how many there are in one process, and spread the time within
// which they start: a third of the interval, so that they send three times as many
// heartbeats a minute as they would in the long run.
const (
	manyMonitors = 10_000
	spread       = 20 * time.Second
	atOnce       = time.Duration(1)
)

// BenchmarkManyMonitors has 10,000 Monitors in one process send one heartbeat each,
// over TLS, in half a minute:
//
//	go test -run='^$' -bench=ManyMonitors -benchtime=1x ./internal/measure
//
// In "apart" each starts at a random moment, and all share a client whose transport
// bounds the connections and keeps them. In "at-once" all start together, with a
// connection for each ping, as a pinger has them that is given no client: their
// handshakes share the CPU, and what takes longer than ten seconds is given up. It
// ends when each has tried once. Where there is one core only ("taskset -c 0" before
// the command) most of "at-once" fail.
func BenchmarkManyMonitors(b *testing.B) {
	b.Run("apart", func(b *testing.B) {
		for b.Loop() {
			dialer := &countingDialer{}
			transport := trustingTransport()
			transport.DialContext = dialer.dial
			transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = 32, 32
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			measureMany(b, dialer, spread, func() *http.Client { return client })
		}
	})
	b.Run("at-once", func(b *testing.B) {
		for b.Loop() {
			dialer := &countingDialer{}
			measureMany(b, dialer, atOnce, func() *http.Client {
				transport := trustingTransport()
				transport.DialContext = dialer.dial
				transport.DisableKeepAlives = true
				return &http.Client{Transport: transport}
			})
		}
	})
}

// trustingTransport returns a transport that trusts the certificate of httptest,
// which is the same in each process.
func trustingTransport() *http.Transport {
	return httptestTransport().Clone()
}

var httptestTransport = sync.OnceValue(func() *http.Transport {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return server.Client().Transport.(*http.Transport)
})

func measureMany(b *testing.B, dialer *countingDialer, spread time.Duration, client func() *http.Client) {
	url := startService(b)
	ctx, cancel := context.WithCancel(b.Context())
	var runs sync.WaitGroup
	defer runs.Wait()
	defer cancel()
	var sent, failed atomic.Int64
	var tried sync.WaitGroup
	tried.Add(manyMonitors)
	before, goroutines := memory(), runtime.NumGoroutine()
	monitors := make([]*heartbeat.Monitor, manyMonitors)
	for i := range monitors {
		first := sync.OnceFunc(tried.Done)
		monitors[i] = newTenant(b, url, i, client(), func(r heartbeat.Result) {
			if r.Outcome == heartbeat.Sent {
				sent.Add(1)
			} else {
				failed.Add(1)
			}
			first()
		})
	}
	cpu, start := cpuTime(b), time.Now()
	for _, monitor := range monitors {
		runs.Go(func() {
			select {
			case <-time.After(rand.N(spread)):
				_ = monitor.Run(ctx)
			case <-ctx.Done():
			}
		})
	}
	tried.Wait()
	took := time.Since(start)
	cpu = cpuTime(b) - cpu
	b.ReportMetric(float64(sent.Load()), "sent")
	b.ReportMetric(float64(failed.Load()), "failed")
	b.ReportMetric(took.Seconds(), "s")
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(sent.Load()+failed.Load()), "cpu-ms/ping")
	b.ReportMetric(float64(dialer.peak.Load()), "sockets")
	after := memory()
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/manyMonitors, "heap-B/monitor")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/manyMonitors, "stack-B/monitor")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/manyMonitors, "goroutines/monitor")
}

// newTenant returns a Monitor of one database, with a URL and a name of its own.
func newTenant(b *testing.B, url string, i int, client *http.Client, onResult func(heartbeat.Result)) *heartbeat.Monitor {
	name := "tenant " + strconv.Itoa(i)
	pinger, err := heartbeat.NewHTTPPinger(url+"/"+strconv.Itoa(i), &heartbeat.HTTPOptions{Client: client, Name: name})
	require.NoError(b, err)
	db := heartbeat.NewSyncTracker("/data/" + strconv.Itoa(i) + ".db")
	db.Record(time.Now().Add(time.Minute)) // in sync as long as the measurement lasts
	monitor, err := heartbeat.New(pinger, []heartbeat.SyncReporter{db}, &heartbeat.Options{
		Interval: time.Minute, MaxSyncAge: time.Hour, Logger: quiet, OnResult: onResult,
	})
	require.NoError(b, err)
	return monitor
}

// A countingDialer counts the connections that are open at once.
type countingDialer struct {
	net.Dialer
	open, peak atomic.Int64
}

func (d *countingDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	open := d.open.Add(1)
	for peak := d.peak.Load(); open > peak && !d.peak.CompareAndSwap(peak, open); peak = d.peak.Load() {
	}
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { d.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// memory returns what is in use. Stacks shrink by half at each collection.
func memory() (stats runtime.MemStats) {
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return stats
}

// cpuTime returns the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
