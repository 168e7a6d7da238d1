package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// A tree is a file or a directory whose newest file is its last sync. Walking it
// may take long, or for ever on a dead network mount, so no check waits for that.
type tree struct {
	*heartbeat.SyncTracker
	name string // pattern of the names of files in it that count
}

// watch walks the tree again and again until ctx is done. What it found is at
// most a minute older than a check needs it, or as old as a walk takes.
func (t tree) watch(ctx context.Context, maxAge time.Duration, logger *slog.Logger, walked func()) {
	for {
		start := time.Now()
		at, err := t.newest(ctx, start.Add(maxAge))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			logger.Warn("cannot read all of a path", "path", t.Path(), "error", err)
		}
		t.Record(at)
		walked()
		select {
		case <-ctx.Done():
		case <-time.After(max(min(heartbeat.MinInterval, maxAge/4), time.Since(start))):
		}
	}
}

// newest returns the latest modification time of a regular file in the tree that is
// not empty and has the right name, and the first error. A file that is the whole
// tree may have any name. A time after limit says nothing, but hides no other: it is
// returned if there is none. Symbolic links in the tree are not followed, since
// what they lead to may change for other reasons.
func (t tree) newest(ctx context.Context, limit time.Time) (latest time.Time, first error) {
	root, err := filepath.EvalSymlinks(t.Path())
	if err != nil {
		return time.Time{}, err
	}
	var ahead time.Time
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		switch {
		case path != root && errors.Is(err, fs.ErrNotExist): // vanished during the walk
		case err != nil:
			first = cmp.Or(first, err)
		case !info.Mode().IsRegular() || info.Size() == 0: // a backup that failed leaves an empty file behind
		case path != root && !matches(t.name, entry.Name()):
		case info.ModTime().After(limit):
			ahead = info.ModTime()
		case info.ModTime().After(latest):
			latest = info.ModTime()
		}
		return ctx.Err()
	})
	if latest.IsZero() {
		latest = ahead
	}
	return latest, cmp.Or(first, err)
}

func matches(pattern, name string) bool {
	ok, _ := filepath.Match(pattern, name) // settings.check has tried the pattern
	return ok
}
