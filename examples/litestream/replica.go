package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// What a replica is asked, and how often, on the reporter's clock. Object stores
// charge ten times as much for a listing as for reading an object, and a listing
// has a request for each thousand names.
const (
	listEvery = 75 * time.Second // at the most often: 48 an hour
	planEvery = time.Hour
)

// minFileSize is the size of the least LTX file there can be: header, end of
// pages, end of index, size of index, trailer.
const minFileSize = ltx.HeaderSize + ltx.PageHeaderSize + 1 + 8 + ltx.TrailerSize

var errDiffers = errors.New("it does not end as Litestream's own copy does")

// A replica is a database's replica, and what is known of it.
type replica struct {
	db *litestream.DB

	// listed is the newest file of the chain: a restore plan had been made up to
	// it, or level 0 led on without a gap from where one had been, when the
	// replica was last listed. nil: there is no such file.
	listed   *ltx.FileInfo
	listedAt time.Time
	level0   []*ltx.FileInfo // as listed then
	reached  ltx.TXID        // the newest transaction seen in the replica
	differed *ltx.FileInfo   // a file that did not end as it should, which no listing shows; nil: none
	planned  time.Time       // when the last restore plan was made
	inUse    map[int]bool    // the levels that a restore plan needs; nil: not known
}

// position returns the newest transaction in the replica. sound says that the
// chain of files is known to lead there without a gap; where it is not, only a
// restore plan can tell. It lists level 0, or where that was done a moment ago
// reads the end of the file that has the transaction wanted.
func (r *replica) position(ctx context.Context, at time.Time, wanted ltx.TXID) (txID ltx.TXID, sound bool, err error) {
	if since := at.Sub(r.listedAt); r.listed != nil && since >= 0 && since < listEvery {
		if found, err := r.look(ctx, wanted); err != nil || found {
			return r.reached, true, err
		}
	}
	return r.list(ctx, at)
}

// look reads the end of two files: of the one with the transaction wanted, and of
// the one that the chain was known to end with, which a replica that was destroyed
// and written to again has not. It reports whether all is as it was; false asks
// for a listing, which says more.
func (r *replica) look(ctx context.Context, wanted ltx.TXID) (bool, error) {
	files := []*ltx.FileInfo{r.listed}
	if wanted > r.listed.MaxTXID {
		files = append(files, &ltx.FileInfo{MinTXID: wanted, MaxTXID: wanted})
	}
	for _, f := range files {
		err := r.compare(ctx, f)
		switch {
		case err == nil:
			r.reached = max(r.reached, f.MaxTXID)
		case f.MaxTXID > r.reached && (errors.Is(err, os.ErrNotExist) || errors.Is(err, errDiffers)):
			return true, nil // it is on its way
		case errors.Is(err, os.ErrNotExist):
			r.listed = nil
			return false, nil
		default:
			if ctx.Err() == nil { // else it says nothing of the replica
				r.listed = nil
			}
			if errors.Is(err, errDiffers) {
				r.differed = f
			}
			return false, fmt.Errorf("replica's file %s of level 0: %w", fileName(f), err)
		}
	}
	return true, nil
}

// compare compares the end of a file of level 0, which is its checksum, with that
// of Litestream's own copy. Where there is none any more, it looks for the header
// of an LTX file.
func (r *replica) compare(ctx context.Context, f *ltx.FileInfo) error {
	own, size, err := fileEnd(r.db.LTXPath(0, f.MinTXID, f.MaxTXID))
	if errors.Is(err, os.ErrNotExist) {
		_, err = litestream.FetchLTXHeader(ctx, r.db.Replica.Client, f)
		return err
	} else if err != nil {
		return err
	}
	end := make([]byte, len(own)+1) // one more would be too many
	theirs, err := r.db.Replica.Client.OpenLTXFile(ctx, 0, f.MinTXID, f.MaxTXID, size-int64(len(own)), int64(len(end)))
	if err != nil {
		return err
	}
	defer theirs.Close()
	n, err := io.ReadFull(theirs, end)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if !bytes.Equal(end[:n], own) {
		return errDiffers
	}
	return nil
}

// fileEnd returns the trailer of an LTX file, and the file's size.
func fileEnd(path string) (end []byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	end = make([]byte, ltx.TrailerSize)
	_, err = f.ReadAt(end, info.Size()-int64(len(end)))
	return end, info.Size(), err
}

