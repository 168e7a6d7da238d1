package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Store owns a set of databases, each of which may be enabled and disabled at
// any time and by any goroutine. Nothing in this file knows of heartbeats.
type Store struct {
	mu  sync.Mutex
	dbs []*DB // the enabled ones, in the order they were enabled
}

// A DB is one database. While it is enabled it syncs every few seconds.
type DB struct {
	path   string
	synced atomic.Pointer[time.Time]
	stop   context.CancelFunc
	done   chan struct{}
}

// Path returns the path that the database was enabled with.
func (db *DB) Path() string { return db.path }

// LastSuccessfulSyncAt returns when the database last synced; the zero time if it
// never has since it was enabled.
func (db *DB) LastSuccessfulSyncAt() time.Time {
	if at := db.synced.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// EnableDB starts to replicate the database at path, until ctx is done or
// DisableDB is called. It is an error if the database is enabled already.
func (s *Store) EnableDB(ctx context.Context, path string, every time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index(path) >= 0 {
		return fmt.Errorf("database is enabled already: %s", path)
	}
	ctx, stop := context.WithCancel(ctx)
	db := &DB{path: path, stop: stop, done: make(chan struct{})}
	s.dbs = append(s.dbs, db)
	go db.replicate(ctx, every)
	return nil
}

// DisableDB stops to replicate the database at path, and returns once it has
// stopped. It is an error if the database is not enabled.
func (s *Store) DisableDB(path string) error {
	s.mu.Lock()
	i := s.index(path)
	if i < 0 {
		s.mu.Unlock()
		return fmt.Errorf("database is not enabled: %s", path)
	}
	db := s.dbs[i]
	s.dbs = slices.Delete(s.dbs, i, i+1)
	s.mu.Unlock()
	db.stop()
	<-db.done
	return nil
}

func (s *Store) index(path string) int {
	return slices.IndexFunc(s.dbs, func(db *DB) bool { return db.path == path })
}

func (db *DB) replicate(ctx context.Context, every time.Duration) {
	defer close(db.done)
	for {
		now := time.Now() // before the copy is made: the state that is copied
		db.synced.Store(&now)
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}
