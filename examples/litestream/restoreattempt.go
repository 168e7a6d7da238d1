package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// How long a restore may take, on the system's clock: this long, and a second more
// for each restoreRate bytes that it reads and writes. It never takes longer than
// the time between two checks.
const (
	restoreTimeout = 10 * time.Minute
	restoreRate    = 1 << 20
)

// restoreReserve is the space that a restore leaves free, beside a tenth of its own
// size: a full disk would harm others.
const restoreReserve = 64 << 20

// errMoved says that files were moved away while they were being restored, by
// compaction or retention, as they are in the life of every replica.
var errMoved = errors.New("files were moved away while they were being restored")

// A restoreAttempt is one attempt at restoring a replica.
type restoreAttempt struct {
	*restoreCheck
	client *restoreClient
	plan   []*ltx.FileInfo
	want   database
}

// A database is what a restored copy is compared by.
type database struct {
	txID            ltx.TXID
	pageSize, pages int64
}

func (d database) String() string {
	return fmt.Sprintf("transaction %d, %d pages of %d bytes", d.txID, d.pages, d.pageSize)
}

// restore restores the replica. Where files were moved away meanwhile it tries once
// more, from the beginning. extend is told the time that is left to an attempt.
func (c *restoreCheck) restore(ctx context.Context, extend func(time.Duration)) error {
	var gone map[ltx.FileInfo]bool // in the attempt before
	for first := true; ; first = false {
		extend(c.timeout)
		r := &restoreAttempt{restoreCheck: c, client: newRestoreClient(ctx, c.reporter.db.Replica.Client)}
		err := r.run(ctx, extend)
		moved := r.plan == nil || len(r.client.gone) > 0 && (errors.Is(err, os.ErrNotExist) || errors.Is(err, litestream.ErrTxNotAvailable))
		switch {
		case err == nil || ctx.Err() != nil || !moved:
			return err
		case first:
			gone = r.client.gone
		case r.plan == nil || slices.ContainsFunc(r.plan, func(f *ltx.FileInfo) bool { return gone[fileKey(f)] }):
			return err // it has no plan, or lists a file that is not there
		default:
			return fmt.Errorf("%w, twice: %w", errMoved, err)
		}
	}
}

func (r *restoreAttempt) run(ctx context.Context, extend func(time.Duration)) (err error) {
	if err := r.makePlan(ctx); err != nil {
		return fmt.Errorf("replica cannot be restored: %w", err)
	}
	size := r.size()
	extend(r.timeout + time.Duration(size/restoreRate)*time.Second)
	if err := r.checkSpace(size); err != nil {
		return err
	}
	scratch, err := newScratch(r.dir)
	if err != nil {
		return fmt.Errorf("scratch folder: %w", err)
	}
	defer func() {
		if removeErr := scratch.remove(); err == nil && removeErr != nil {
			err = fmt.Errorf("scratch folder: %w", removeErr)
		}
	}()
	opts := litestream.NewRestoreOptions()
	opts.OutputPath, opts.TXID, opts.IntegrityCheck = scratch.restored(), r.want.txID, litestream.IntegrityCheckQuick
	if err := litestream.NewReplicaWithClient(r.reporter.db, r.client).Restore(ctx, opts); err != nil {
		return r.explain(err)
	}
	return r.inspect(ctx, scratch.restored())
}

// makePlan lists the replica and sets the plan, which is to lead at least as far as
// the replica was proven to reach. To restore up to that transaction itself is not
// possible for long where a database is written to: compaction makes one file of
// many, and what remains is whole only at their end.
func (r *restoreAttempt) makePlan(ctx context.Context) error {
	proven := ltx.TXID(r.reporter.proven.Load())
	plan, err := litestream.CalcRestorePlan(ctx, r.client, 0, time.Time{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	r.want.txID = plan[len(plan)-1].MaxTXID
	if r.want.txID < proven {
		return fmt.Errorf("its files lead to transaction %d, and it had %d", r.want.txID, proven)
	}
	local, err := r.reporter.db.Pos()
	if err != nil {
		return fmt.Errorf("local position: %w", err)
	}
	if r.want.txID > local.TXID {
		return fmt.Errorf("it is at transaction %d, the database at %d", r.want.txID, local.TXID)
	}
	r.plan = plan
	// Litestream keeps its own copy of the newest file of level 0. Where there is
	// none, the header that is read with the restored file has to do.
	if h, err := ltxHeader(r.reporter.db.LTXPath(0, r.want.txID, r.want.txID)); err == nil {
		r.want.pageSize, r.want.pages = int64(h.PageSize), int64(h.Commit)
	}
	return nil
}

func ltxHeader(path string) (h ltx.Header, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer f.Close()
	h, _, err = ltx.DecodeHeader(f)
	return h, err
}

// size returns how many bytes the restored copy has, or the replica's files if they
// have more.
func (r *restoreAttempt) size() int64 {
	size := r.want.pageSize * r.want.pages
	if size == 0 {
		if info, err := os.Stat(r.reporter.Path()); err == nil {
			size = info.Size()
		}
	}
	var listed int64
	for _, f := range r.plan {
		listed += f.Size
	}
	return max(size, listed)
}

func (r *restoreAttempt) checkSpace(size int64) error {
	free, err := r.freeSpace(r.dir)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if needed := uint64(size + size/10 + restoreReserve); free < needed {
		const mib = 1 << 20
		return fmt.Errorf("a restore needs %d MiB of free space in %s, and there are %d; make room, or set restore-check-dir",
			(needed+mib-1)/mib, r.dir, free/mib)
	}
	return nil
}

// explain adds to an error of a restore which file was being read.
func (r *restoreAttempt) explain(err error) error {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	file := r.client.reading
	if file.MaxTXID == 0 {
		return fmt.Errorf("restore failed: %w", err)
	}
	return fmt.Errorf("restore failed at file %s of level %d: %w", fileName(&file), file.Level, err)
}

// inspect compares the restored copy with the database, and asks it the query.
func (r *restoreAttempt) inspect(ctx context.Context, path string) error {
	h, err := r.client.header(r.plan[len(r.plan)-1])
	if err != nil {
		return fmt.Errorf("the last file of the plan: %w", err)
	}
	if r.want.pages == 0 {
		r.want.pageSize, r.want.pages = int64(h.PageSize), int64(h.Commit)
	}
	got := database{txID: h.MaxTXID}
	// The copy is opened as one that nobody writes to, and no file is made beside it.
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := db.QueryRowContext(ctx, `SELECT page_size, page_count FROM pragma_page_size, pragma_page_count;`).Scan(&got.pageSize, &got.pages); err != nil {
		return fmt.Errorf("restored copy: %w", err)
	}
	if got != r.want {
		return fmt.Errorf("restored copy has %v; the database has %v", got, r.want)
	}
	if r.query == "" {
		return nil
	}
	if ok, err := isTrue(ctx, db, r.query); err != nil {
		return fmt.Errorf("restore-check-query: %w", err)
	} else if !ok {
		return errors.New("restore-check-query: the restored copy does not answer with a true value")
	}
	return nil
}

// isTrue reports whether the first row that a query returns has a value that is
// true as SQLite sees it: neither NULL nor zero.
func isTrue(ctx context.Context, db *sql.DB, query string) (bool, error) {
	var value any
	switch err := db.QueryRowContext(ctx, query).Scan(&value); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	var truth bool
	err := db.QueryRowContext(ctx, `SELECT CASE WHEN ? THEN 1 ELSE 0 END;`, value).Scan(&truth)
	return truth, err
}
