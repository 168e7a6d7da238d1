//go:build linux || darwin

package main

import (
	"errors"
	"os"
	"syscall"
)

// claim locks a folder until it is closed. It reports false where another process
// has locked it. On a file system that has no locks, it is in use without one.
func claim(dir *os.File) bool { return !errors.Is(flock(dir), syscall.EWOULDBLOCK) }

// leftBehind locks a folder likewise, and reports whether that shows that nobody
// uses it.
func leftBehind(dir *os.File) bool { return flock(dir) == nil }

func flock(dir *os.File) error {
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// freeSpace returns how many bytes a user's files may still take in a folder.
func freeSpace(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return s.Bavail * uint64(s.Bsize), nil
}
