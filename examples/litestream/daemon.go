package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
	"github.com/go-heartbeat/heartbeat"
	_ "modernc.org/sqlite" // the driver that Litestream uses
)

// openPause is the pause before a database that failed to open is tried again.
const openPause = 30 * time.Second

// A daemon replicates databases, and sends heartbeats while all are replicated.
type daemon struct {
	store     *litestream.Store
	databases []*litestream.DB
	reporters []*reporter        // one for each database; none when heartbeats are off
	monitor   *heartbeat.Monitor // nil: heartbeats are off
	logger    *slog.Logger
}

type options struct {
	logger           *slog.Logger
	litestreamLogger *slog.Logger

	// For the demonstration and tests.
	clock           heartbeat.Clock        // nil: the system's
	pinger          heartbeat.Pinger       // nil: those of the configuration
	monitorInterval time.Duration          // how often Litestream looks for writes; zero: its default
	onResult        func(heartbeat.Result) // told of each check
}

// newDaemon returns a daemon that has opened nothing yet: so its errors are
// those of the configuration.
func newDaemon(cfg *config, opts options) (*daemon, error) {
	d := &daemon{logger: opts.logger}
	for i, c := range cfg.DBs {
		db, err := newDB(c)
		if err != nil {
			return nil, fmt.Errorf("dbs[%d]: %w", i, err)
		}
		if opts.monitorInterval > 0 {
			db.MonitorInterval = opts.monitorInterval
		}
		d.databases = append(d.databases, db)
	}
	// A store opens all its databases or none, so each is handed to it once it can
	// be opened: one that cannot must not keep the others from being replicated.
	d.store = litestream.NewStore(nil, litestream.DefaultCompactionLevels)
	d.store.Logger = opts.litestreamLogger

	if !cfg.Enabled() {
		return d, nil
	}
	clock := opts.clock
	if clock == nil {
		clock = systemClock{}
	}
	// Every database is watched from the start, whether it can be opened or not:
	// one that is not replicated must never look as if it were not there.
	watched := make([]heartbeat.SyncReporter, len(d.databases))
	for i, db := range d.databases {
		r := newReporter(db, clock, cfg.interval()/checksPerBeat, d.logger)
		d.reporters = append(d.reporters, r)
		watched[i] = r
	}
	monitorOptions := &heartbeat.Options{Clock: clock, Logger: d.logger, OnResult: opts.onResult}
	var err error
	if opts.pinger != nil {
		monitorOptions.Interval = cfg.Interval
		d.monitor, err = heartbeat.New(opts.pinger, watched, monitorOptions)
	} else {
		d.monitor, err = cfg.NewMonitor(watched, monitorOptions)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

func newDB(c dbConfig) (*litestream.DB, error) {
	client, err := replicaClient(c.Replica.URL)
	if err != nil {
		return nil, err
	}
	db := litestream.NewDB(c.Path)
	db.Replica = litestream.NewReplicaWithClient(db, client)
	if c.Replica.SyncInterval > 0 {
		db.Replica.SyncInterval = time.Duration(c.Replica.SyncInterval)
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
	var tasks sync.WaitGroup
	for i, db := range d.databases {
		tasks.Go(func() {
			if d.open(ctx, db) && d.monitor != nil {
				d.reporters[i].run(ctx)
			}
		})
	}
	if d.monitor == nil {
		d.logger.Warn("heartbeats are off", "reason", "no heartbeat-url")
		<-ctx.Done()
	} else if err := d.monitor.Run(ctx); err != nil {
		return err
	}
	tasks.Wait()
	// Litestream bounds the last sync by itself.
	if err := d.store.Close(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("last sync: %w", err)
	}
	d.logger.Info("databases closed", "databases", len(d.store.DBs()))
	return nil
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
