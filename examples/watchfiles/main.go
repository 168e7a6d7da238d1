// Watchfiles sends a heartbeat while files keep arriving: it supervises anything
// that leaves files behind, such as a nightly backup, an rsync or a WAL archive.
//
//	go run ./examples/watchfiles -h
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

//go:embed usage.txt
var usage string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "watchfiles: %v (see watchfiles -h)\n", err)
	}
	os.Exit(code)
}

// settings are what the command line and the environment ask for.
type settings struct {
	url              string // empty: only report
	interval, maxAge time.Duration
	name             string
	once             bool
	paths            []string
}

func parse(args []string) (*settings, error) {
	s := &settings{url: os.Getenv("HEARTBEAT_URL"), interval: heartbeat.DefaultInterval}
	flags := flag.NewFlagSet("watchfiles", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	given := false
	flags.Func("url", "", func(url string) error {
		if url == "" { // an unset variable in a crontab is no wish to only report
			return errors.New("is empty")
		}
		if given { // the first would never be pinged
			return errors.New("is given twice; give it once")
		}
		s.url, given = url, true
		return nil
	})
	flags.Func("interval", "", parseInto(&s.interval))
	flags.Func("max-age", "", parseInto(&s.maxAge))
	flags.StringVar(&s.name, "name", "*", "")
	flags.BoolVar(&s.once, "once", false, "")
	if err := flags.Parse(args); err != nil && strings.Contains(err.Error(), "://") {
		return nil, withoutURL(err)
	} else if err != nil {
		return nil, err
	}
	s.paths = flags.Args()
	return s, s.check()
}

// withoutURL returns an error that does not quote the URL, as err does.
func withoutURL(err error) error {
	if strings.Contains(err.Error(), "for flag -url:") {
		return errors.New("-url is given twice; give it once")
	}
	return errors.New("a URL stands where none belongs")
}

const year = 365 * 24 * time.Hour

func (s *settings) check() error {
	switch {
	case s.interval < heartbeat.MinInterval:
		return fmt.Errorf("-interval is below %v", heartbeat.MinInterval)
	case s.interval > year:
		return errors.New("-interval is longer than a year")
	case s.maxAge < 0:
		return errors.New("-max-age is negative")
	case s.maxAge > 0 && s.maxAge < time.Second: // paths are walked four times as often
		return errors.New("-max-age is below 1s")
	}
	s.maxAge = cmp.Or(s.maxAge, s.interval)
	if _, err := filepath.Match(s.name, ""); err != nil || s.name == "" || strings.ContainsRune(s.name, filepath.Separator) {
		return errors.New("-name is not a pattern for a file's name, such as '*.sql.gz'")
	}
	return nil
}

func run(ctx context.Context, args []string) (code int, err error) {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(usage)
		return 0, nil
	} else if err != nil {
		return 2, err
	}
	trees, err := newTrees(s.paths, s.name)
	if err != nil {
		return 2, err
	}
	level := slog.LevelInfo
	if s.once { // cron mails what is printed
		level = slog.LevelWarn
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: inOurWords}))
	monitor, err := s.newMonitor(trees, logger)
	if err != nil {
		return 2, err
	}
	s.walk(ctx, trees, logger)
	if !s.once {
		return 0, monitor.Run(ctx)
	}
	switch result := monitor.Beat(ctx); {
	case ctx.Err() == nil && result.Outcome == heartbeat.Skipped:
		return 1, nil
	case result.Outcome == heartbeat.Sent:
		return 0, nil
	}
	return 3, nil
}

// newMonitor returns a Monitor that sends heartbeats, or one that only reports.
func (s *settings) newMonitor(trees []heartbeat.SyncReporter, logger *slog.Logger) (monitor *heartbeat.Monitor, err error) {
	opts := &heartbeat.Options{Interval: s.interval, MaxSyncAge: s.maxAge, Logger: logger}
	if s.url != "" {
		pinger, err := heartbeat.NewHTTPPinger(s.url, &heartbeat.HTTPOptions{RedactURL: true})
		if err != nil {
			return nil, err
		}
		return heartbeat.New(pinger, trees, opts)
	}
	opts.Logger = slog.New(slog.DiscardHandler) // nothing is sent, and no log line may say so
	opts.OnResult = func(heartbeat.Result) { report(monitor.Status(), time.Now()) }
	monitor, err = heartbeat.New(heartbeat.PingerFunc(func(context.Context) error { return nil }), trees, opts)
	return monitor, err
}

