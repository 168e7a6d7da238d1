package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A scratch is a folder for one restore, which its owner alone can look into.
// While it is in use it is locked, which the system undoes when the process ends,
// however it ends: so an unlocked one was left behind by a process that was killed.
type scratch struct {
	dir  string
	lock *os.File // the folder itself
}

// Names in a scratch folder. The restored copy is Litestream's, and so are the
// suffixes: of the copy while it is written, and of SQLite's files beside it.
const (
	scratchPrefix = "heartbeat-restore-check-"
	restoredName  = "restored.db"
)

var scratchNames = []string{restoredName, restoredName + ".tmp", restoredName + "-wal", restoredName + "-shm", restoredName + "-journal"}

// newScratch makes a scratch folder within dir.
func newScratch(dir string) (*scratch, error) {
	for {
		path, err := os.MkdirTemp(dir, scratchPrefix+"*") // only its owner may enter it
		if err != nil {
			return nil, err
		}
		lock, err := os.Open(path)
		if err == nil && claim(lock) {
			if _, err = os.Stat(path); err == nil {
				s := &scratch{path, lock}
				return s, s.prepare()
			}
		}
		if lock != nil {
			_ = lock.Close()
		}
		// Another process, which was looking for what is left behind, came between.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, os.Remove(path))
		}
	}
}

// prepare makes the file that Litestream writes to, which would give it to
// everybody to read.
func (s *scratch) prepare() error {
	f, err := os.OpenFile(s.restored()+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, s.remove())
	}
	return f.Close()
}

// restored is where the restored copy goes.
func (s *scratch) restored() string { return filepath.Join(s.dir, restoredName) }

// remove removes the folder and what is in it.
func (s *scratch) remove() error {
	err := os.RemoveAll(s.dir)
	if s.lock.Close() == nil && err != nil { // Windows removes no folder that is open
		err = os.RemoveAll(s.dir)
	}
	return err
}

// removeLeftovers removes the scratch folders in dir that killed processes left. It
// touches nothing but folders of that name which no process holds, and in them
// nothing but files of the names that a restore makes.
func removeLeftovers(dir string, logger *slog.Logger) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return // the restore check will say so
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), scratchPrefix) {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		switch removed, err := removeLeftover(root, entry.Name()); {
		case err != nil:
			logger.Warn("what a restore check left behind was not removed", "path", path, "error", err)
		case removed:
			logger.Info("what a killed restore check left behind was removed", "path", path)
		}
	}
}

// removeLeftover removes one folder unless it is in use, and reports whether it did.
func removeLeftover(root *os.Root, name string) (bool, error) {
	dir, err := root.OpenRoot(name)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return false, nil // another user's, or its owner was faster
	} else if err != nil {
		return false, err
	}
	defer dir.Close()
	lock, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if !leftBehind(lock) {
		return false, nil
	}
	entries, err := lock.ReadDir(-1)
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		if !slices.Contains(scratchNames, entry.Name()) || !entry.Type().IsRegular() {
			return false, fmt.Errorf("%s is not a file that a restore makes", entry.Name())
		}
	}
	for _, entry := range entries {
		if err := dir.Remove(entry.Name()); err != nil {
			return false, err
		}
	}
	return true, root.Remove(name)
}
