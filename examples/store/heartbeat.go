package main

import "github.com/go-heartbeat/heartbeat"

// NewMonitor returns a Monitor of the databases that are enabled whenever it
// looks; their set has no second copy that could differ from the Store's.
func (s *Store) NewMonitor(c heartbeat.Config, opts heartbeat.Options) (*heartbeat.Monitor, error) {
	opts.Source = s.reporters
	return c.NewMonitor(nil, &opts)
}

// reporters returns the enabled databases. It holds the lock only for as long as
// it copies them.
func (s *Store) reporters() []heartbeat.SyncReporter {
	s.mu.Lock()
	defer s.mu.Unlock()
	reporters := make([]heartbeat.SyncReporter, len(s.dbs))
	for i, db := range s.dbs {
		reporters[i] = db
	}
	return reporters
}
