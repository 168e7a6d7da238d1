package heartbeat

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat/internal/pingurl"
)

// Config is what an operator writes; a daemon inlines it in its own
// configuration. The field tags are those of the usual YAML packages.
//
// Ping URLs are credentials. So a Config prints as the keys that are set, without
// their values: with package fmt, log/slog and JSON. A struct that embeds a Config
// inherits that; give it methods of its own to print otherwise.
type Config struct {
	URL      string        `yaml:"heartbeat-url"`       // the service to ping; empty: none
	URLs     []string      `yaml:"heartbeat-urls"`      // further services, pinged alongside
	Interval time.Duration `yaml:"heartbeat-interval"`  // zero: Options.Interval, and so DefaultInterval
	FailURL  string        `yaml:"heartbeat-fail-url"`  // pinged once when databases turn unhealthy; empty: none
	FailBody string        `yaml:"heartbeat-fail-body"` // what FailURL is sent, by POST; "{reason}" in it stands for the reason; empty: a GET

	// HTTP is the daemon's own settings of the pingers of all these URLs, such as
	// the client and the timeout; FailBody takes the place of its Body. nil: all
	// defaults.
	HTTP *HTTPOptions `yaml:"-"`
}

// A ConfigError says what is wrong with one key of a [Config]. Find it with
// errors.As, as a *ConfigError. It holds no URL.
type ConfigError struct {
	Key string // such as heartbeat-url, or heartbeat-urls[1]
	Err error  // what is wrong, and what would be right
}

// Error returns "heartbeat: ", the key and the text of Err; and "<nil>" if e is nil.
func (e *ConfigError) Error() string {
	if e == nil {
		return "<nil>"
	}
	return fmt.Sprintf("heartbeat: %s: %v", e.Key, e.Err)
}

// Unwrap returns Err.
func (e *ConfigError) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// Enabled reports whether there is a URL to ping.
func (c Config) Enabled() bool {
	return c.URL != "" || slices.ContainsFunc(c.URLs, func(u string) bool { return u != "" })
}

// Validate returns what is wrong with the keys that are set: a [*ConfigError] for
// each of them, joined. It is nil where NewMonitor would not complain of them, and
// where nothing is set: heartbeats are off then.
func (c Config) Validate() error {
	_, _, err := c.pingers()
	return err
}

// NewMonitor returns a [Monitor] with an [HTTPPinger] for each of the URLs. What
// c sets takes the place of the like in opts, which is not modified and may be
// nil. Its errors are those of Validate and of [New], and one where c is not
// Enabled.
func (c Config) NewMonitor(reporters []SyncReporter, opts *Options) (*Monitor, error) {
	pingers, fail, err := c.pingers()
	if err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return nil, errors.New("heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off")
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Interval = cmp.Or(c.Interval, o.Interval)
	if fail != nil {
		o.FailPinger = fail
	}
	return New(MultiPinger(pingers...), reporters, &o)
}

// A setting is a key of a Config with its URL.
type setting struct {
	key, url string
	body     string
}

// pingers makes a pinger for each URL, and returns all that is wrong with c. It
// refuses what New refuses, by the same functions, so that the error names the key.
func (c Config) pingers() (pingers []Pinger, fail Pinger, err error) {
	errs := c.problems()
	settings := c.settings()
	made := make([]*HTTPPinger, len(settings)) // nil: none could be
	for i, s := range settings {
		var opts HTTPOptions
		if c.HTTP != nil {
			opts = *c.HTTP
		}
		opts.Body = cmp.Or(s.body, opts.Body)
		p, err := newHTTPPinger(s.url, &opts)
		first := slices.IndexFunc(made, func(m *HTTPPinger) bool { return samePinger(m, p) })
		made[i] = p
		switch {
		case err != nil && errors.Is(err, pingurl.CheckBody(s.body)):
			errs = append(errs, &ConfigError{"heartbeat-fail-body", err})
		case err != nil:
			errs = append(errs, &ConfigError{s.key, err})
		case first >= 0:
			// A service that is pinged twice a minute may ignore both, and a failure
			// signal to a success URL would be a false green.
			errs = append(errs, &ConfigError{s.key, fmt.Errorf("the same URL as %s; leave one of them out", settings[first].key)})
		case s.key == failURLKey:
			fail = p
		default:
			pingers = append(pingers, p)
		}
	}
	return pingers, fail, errors.Join(errs...)
}

const failURLKey = "heartbeat-fail-url"

func (c Config) settings() (settings []setting) {
	if c.URL != "" {
		settings = append(settings, setting{key: "heartbeat-url", url: c.URL})
	}
	for i, u := range c.URLs {
		settings = append(settings, setting{key: fmt.Sprintf("heartbeat-urls[%d]", i), url: u})
	}
	if c.FailURL != "" {
		settings = append(settings, setting{failURLKey, c.FailURL, c.FailBody})
	}
	return settings
}

// problems returns what is wrong with c beside its URLs.
func (c Config) problems() (errs []error) {
	wrong := func(key, text string) { errs = append(errs, &ConfigError{key, errors.New(text)}) }
	switch {
	case c.Interval < 0:
		wrong("heartbeat-interval", fmt.Sprintf("%v is negative; use a positive one such as 5m", c.Interval))
	case c.Interval > 0 && c.Interval < time.Millisecond:
		wrong("heartbeat-interval", fmt.Sprintf("%v is too short: the unit may be missing; write 5m for five minutes", c.Interval))
	}
	if c.FailURL != "" && !c.Enabled() {
		wrong(failURLKey, "set without a URL to ping; set heartbeat-url too")
	}
	if c.FailBody != "" && c.FailURL == "" {
		wrong("heartbeat-fail-body", "set without heartbeat-fail-url, which it would be sent to; set that too")
	}
	return errs
}

// shown is what may be printed of c: the keys that are set.
func (c Config) shown() string {
	var keys []string
	for _, s := range c.settings() {
		keys = append(keys, s.key)
	}
	if c.FailBody != "" {
		keys = append(keys, "heartbeat-fail-body")
	}
	if c.Interval != 0 {
		keys = append(keys, fmt.Sprintf("heartbeat-interval: %v", c.Interval))
	}
	return "heartbeat.Config{" + strings.Join(keys, ", ") + "}"
}

// Format prints the keys that are set without their values, for all verbs of fmt.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.shown()) }

// LogValue is the same for log/slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.shown()) }

// MarshalJSON is the same for encoding/json.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }
