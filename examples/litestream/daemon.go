package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeatprom"
	_ "modernc.org/sqlite" // the driver that Litestream uses
)

// openPause is the pause before a database that failed to open is tried again.
const openPause = 30 * time.Second

// Containers are given ten seconds to stop, as a rule. A last sync is tried again
// until lastSyncTimeout is over; what hangs all the same, in a file system that is
// gone, is left at shutdownTimeout.
const (
	lastSyncTimeout = 5 * time.Second
	shutdownTimeout = 8 * time.Second
)

// A daemon replicates databases, and sends heartbeats while all are replicated.
type daemon struct {
	store     *litestream.Store
	databases []*litestream.DB
	reporters []*reporter          // one for each database
	monitors  []*heartbeat.Monitor // one for each heartbeat
	watched   [][]int              // the databases of each monitor, by their indexes
	restores  []*restoreCheck      // one for each database; nil: none
	addr      string               // of the HTTP server; "": none
	metrics   *heartbeatprom.Collector
	closed    atomic.Int32 // how many databases were closed in good order
	options
}

type options struct {
	logger           *slog.Logger
	litestreamLogger *slog.Logger

	// For the demonstration and tests.
	clock           heartbeat.Clock                  // nil: the system's
	monitorInterval time.Duration                    // how often Litestream looks for writes; zero: its default
	lastSyncTimeout time.Duration                    // zero: lastSyncTimeout
	shutdownTimeout time.Duration                    // zero: shutdownTimeout
	onResult        func(heartbeat.Result)           // told of each check
	levels          litestream.CompactionLevels      // nil: Litestream's default
	restoreTimeout  time.Duration                    // zero: restoreTimeout
	freeSpace       func(dir string) (uint64, error) // nil: freeSpace
}

func (o options) withDefaults() options {
	if o.clock == nil {
		o.clock = systemClock{}
	}
	if o.levels == nil {
		o.levels = litestream.DefaultCompactionLevels
	}
	if o.freeSpace == nil {
		o.freeSpace = freeSpace
	}
	o.lastSyncTimeout = cmp.Or(o.lastSyncTimeout, lastSyncTimeout)
	o.shutdownTimeout = cmp.Or(o.shutdownTimeout, shutdownTimeout)
	o.restoreTimeout = cmp.Or(o.restoreTimeout, restoreTimeout)
	return o
}

// newDaemon returns a daemon that has opened nothing yet: so its errors are
// those of the configuration.
func newDaemon(cfg *config, opts options) (*daemon, error) {
	opts = opts.withDefaults()
	d := &daemon{options: opts, addr: cfg.Addr, metrics: heartbeatprom.NewCollector()}
	slot := make(chan struct{}, 1)
	for i, c := range cfg.DBs {
		db, err := newDB(c)
		if err != nil {
			return nil, fmt.Errorf("dbs[%d]: %w", i, err)
		}
		if opts.monitorInterval > 0 {
			db.MonitorInterval = opts.monitorInterval
		}
		d.databases = append(d.databases, db)
		d.reporters = append(d.reporters, newReporter(db, opts.clock, d.logger))
		d.restores = append(d.restores, d.newRestoreCheck(cfg, i, slot))
	}
	// A store opens all its databases or none, so each is handed to it once it can
	// be opened: one that cannot must not keep the others from being replicated.
	d.store = litestream.NewStore(nil, opts.levels)
	d.store.Logger = opts.litestreamLogger
	d.store.SetShutdownSyncTimeout(opts.lastSyncTimeout)
	for _, b := range cfg.beats() {
		if err := d.addMonitor(b, cfg); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// addMonitor makes the monitor of a heartbeat. It watches the databases from the
// start, whether they can be opened or not: one that is not replicated must never
// look as if it were not there.
func (d *daemon) addMonitor(b beat, cfg *config) error {
	var watched []heartbeat.SyncReporter
	for _, i := range b.databases {
		watched = append(watched, d.reporters[i])
		if d.restores[i] != nil {
			watched = append(watched, d.restores[i])
		}
	}
	monitor, err := b.NewMonitor(watched, &heartbeat.Options{Clock: d.clock, Logger: d.logger, OnResult: d.took})
	if err != nil {
		return beneath(b.key, err)
	}
	d.metrics.Add(monitor)
	d.monitors, d.watched = append(d.monitors, monitor), append(d.watched, b.databases)
	interval := monitor.Status().Interval
	age := cmp.Or(b.MaxSyncAge, interval)
	// A sync that may be older is not looked for less often than the heartbeat asks.
	every := min(interval, age) / checksPerBeat
	for _, i := range b.databases {
		// A replica that is brought up to date less often cannot be told from one
		// that lags.
		if sync := cfg.DBs[i].Replica.SyncInterval; sync > every {
			return fmt.Errorf("dbs[%d].replica.sync-interval: %v is too long to prove a sync that is at most %v old; at most %v", i, sync, min(interval, age), every)
		}
		if r := d.reporters[i]; r.every == 0 || every < r.every {
			r.every = every
		}
	}
	return nil
}

// took takes what a check came to.
func (d *daemon) took(result heartbeat.Result) {
	d.metrics.OnResult(result)
	if d.onResult != nil {
		d.onResult(result)
	}
}

// newRestoreCheck returns the restore check of the i-th database; nil if there is
// to be none.
func (d *daemon) newRestoreCheck(cfg *config, i int, slot chan struct{}) *restoreCheck {
	c := cfg.restoreCheck(i)
	if !c.on() {
		return nil
	}
	return &restoreCheck{
		reporter: d.reporters[i], every: *c.Every, query: c.Query, dir: cmp.Or(cfg.RestoreDir, os.TempDir()),
		timeout: d.restoreTimeout, slot: slot, freeSpace: d.freeSpace, clock: d.clock, logger: d.logger,
		lost: func(ctx context.Context) { d.beatNow(ctx, i) },
	}
}

// beatNow makes the heartbeats that stand for a database look at it now, so that a
// failure signal need not wait for the next.
func (d *daemon) beatNow(ctx context.Context, i int) {
	var beats sync.WaitGroup
	for j, m := range d.monitors {
		if slices.Contains(d.watched[j], i) {
			beats.Go(func() { m.Beat(ctx) })
		}
	}
	beats.Wait()
}

func newDB(c dbConfig) (*litestream.DB, error) {
	client, err := replicaClient(c.Replica.URL)
	if err != nil {
		return nil, err
	}
	db := litestream.NewDB(c.Path)
	db.Replica = litestream.NewReplicaWithClient(db, client)
	if c.Replica.SyncInterval > 0 {
		db.Replica.SyncInterval = c.Replica.SyncInterval
	}
	if client, ok := client.(*file.ReplicaClient); ok {
		client.Replica = db.Replica // it gives its files the database's owner and mode
	}
	return db, nil
}

// run replicates until ctx is done; then it makes the last sync and closes the
// databases.
func (d *daemon) run(ctx context.Context) error {
	if err := d.store.Open(ctx); err != nil {
		return err
	}
	server, err := d.serve()
	if err != nil {
		return errors.Join(err, d.store.Close(context.WithoutCancel(ctx)))
	}
	defer server.Close()
	d.removeLeftovers()
	var tasks sync.WaitGroup
	errs := make([]error, len(d.databases))
	for i := range d.databases {
		tasks.Go(func() { errs[i] = d.replicate(ctx, i) })
	}
	for _, m := range d.monitors {
		tasks.Go(func() { _ = m.Run(ctx) }) // its only error is that it runs already
	}
	d.warnWhatIsOff()
	<-ctx.Done()

	done := make(chan error, 1)
	go func() {
		tasks.Wait()
		done <- errors.Join(append(errs, d.store.Close(context.WithoutCancel(ctx)))...)
	}()
	select {
	case err := <-done:
		d.logger.Info("databases closed", "databases", d.closed.Load())
		return err
	case <-time.After(d.shutdownTimeout):
		return fmt.Errorf("last sync: something hangs; given up after %v", d.shutdownTimeout)
	}
}

// warnWhatIsOff names the databases that no heartbeat stands for.
func (d *daemon) warnWhatIsOff() {
	if len(d.monitors) == 0 {
		d.logger.Warn("heartbeats are off", "reason", "no heartbeat-url")
		return
	}
	for _, r := range d.reporters {
		if r.every == 0 {
			d.logger.Warn("heartbeats are off", "db", r.Path(), "reason", "no heartbeat stands for it")
		}
	}
}

// replicate replicates one database until ctx is done; then it makes the last sync
// and closes it. It waits for no other, since one whose replica does not answer
// must not cost the others theirs.
func (d *daemon) replicate(ctx context.Context, i int) error {
	db := d.databases[i]
	if !d.open(ctx, db) {
		return nil
	}
	if r := d.reporters[i]; r.every > 0 {
		if check := d.restores[i]; check != nil {
			var restores sync.WaitGroup
			defer restores.Wait()
			restores.Go(func() { check.run(ctx) })
		}
		r.run(ctx)
	}
	<-ctx.Done()
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.lastSyncTimeout)
	defer cancel()
	if err := d.store.UnregisterDB(closeCtx, db.Path()); err != nil {
		return fmt.Errorf("last sync of %s: %w", db.Path(), err)
	}
	d.closed.Add(1)
	return nil
}

// removeLeftovers removes what restores of a killed process left behind.
func (d *daemon) removeLeftovers() {
	dirs := map[string]bool{}
	for _, c := range d.restores {
		if c != nil && !dirs[c.dir] {
			dirs[c.dir] = true
			removeLeftovers(c.dir, d.logger)
		}
	}
}

// open starts to replicate db, and reports whether it could before ctx was done.
// It may take several attempts: a replica's host may be down at first.
func (d *daemon) open(ctx context.Context, db *litestream.DB) bool {
	for ctx.Err() == nil {
		db.Replica.Client.SetLogger(d.store.Logger)
		err := db.Replica.Client.Init(ctx)
		if err == nil {
			err = d.store.RegisterDB(db)
		}
		if err == nil {
			d.logger.Info("replicating", "db", db.Path(), "replica", db.Replica.Client.Type())
			return true
		}
		if ctx.Err() == nil {
			d.logger.Error("database not opened", "db", db.Path(), "error", err, "retry_in", openPause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(openPause):
		}
	}
	return false
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
