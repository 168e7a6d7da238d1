package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDemonstration(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out, errs buffer
	require.Zero(t, run(t.Context(), nil, &out, &errs), "%s%s", &out, &errs)
	assert.Empty(t, errs.String())
	assert.Equal(t, 7, strings.Count(out.String(), "→ observed:"))
	text := strings.Join(strings.Fields(out.String()), " ") // without the line breaks
	assert.Contains(t, text, `level=INFO msg="heartbeat sent" url=http://127.0.0.1:`)
	assert.Contains(t, text, `level=WARN msg="heartbeat skipped" reason="last sync too old" db=idle.db`)
	assert.Contains(t, text, "connection refused")
	assert.Contains(t, text, "level=WARN msg=\"restore check failed\" db=archive.db ")
	assert.Contains(t, text, "a failure signal that names the restore check: database not synced: archive.db (restore check) (1 of 4 databases)")
	assert.Contains(t, text, `level=INFO msg="restore check passed again" db=archive.db`)
	counted := func(message string) int { return strings.Count(text, `msg="`+message+`"`) }
	assert.Contains(t, text, fmt.Sprintf("The log tells of %d heartbeats sent, %d skipped and %d failed, and of %d failure signals.",
		counted("heartbeat sent"), counted("heartbeat skipped"), counted("heartbeat failed"), counted("heartbeat failure signal sent")))
	for line := range strings.Lines(out.String()) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
		assert.NotContains(t, line, "\x1b", "in colour, and this is no terminal")
	}
	assert.NotContains(t, out.String(), "level=INFO msg=\"sync recovered\"", "Litestream's own lines are not to be shown")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "something was left behind")
}

func TestDemonstration_interrupted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs buffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, nil, &out, &errs) }()
	eventually(t, func() bool { return out.has("2. The demonstration") }, "no second stage")
	cancel()
	assert.Equal(t, exitFailed, <-done)
	assert.Equal(t, "after 1 of 7 stages: interrupted before this was observed: a skipped beat that names idle.db\n", errs.String())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "something was left behind")
}

// A reader that goes away, as head(1) does, ends the demonstration, and it leaves
// nothing behind.
func TestDemonstration_brokenPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	errs := &buffer{}
	program := exec.CommandContext(t.Context(), os.Args[0])
	program.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+dir)
	program.Stderr = errs
	out, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	read := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "msg=replicating"); {
		line, err = read.ReadString('\n')
		require.NoError(t, err, errs)
	}
	require.NoError(t, out.Close())
	_ = program.Wait()
	assert.Equal(t, exitFailed, program.ProcessState.ExitCode(), "a signal ended it")
	assert.Regexp(t, `^after [01] of 7 stages: output: write .*broken pipe\n$`, errs.String())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries, "something was left behind")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("nobody reads this") }

func TestDemonstration_cannotWrite(t *testing.T) {
	t.Parallel()
	require.EqualError(t, demonstrate(t.Context(), brokenWriter{}), "after 0 of 7 stages: output: nobody reads this")
}
