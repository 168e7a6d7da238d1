//go:build backends

package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

// A store is an S3 server that counts what it is asked for.
type store struct {
	t       *testing.T
	backend *s3mem.Backend
	url     string // of the replica

	mu     sync.Mutex
	counts map[string]int  // "LIST", and the methods of requests for objects
	stalls map[string]bool // what is not answered
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{t: t, backend: s3mem.New(), counts: map[string]int{}, stalls: map[string]bool{}}
	require.NoError(t, s.backend.CreateBucket("bucket"))
	fake := gofakes3.New(s.backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := r.Method
		if r.URL.Query().Has("list-type") {
			what = "LIST"
		}
		s.mu.Lock()
		s.counts[what]++
		stalls := s.stalls[what]
		s.mu.Unlock()
		if stalls {
			<-r.Context().Done()
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = "s3://bucket/app?region=us-east-1&endpoint=" + server.URL
	return s
}

// taken returns what was asked for since it was last called.
func (s *store) taken() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.counts
	s.counts = map[string]int{}
	return counts
}

// stall makes the server answer no requests of a kind, or again.
func (s *store) stall(what string, stalls bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalls[what] = stalls
}

// asked returns how often the server was asked for that since taken was called.
func (s *store) asked(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

func (s *store) keys(level int) (keys []string) {
	prefix := gofakes3.NewPrefix(new(fmt.Sprintf("app/%04x/", level)), nil)
	list, err := s.backend.ListBucket("bucket", &prefix, gofakes3.ListBucketPage{})
	require.NoError(s.t, err)
	for _, object := range list.Contents {
		keys = append(keys, object.Key)
	}
	return keys
}

// cut leaves the first bytes of an object.
func (s *store) cut(key string, size int64) {
	s.change(key, func(data []byte) []byte { return data[:size] })
}

func (s *store) change(key string, change func([]byte) []byte) {
	object, err := s.backend.GetObject("bucket", key, nil)
	require.NoError(s.t, err)
	data, err := io.ReadAll(object.Contents)
	require.NoError(s.t, err)
	s.put(key, change(data))
}

func (s *store) put(key string, data []byte) {
	_, err := s.backend.PutObject("bucket", key, map[string]string{}, bytes.NewReader(data), int64(len(data)), nil)
	require.NoError(s.t, err)
}

func (s *store) remove(key string) {
	_, err := s.backend.DeleteObject("bucket", key)
	require.NoError(s.t, err)
}

// newS3Bench returns a reporter over a database whose replica is on the server.
func newS3Bench(t *testing.T, interval time.Duration) (*bench, *store) {
	t.Helper()
	s := newStore(t)
	path := filepath.Join(t.TempDir(), "app.db")
	require.NoError(t, createDB(t.Context(), path))
	clock := heartbeattest.NewClock(time.Now())
	b := &bench{newReporter(openReplicated(t, path, s.url), clock, slog.New(slog.DiscardHandler)), t, clock}
	b.every = interval / checksPerBeat
	require.NoError(t, b.db.SyncAndWait(t.Context()))
	s.taken()
	require.NoError(t, b.check(t.Context()))
	require.Equal(t, map[string]int{"LIST": 10}, s.taken(), "the first check makes the whole plan")
	require.Zero(t, b.age())
	return b, s
}

func init() { // the SDK looks for credentials before it asks
	_ = os.Setenv("AWS_ACCESS_KEY_ID", "test")
	_ = os.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	_ = os.Unsetenv("AWS_CA_BUNDLE") // with it, Litestream's client makes no connection
}

// requestsInTwoHours are those of README.md, of a database that is idle. One that
// is written to has twice as many GETs.
var requestsInTwoHours = map[time.Duration]map[string]int{
	time.Minute:      {"LIST": 2 * 52, "GET": 2 * 192},
	5 * time.Minute:  {"LIST": 2 * 52},
	15 * time.Minute: {"LIST": 2 * 20},
	time.Hour:        {"LIST": 2 * 8},
}

// What an hour of checks costs, of a database that is idle and of one that is
// written to before each, and no sync gets older than an interval.
func TestReporter_requestsAnHour(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{time.Minute, 90 * time.Second, 5 * time.Minute, 15 * time.Minute, 22 * time.Minute, time.Hour} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("interval=%v/busy=%v", interval, busy), func(t *testing.T) {
				t.Parallel()
				b, s := newS3Bench(t, interval)
				asked := map[string]int{}
				writer, err := sql.Open("sqlite", "file:"+b.Path()+"?_pragma=busy_timeout(10000)")
				require.NoError(t, err)
				defer writer.Close()
				for began := b.clock.Now(); b.clock.Now().Sub(began) < 2*time.Hour; {
					b.clock.Advance(b.every)
					require.NoError(t, b.db.SyncAndWait(t.Context()))
					if busy {
						_, err := writer.ExecContext(t.Context(), `INSERT INTO event VALUES (datetime());`)
						require.NoError(t, err)
					}
					s.taken()
					require.NoError(t, b.check(t.Context()))
					require.LessOrEqual(t, b.age(), interval/2)
					for what, n := range s.taken() {
						asked[what] += n
					}
				}
				if want, ok := requestsInTwoHours[interval]; ok {
					if busy {
						want = map[string]int{"LIST": want["LIST"], "GET": 2 * want["GET"]}
					}
					assert.Equal(t, want["LIST"], asked["LIST"])
					assert.Equal(t, want["GET"], asked["GET"])
				}
				assert.LessOrEqual(t, asked["LIST"], 2*60)
				assert.LessOrEqual(t, asked["GET"], 2*400)
				assert.Empty(t, asked["PUT"]+asked["POST"]+asked["HEAD"]+asked["DELETE"])
			})
		}
	}
}

