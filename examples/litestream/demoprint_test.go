package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWrap(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a word or two ", 20)
	for _, indent := range []string{"", "   "} {
		got := wrap(indent+long, indent)
		for line := range strings.Lines(got) {
			assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), demoWidth)
			assert.True(t, strings.HasPrefix(line, indent), line)
		}
		assert.Equal(t, strings.Fields(long), strings.Fields(got))
	}
	assert.Equal(t, "   "+strings.Repeat("x", 100)+"\n   y", wrap("   "+strings.Repeat("x", 100)+" y", "   "), "a word that is too long stays whole")
	assert.Empty(t, wrap("", ""))
}

func TestPrinter_colour(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &printer{w: &out, colour: true, dir: "/tmp/demo/", count: map[string]int{}}
	p.print(bold, "1. ", "The demonstration "+strings.Repeat("goes on and ", 10)+"on.")
	for line := range strings.Lines(out.String()) {
		assert.True(t, strings.HasPrefix(line, bold) && strings.HasSuffix(line, plain+"\n"), "%q", line)
	}
	out.Reset()
	_, err := p.Write([]byte("time=x level=WARN msg=\"heartbeat skipped\" db=/tmp/demo/a.db\n"))
	require.NoError(t, err)
	assert.Equal(t, "   time=x level=\x1b[33mWARN\x1b[0m msg=\"heartbeat skipped\" db=a.db\n", out.String())
	assert.Equal(t, 1, p.counted("heartbeat skipped"))
}

// A terminal is shown colour unless NO_COLOR is set, and nothing else is.
func TestWantsColour(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	assert.False(t, wantsColour(&bytes.Buffer{}))
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	assert.False(t, wantsColour(null))
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	defer terminal.Close()
	assert.True(t, wantsColour(terminal))
	t.Setenv("TERM", "dumb")
	assert.False(t, wantsColour(terminal))
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	assert.False(t, wantsColour(terminal))
}
