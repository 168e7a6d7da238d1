package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// demoWidth is what a terminal shows in one line.
const demoWidth = 80

// A printer shows what the demonstration says, and the daemon's log lines.
type printer struct {
	colour bool
	dir    string // left out of paths
	broken func(error)

	mu    sync.Mutex
	w     io.Writer
	err   error
	count map[string]int // of log lines, by their messages
}

// What is shown in colour, and how: as ECMA-48 has it.
const (
	bold   = "\x1b[1m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// wantsColour reports whether w is a terminal whose user has not asked for none, as
// no-color.org says.
func wantsColour(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// say shows a paragraph.
func (p *printer) say(format string, args ...any) { p.print("", "", fmt.Sprintf(format, args...)) }

// print shows text in lines that are not too long. The first begins with mark, and
// the others stand beneath.
func (p *printer) print(style, mark, text string) {
	lines := wrap(mark+strings.ReplaceAll(text, p.dir, ""), strings.Repeat(" ", utf8.RuneCountInString(mark)))
	if p.colour && style != "" {
		lines = style + strings.ReplaceAll(lines, "\n", plain+"\n"+style) + plain
	}
	p.put(lines + "\n")
}

func (p *printer) put(text string) {
	p.mu.Lock()
	_, err := io.WriteString(p.w, text)
	first := err != nil && p.err == nil
	if first {
		p.err = err
	}
	p.mu.Unlock()
	if first {
		p.broken(err)
	}
}

// Write shows a log line.
func (p *printer) Write(line []byte) (int, error) {
	text := strings.ReplaceAll(strings.TrimSpace(string(line)), p.dir, "")
	_, message, _ := strings.Cut(text, " msg=")
	message, _, _ = strings.Cut(strings.TrimPrefix(message, `"`), `"`)
	p.mu.Lock()
	p.count[message]++
	p.mu.Unlock()
	text = wrap("   "+text, "     ")
	if p.colour {
		for level, style := range map[string]string{"INFO": green, "WARN": yellow, "ERROR": red} {
			text = strings.Replace(text, "level="+level, "level="+style+level+plain, 1)
		}
	}
	p.put(text + "\n")
	return len(line), nil
}

// failure returns the first error of writing.
func (p *printer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// counted returns how many log lines had a message.
func (p *printer) counted(message string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[message]
}

// wrap breaks text at spaces, so that no line is too long, and puts indent before
// each line but the first.
func wrap(text, indent string) string {
	var lines strings.Builder
	column := 0
	for i, word := range strings.Split(text, " ") {
		width := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+width > demoWidth && column > len(indent):
			lines.WriteString("\n" + indent)
			column = len(indent)
		default:
			lines.WriteString(" ")
			column++
		}
		lines.WriteString(word)
		column += width
	}
	return lines.String()
}