// list lists level 0, into which Litestream copies each transaction, and where it
// keeps a file for five minutes at least.
func (r *replica) list(ctx context.Context, at time.Time) (txID ltx.TXID, sound bool, err error) {
	if err := r.lookAgain(ctx); err != nil {
		return 0, false, err
	}
	level0, err := files(ctx, r.db.Replica.Client, 0)
	if err != nil {
		return 0, false, err
	}
	previous := r.listed
	r.level0, r.listedAt, r.listed, r.reached = level0, at, nil, 0
	for _, f := range r.level0 {
		if f.MaxTXID > r.reached && r.whole(f) {
			r.listed, r.reached = f, f.MaxTXID
		}
	}
	sound = previous != nil && r.listed != nil && r.leadsOn(previous.MaxTXID)
	return r.reached, sound, nil
}

// lookAgain reads the end of the file that was found to differ, unless that is gone
// or mended: a listing, which shows that it is as large as before, would pass it.
func (r *replica) lookAgain(ctx context.Context) error {
	if r.differed == nil {
		return nil
	}
	if err := r.compare(ctx, r.differed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replica's file %s of level 0: %w", fileName(r.differed), err)
	}
	r.differed = nil
	return nil
}

// leadsOn reports whether the files of level 0, as far as the newest whole one,
// are all whole and lead on without a gap from txID, or from before it.
func (r *replica) leadsOn(txID ltx.TXID) bool {
	next := r.level0[0].MinTXID
	if next > txID+1 || r.reached < txID {
		return false
	}
	for _, f := range r.level0 {
		if f.MaxTXID > r.reached {
			break // it is being written
		}
		if f.MinTXID != next || !r.whole(f) {
			return false
		}
		next = f.MaxTXID + 1
	}
	return true
}

// whole reports whether a listed file has a size that it can have: that of
// Litestream's own copy where there still is one.
func (r *replica) whole(f *ltx.FileInfo) bool {
	if f.Size < minFileSize {
		return false
	}
	if f.Level == 0 {
		if own, err := os.Stat(r.db.LTXPath(0, f.MinTXID, f.MaxTXID)); err == nil {
			return f.Size == own.Size()
		}
	}
	return true
}

// planDue reports whether the plan is to be made again now that level 0 was listed.
func (r *replica) planDue(at time.Time) bool {
	since := at.Sub(r.planned)
	return r.listedAt.Equal(at) && (since >= planEvery || since < 0)
}

// plan makes the plan that a restore up to what was listed would follow, of all
// levels in use, and fails if there is none.
func (r *replica) plan(ctx context.Context, at time.Time) error {
	client := &planClient{ReplicaClient: r.db.Replica.Client, level0: r.level0, ask: r.inUse, found: map[int]bool{}}
	plan, err := litestream.CalcRestorePlan(ctx, client, r.reached, time.Time{}, slog.New(slog.DiscardHandler))
	for _, f := range plan {
		if err == nil && !r.whole(f) {
			err = fmt.Errorf("file %s of level %d has %d bytes: it is cut", fileName(f), f.Level, f.Size)
		}
	}
	if err != nil {
		r.listed = nil // so that the next check makes a plan first
		return fmt.Errorf("replica cannot be restored: %w", err)
	}
	r.planned = at
	if r.inUse == nil && len(client.found) == litestream.SnapshotLevel { // each was asked
		r.inUse = client.found
		r.inUse[litestream.SnapshotLevel] = true
		for _, level := range litestream.DefaultCompactionLevels {
			r.inUse[level.Level] = true
		}
	}
	return nil
}

// A planClient shows a replica to CalcRestorePlan: level 0 as it was just listed,
// since another listing would cost a request and could only differ by what came
// since, and of the other levels those in use.
type planClient struct {
	litestream.ReplicaClient
	level0 []*ltx.FileInfo
	ask    map[int]bool // nil: all
	found  map[int]bool // the levels that have files
}

// LTXFiles lists a level.
func (c *planClient) LTXFiles(ctx context.Context, level int, _ ltx.TXID, _ bool) (ltx.FileIterator, error) {
	if level == 0 {
		return ltx.NewFileInfoSliceIterator(c.level0), nil
	}
	if c.ask != nil && !c.ask[level] {
		return ltx.NewFileInfoSliceIterator(nil), nil
	}
	infos, err := files(ctx, c.ReplicaClient, level)
	c.found[level] = len(infos) > 0
	return ltx.NewFileInfoSliceIterator(infos), err
}

// files lists a level, in order.
func files(ctx context.Context, client litestream.ReplicaClient, level int) (infos []*ltx.FileInfo, err error) {
	iterator, err := client.LTXFiles(ctx, level, 0, false)
	if err != nil {
		return nil, err
	}
	for iterator.Next() {
		infos = append(infos, iterator.Item())
	}
	if err := iterator.Close(); err != nil {
		return nil, err
	}
	ltx.NewFileInfoSliceIterator(infos) // sorts them
	return infos, ctx.Err()
}

func fileName(f *ltx.FileInfo) string { return ltx.FormatFilename(f.MinTXID, f.MaxTXID) }
