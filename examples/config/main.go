// Command config shows how a daemon reads its heartbeat settings with the usual
// packages for YAML, JSON, TOML and the environment, and tells what it understood
// of a file:
//
//	go run . settings.yaml
//	go run . -with viper settings.toml
//	HEARTBEAT_URL=https://hc-ping.com/your-uuid-here go run . -with env
//
// README.md has a table of what each package needs.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-heartbeat/heartbeat"
)

// Settings are a daemon's own. The Config is a named field: embedded it would lend
// its methods to Settings, which then would no longer print or marshal as itself.
type Settings struct {
	DB        string           `yaml:"db" json:"db" toml:"db" mapstructure:"db" koanf:"db" env:"DB"`
	Heartbeat heartbeat.Config `yaml:",inline" json:"-" toml:"-" mapstructure:",squash" koanf:",squash"`
}

// monitor returns nil where heartbeats are off.
func (s Settings) monitor(databases ...heartbeat.SyncReporter) (*heartbeat.Monitor, error) {
	if err := s.Heartbeat.Validate(); err != nil {
		return nil, err
	}
	if !s.Heartbeat.Enabled() {
		return nil, nil
	}
	return s.Heartbeat.NewMonitor(databases, nil)
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "config:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("config", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error, once
	with := flags.String("with", "", "the `package` to read with: "+strings.Join(names(), ", ")+" (default: by the file's extension)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(out, "Usage: config [-with PACKAGE] FILE\n       config -with env\n\nTells what a daemon would understand of its heartbeat settings.\n\n")
			flags.SetOutput(out)
			flags.PrintDefaults()
		}
		return err
	}
	settings, err := load(*with, flags.Args())
	if err != nil {
		return err
	}
	monitor, err := settings.monitor(heartbeat.NewSyncTracker(settings.DB))
	switch {
	case err != nil:
		return err
	case monitor == nil:
		fmt.Fprintln(out, "heartbeats are off: there is no URL to ping")
	default:
		fmt.Fprintf(out, "heartbeats are on, one every %v: %v\n", monitor.Status().Interval, settings.Heartbeat)
	}
	return nil
}

// load reads the file that args name with a package, or the environment.
func load(with string, args []string) (Settings, error) {
	if with == "env" {
		if len(args) > 0 {
			return Settings{}, fmt.Errorf("-with env reads no file, and %q was given", args[0])
		}
		return loadEnv(environment())
	}
	if len(args) != 1 || args[0] == "" {
		return Settings{}, fmt.Errorf("%d files were given; give one (-h for help)", len(args))
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return Settings{}, err
	}
	format := strings.TrimPrefix(filepath.Ext(args[0]), ".")
	if format == "yml" {
		format = "yaml"
	}
	i := slices.IndexFunc(loaders, func(l loader) bool { return l.name == with || with == "" && slices.Contains(l.formats, format) })
	if i < 0 && with != "" {
		return Settings{}, fmt.Errorf("-with %q is unknown; use one of %s", with, strings.Join(names(), ", "))
	}
	if i < 0 || !slices.Contains(loaders[i].formats, format) {
		return Settings{}, fmt.Errorf("%s: the extension %q is unknown to the package", args[0], format)
	}
	return loaders[i].load(data, format)
}