// walk starts to walk the trees, and waits for the first walk of each, so that the
// first check has something to go by. Unless there is only that one check it does
// not wait for ever: silence should have a line in the log that explains it.
func (s *settings) walk(ctx context.Context, trees []heartbeat.SyncReporter, logger *slog.Logger) {
	var first sync.WaitGroup
	first.Add(len(trees))
	for _, t := range trees {
		go t.(tree).watch(ctx, s.maxAge, logger, sync.OnceFunc(first.Done))
	}
	walked := make(chan struct{})
	go func() { first.Wait(); close(walked) }()
	timeout := time.After(heartbeat.MinInterval)
	if s.once {
		timeout = nil
	}
	select {
	case <-walked:
	case <-timeout:
	case <-ctx.Done():
	}
}

// newTrees returns a tree for each path.
func newTrees(paths []string, name string) (trees []heartbeat.SyncReporter, err error) {
	given := make(map[string]bool)
	for _, path := range paths {
		if strings.HasPrefix(path, "-") || strings.Contains(path, "://") {
			return nil, errors.New("flags and the URL go before the paths")
		}
		if path == "" { // Clean would make it the current directory
			return nil, errors.New("a path is empty: is a variable unset?")
		}
		path = filepath.Clean(path)
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if given[absolute] {
			return nil, fmt.Errorf("path given twice: %s", path)
		}
		given[absolute] = true
		trees = append(trees, tree{heartbeat.NewSyncTracker(path), name})
	}
	if len(trees) == 0 {
		return nil, errors.New("no path to watch")
	}
	return trees, nil
}

// parseInto returns a flag's function that sets d to a duration, in which there may
// be days: 1d, 1d12h.
func parseInto(d *time.Duration) func(string) error {
	return func(text string) error {
		rest, days := text, 0
		if before, after, ok := strings.Cut(text, "d"); ok {
			var err error
			if days, err = strconv.Atoi(before); err != nil || days < 0 || days > 10_000 {
				return errNotDuration
			}
			rest = cmp.Or(after, "0s")
		}
		parsed, err := time.ParseDuration(rest)
		if err != nil {
			return errNotDuration
		}
		*d = time.Duration(days)*24*time.Hour + parsed
		return nil
	}
}

var errNotDuration = errors.New("it is not a duration, such as 90m, 25h or 1d")

// words are what the library says of databases, as it is said of files.
var words = map[string]string{
	string(heartbeat.ReasonNotSynced): "no file",
	string(heartbeat.ReasonStale):     "newest file too old",
	string(heartbeat.ReasonFuture):    "newest file dated ahead",
}

func inWords(reason string) string { return cmp.Or(words[reason], reason) }

// inOurWords makes a log line one about files: this program has no database.
func inOurWords(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case "reason":
		a.Value = slog.StringValue(inWords(a.Value.String()))
	case "db":
		a.Key = "path"
	case "last_sync":
		a.Key = "newest_file"
	case "databases":
		a.Key = "paths"
	}
	return a
}

func report(status heartbeat.Status, now time.Time) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PATH\tNEWEST FILE\tAGE\tSTATE")
	for _, db := range status.Databases {
		newest, age, state := "none", "-", "fresh"
		if !db.LastSyncAt.IsZero() {
			newest, age = db.LastSyncAt.Format(time.RFC3339), formatAge(now.Sub(db.LastSyncAt))
		}
		if !db.Healthy() {
			state = inWords(string(db.Reason))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", db.Path, newest, age, state)
	}
	w.Flush()
}

// formatAge returns an age as people say it: 12s, 3m, 5h07m, 2d03h.
func formatAge(age time.Duration) string {
	if age < 0 {
		return "-" + formatAge(-age)
	}
	minutes := int(age.Minutes())
	switch hours := minutes / 60; {
	case minutes == 0:
		return fmt.Sprintf("%ds", int(age.Seconds()))
	case hours == 0:
		return fmt.Sprintf("%dm", minutes)
	case hours < 24:
		return fmt.Sprintf("%dh%02dm", hours, minutes%60)
	default:
		return fmt.Sprintf("%dd%02dh", hours/24, hours%24)
	}
}
