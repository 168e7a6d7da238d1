package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestScratch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := newScratch(dir)
	require.NoError(t, err)
	info, err := os.Stat(s.dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	info, err = os.Stat(s.restored() + ".tmp")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "where Litestream writes to")
	require.NoError(t, s.remove())
	assert.NoDirExists(t, s.dir)

	_, err = newScratch(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What a killed process left is removed, and nothing else is.
func TestRemoveLeftovers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("there is no lock of a folder")
	}
	dir, log := t.TempDir(), &buffer{}
	path := func(name string) string { return filepath.Join(dir, name) }
	left := []string{scratchPrefix + "1", scratchPrefix + "empty"}
	kept := []string{"another", "restored.db", scratchPrefix + "notes", scratchPrefix + "folder", scratchPrefix + "link"}
	for _, name := range []string{left[0], left[1], "another", scratchPrefix + "notes", scratchPrefix + "folder", "elsewhere"} {
		require.NoError(t, os.Mkdir(path(name), 0o700))
	}
	for _, name := range scratchNames {
		writeFile(t, filepath.Join(path(left[0]), name), "x")
	}
	writeFile(t, path("restored.db"), "x")
	writeFile(t, path(scratchPrefix+"file"), "x")
	for _, name := range []string{"another", "elsewhere"} {
		writeFile(t, filepath.Join(path(name), restoredName), "x")
	}
	writeFile(t, filepath.Join(path(scratchPrefix+"notes"), restoredName), "x")
	writeFile(t, filepath.Join(path(scratchPrefix+"notes"), "notes.txt"), "x")
	require.NoError(t, os.Mkdir(filepath.Join(path(scratchPrefix+"folder"), restoredName), 0o700))
	require.NoError(t, os.Symlink("elsewhere", path(scratchPrefix+"link")))
	live, err := newScratch(dir)
	require.NoError(t, err)

	removeLeftovers(dir, slog.New(slog.NewTextHandler(log, nil)))
	for _, name := range left {
		assert.NoDirExists(t, path(name))
		assert.True(t, log.has("level=INFO", `msg="what a killed restore check left behind was removed" path=`+path(name)), log)
	}
	for _, name := range kept {
		_, err := os.Lstat(path(name))
		require.NoError(t, err)
	}
	for _, file := range []string{live.restored() + ".tmp", path(scratchPrefix + "file"), path("another/restored.db"), path("elsewhere/restored.db"),
		path(scratchPrefix + "notes/restored.db"), path(scratchPrefix + "notes/notes.txt"), path(scratchPrefix + "folder/restored.db")} {
		_, err := os.Lstat(file)
		require.NoError(t, err)
	}
	assert.True(t, log.has("level=WARN", scratchPrefix+"notes", "notes.txt is not a file that a restore makes"), log)
	assert.True(t, log.has("level=WARN", scratchPrefix+"folder", "restored.db is not a file that a restore makes"), log)
	require.NoError(t, live.remove())
	removeLeftovers(path("missing"), slog.New(slog.DiscardHandler))
}