// Files of a level 0 that Litestream has tidied up since are no gap.
func TestReporter_compacted(t *testing.T) {
	t.Parallel()
	b, s := newS3Bench(t, 20*time.Minute)
	for range 3 {
		insert(t, b.Path())
		require.NoError(t, b.db.SyncAndWait(t.Context()))
	}
	_, err := b.db.Compact(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, b.db.Replica.Client.DeleteLTXFiles(t.Context(), []*ltx.FileInfo{
		{MinTXID: 1, MaxTXID: 1}, {MinTXID: 2, MaxTXID: 2}, {MinTXID: 3, MaxTXID: 3},
	}))
	s.taken()
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
	assert.Equal(t, map[string]int{"LIST": 5}, s.taken(), "a plan of the levels in use")
}

// Faults of a replica, each found by the next check, or by the next that lists.
func TestReporter_s3Faults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault func(t *testing.T, s *store)
		want  string
	}{
		"the newest is empty":     {func(_ *testing.T, s *store) { s.cut("app/0000/0000000000000003-0000000000000003.ltx", 0) }, "replica's file 0000000000000003-0000000000000003.ltx of level 0: "},
		"the newest has a header": {func(_ *testing.T, s *store) { s.cut("app/0000/0000000000000003-0000000000000003.ltx", 100) }, "replica's file 0000000000000003-0000000000000003.ltx of level 0: "},
		"the newest ends otherwise": {func(_ *testing.T, s *store) {
			s.change("app/0000/0000000000000003-0000000000000003.ltx", func(data []byte) []byte { return append(data[:len(data)-1:len(data)-1], ^data[len(data)-1]) })
		}, "replica's file 0000000000000003-0000000000000003.ltx of level 0: it does not end as Litestream's own copy does"},
		"one before it is empty": {func(_ *testing.T, s *store) { s.cut("app/0000/0000000000000002-0000000000000002.ltx", 0) }, "replica cannot be restored: file 0000000000000002-0000000000000002.ltx of level 0 has 0 bytes: it is cut"},
		"one before it is cut by one": {func(_ *testing.T, s *store) {
			s.change("app/0000/0000000000000002-0000000000000002.ltx", func(data []byte) []byte { return data[:len(data)-1] })
		}, "replica cannot be restored: file 0000000000000002-0000000000000002.ltx of level 0 has "},
		"one before it is gone": {func(t *testing.T, s *store) {
			_, err := s.backend.DeleteObject("bucket", "app/0000/0000000000000002-0000000000000002.ltx")
			require.NoError(t, err)
		}, "replica cannot be restored: transaction not available"},
		"all are gone": {func(t *testing.T, s *store) {
			for _, key := range s.keys(0) {
				_, err := s.backend.DeleteObject("bucket", key)
				require.NoError(t, err)
			}
		}, "replica is at transaction 0, the database at 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, s := newS3Bench(t, time.Minute)
			for range 2 {
				insert(t, b.Path())
				require.NoError(t, b.checkLater())
			}
			require.Zero(t, b.age())
			require.Len(t, s.keys(0), 3)
			test.fault(t, s)
			var err error
			healthy := b.LastSuccessfulSyncAt()
			for range 8 { // two minutes
				b.clock.Advance(b.every)
				if err = b.check(t.Context()); err != nil {
					break
				}
				healthy = b.LastSuccessfulSyncAt()
			}
			require.ErrorContains(t, err, test.want)
			for range 8 {
				b.clock.Advance(b.every)
				_ = b.check(t.Context())
			}
			assert.Equal(t, healthy, b.LastSuccessfulSyncAt(), "healthy again by itself")
		})
	}
}

// The hourly plan finds what no listing of level 0 shows.
func TestReporter_snapshotCut(t *testing.T) {
	t.Parallel()
	b, s := newS3Bench(t, 5*time.Minute)
	insert(t, b.Path())
	require.NoError(t, b.db.SyncAndWait(t.Context()))
	_, err := b.db.Snapshot(t.Context())
	require.NoError(t, err)
	keys := s.keys(litestream.SnapshotLevel)
	require.Len(t, keys, 1)
	s.cut(keys[0], 0)
	began := b.clock.Now()
	for err == nil && b.clock.Now().Sub(began) <= 2*planEvery {
		err = b.checkLater()
	}
	require.ErrorContains(t, err, "of level 9 has 0 bytes: it is cut")
	assert.LessOrEqual(t, b.clock.Now().Sub(began), planEvery+b.every)
	before := b.LastSuccessfulSyncAt()
	require.ErrorContains(t, b.checkLater(), "of level 9 has 0 bytes: it is cut")
	assert.Equal(t, before, b.LastSuccessfulSyncAt())
}

// A replica that does not answer ends the check, also where that was cut short.
func TestReporter_hangs(t *testing.T) {
	t.Parallel()
	b, s := newS3Bench(t, 5*time.Minute)
	s.stall("LIST", true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	b.clock.Advance(b.every)
	require.ErrorIs(t, b.check(ctx), context.DeadlineExceeded)
	require.NotNil(t, b.replica.listed, "it says nothing of the replica")
	s.stall("LIST", false)
	s.taken()
	require.NoError(t, b.checkLater())
	assert.Zero(t, b.age())
	assert.Equal(t, map[string]int{"LIST": 1}, s.taken())
}
