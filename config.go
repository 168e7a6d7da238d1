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

// Config is what an operator writes about heartbeats. Make it a named field of the
// daemon's own settings, with the tag `yaml:",inline"`. A struct that embeds a Config
// inherits its Format, LogValue and MarshalJSON, and then no longer prints as itself.
// The keys are the same in YAML, JSON and TOML. Environment variables are HEARTBEAT_URL
// and so on. The module examples/config shows what each package for these formats
// needs.
//
// Ping URLs are credentials. So package fmt, log/slog and encoding/json print which keys
// of a Config are set, without the values of URLs and bodies. As with [HTTPOptions], that
// does not hold for the verbs %p and %w, or for an unexported field of a struct.
type Config struct {
	// URL is the service to ping. It may be empty.
	URL string `yaml:"heartbeat-url" json:"heartbeat-url" toml:"heartbeat-url" mapstructure:"heartbeat-url" koanf:"heartbeat-url" env:"HEARTBEAT_URL"`

	// URLs are further services to ping. An empty item is an error. But
	// gopkg.in/yaml.v3 drops an item that has nothing behind its dash.
	URLs []string `yaml:"heartbeat-urls" json:"heartbeat-urls" toml:"heartbeat-urls" mapstructure:"heartbeat-urls" koanf:"heartbeat-urls" env:"HEARTBEAT_URLS"`

	// Interval takes the place of Options.Interval. If zero, Options.Interval is used.
	// In JSON a duration is a number of nanoseconds, and "5m" is an error.
	Interval time.Duration `yaml:"heartbeat-interval" json:"heartbeat-interval" toml:"heartbeat-interval" mapstructure:"heartbeat-interval" koanf:"heartbeat-interval" env:"HEARTBEAT_INTERVAL"`

	// MaxSyncAge takes the place of Options.MaxSyncAge. If zero, Options.MaxSyncAge is
	// used. With 26h, a job that syncs once a night can beat hourly.
	MaxSyncAge time.Duration `yaml:"heartbeat-max-sync-age" json:"heartbeat-max-sync-age" toml:"heartbeat-max-sync-age" mapstructure:"heartbeat-max-sync-age" koanf:"heartbeat-max-sync-age" env:"HEARTBEAT_MAX_SYNC_AGE"`

	// FailURL is pinged once when databases are lost, as Options.FailPinger is. If
	// empty, Options.FailPinger is used.
	FailURL string `yaml:"heartbeat-fail-url" json:"heartbeat-fail-url" toml:"heartbeat-fail-url" mapstructure:"heartbeat-fail-url" koanf:"heartbeat-fail-url" env:"HEARTBEAT_FAIL_URL"`

	// FailBody is sent to FailURL by POST. In it, "{reason}" stands for the reason. If
	// empty, HTTP.Body is used. If HTTP.Body is empty too, FailURL gets a GET.
	// HTTP.Method takes the place of both methods.
	FailBody string `yaml:"heartbeat-fail-body" json:"heartbeat-fail-body" toml:"heartbeat-fail-body" mapstructure:"heartbeat-fail-body" koanf:"heartbeat-fail-body" env:"HEARTBEAT_FAIL_BODY"`

	// HTTP has the settings of the pingers of all these URLs, such as the client and
	// the timeout. The daemon's code sets it: no format has a key for it. If nil, all
	// defaults are used.
	HTTP *HTTPOptions `yaml:"-" json:"-" toml:"-" mapstructure:"-" koanf:"-" env:"-"`
}

// A ConfigError says what is wrong with one key of a [Config]. Find it with
// errors.As, as a *ConfigError. It holds no URL.
type ConfigError struct {
	Key string // such as heartbeat-url, or heartbeat-urls[1]
	Err error  // what is wrong, and what would be right
}

// Error returns "heartbeat: ", the key and the text of Err. If e is nil, it returns
// "<nil>".
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

// configErrors holds a *ConfigError for each key that is wrong. The text of errors.Join has a
// line for each error, but a log entry should be one line.
type configErrors struct{ errs []error }

func (e *configErrors) Error() string {
	return strings.ReplaceAll(errors.Join(e.errs...).Error(), "\nheartbeat: ", "; ")
}

func (e *configErrors) Unwrap() []error { return e.errs }

// Enabled reports whether there is a URL to ping. Call Validate first. If there is no
// URL because a key is wrong, only Validate says so.
func (c Config) Enabled() bool {
	return c.URL != "" || slices.ContainsFunc(c.URLs, func(u string) bool { return u != "" })
}

// Validate returns what is wrong with the keys that are set, as one error on one
// line. Its method Unwrap() []error returns a [*ConfigError] for each wrong key.
// Validate returns nil if NewMonitor would accept the keys. It also returns nil if
// nothing is set: heartbeats are off then.
func (c Config) Validate() error {
	_, err := c.pingers()
	return err
}

// NewMonitor returns a [Monitor] with an [HTTPPinger] for each of the URLs. What c sets
// takes the place of the same setting in opts. If opts is nil, all defaults are used.
// opts is not modified. NewMonitor returns the errors of Validate and of [New], and an
// error if c is not Enabled.
func (c Config) NewMonitor(reporters []SyncReporter, opts *Options) (*Monitor, error) {
	pingers, err := c.pingers()
	if err != nil {
		return nil, err
	}
	if len(pingers) == 0 {
		return nil, errors.New("heartbeat: neither heartbeat-url nor heartbeat-urls is set; set one, or leave heartbeats off")
	}
	o := *cmp.Or(opts, &Options{})
	o.Interval = cmp.Or(c.Interval, o.Interval)
	o.MaxSyncAge = cmp.Or(c.MaxSyncAge, o.MaxSyncAge)
	if c.FailURL != "" {
		last := len(pingers) - 1
		o.FailPinger, pingers = pingers[last], pingers[:last]
	}
	return New(MultiPinger(pingers...), reporters, &o)
}

// pingers makes a pinger for each URL, the pinger of FailURL last, or returns all that is
// wrong with c. It refuses what New refuses, by the same functions, so that the error names
// the key. To leave this to New was rejected: New knows no keys, and ends at the first mistake.
func (c Config) pingers() (pingers []Pinger, err error) {
	errs := c.invalid()
	var keys []string // of the pingers
	for _, s := range c.keyedURLs() {
		opts := *cmp.Or(c.HTTP, &HTTPOptions{})
		opts.Body = cmp.Or(s.body, opts.Body)
		p, err := newHTTPPinger(s.url, &opts)
		if err != nil {
			if errors.Is(err, pingurl.CheckBody(s.body)) {
				s.key = failBodyKey
			}
			errs = append(errs, &ConfigError{s.key, err})
			continue
		}
		// With two keys for one check, each heartbeat would ping the check twice. A failure
		// signal to a success URL would be a false green.
		if first := slices.IndexFunc(pingers, func(other Pinger) bool { return samePinger(p, other) }); first >= 0 {
			errs = append(errs, &ConfigError{s.key, fmt.Errorf("the same URL as %s; leave one of them out", keys[first])})
		}
		pingers, keys = append(pingers, p), append(keys, s.key)
	}
	if errs != nil {
		return nil, &configErrors{errs}
	}
	return pingers, nil
}

const (
	failURLKey  = "heartbeat-fail-url"
	failBodyKey = "heartbeat-fail-body"

	// maxDuration is the longest period that can be set at Healthchecks.io. No service is
	// known that allows a longer period, so no service would alert about such a heartbeat.
	// A longer duration can only be a slip, such as a digit or a unit too many.
	maxDuration = 365 * 24 * time.Hour
)

// A keyedURL is a URL of a Config with its key. body is FailBody if the URL is FailURL, and
// otherwise empty.
type keyedURL struct{ key, url, body string }

// keyedURLs returns the URLs that are set, and also the empty items of the list, which are
// errors. To skip an empty item was rejected: it may come from a variable that was not set, and
// then a service would silently get no pings.
func (c Config) keyedURLs() (urls []keyedURL) {
	if c.URL != "" {
		urls = append(urls, keyedURL{key: "heartbeat-url", url: c.URL})
	}
	for i, u := range c.URLs {
		urls = append(urls, keyedURL{key: fmt.Sprintf("heartbeat-urls[%d]", i), url: u})
	}
	if c.FailURL != "" {
		urls = append(urls, keyedURL{failURLKey, c.FailURL, c.FailBody})
	}
	return urls
}

type keyedDuration struct {
	key   string
	value time.Duration
}

func (c Config) keyedDurations() []keyedDuration {
	return []keyedDuration{{"heartbeat-interval", c.Interval}, {"heartbeat-max-sync-age", c.MaxSyncAge}}
}

// invalid returns what is wrong with c, except with its URLs. New raises a short interval to
// the minimum, but here a duration below a second is an error: most loaders read the number 300
// as nanoseconds, and the operator meant seconds.
func (c Config) invalid() (errs []error) {
	add := func(key, format string, args ...any) {
		errs = append(errs, &ConfigError{key, fmt.Errorf(format, args...)})
	}
	for _, d := range c.keyedDurations() {
		switch {
		case d.value < 0:
			add(d.key, "%v is negative; use a positive one such as 5m", d.value)
		case d.value > 0 && d.value < time.Second:
			add(d.key, "%v is too short: the unit may be missing; write 5m for five minutes", d.value)
		case d.value > maxDuration:
			add(d.key, "%v is longer than a year; use a shorter one such as 5m", d.value)
		}
	}
	if c.FailURL != "" && !c.Enabled() {
		add(failURLKey, "set without a URL to ping; set heartbeat-url too")
	}
	if c.FailBody != "" && c.FailURL == "" {
		add(failBodyKey, "set without heartbeat-fail-url, which it would be sent to; set that too")
	}
	return errs
}

// summary returns what may be printed of c: the keys that are set, and the durations.
func (c Config) summary() string {
	var keys []string
	for _, u := range c.keyedURLs() {
		keys = append(keys, u.key)
	}
	if c.FailBody != "" {
		keys = append(keys, failBodyKey)
	}
	for _, d := range c.keyedDurations() {
		if d.value != 0 {
			keys = append(keys, fmt.Sprintf("%s: %v", d.key, d.value))
		}
	}
	return "heartbeat.Config{" + strings.Join(keys, ", ") + "}"
}

// Format prints the keys that are set, without the values of URLs and bodies. Package fmt
// calls it for all verbs but %T, %p and %w.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.summary()) }

// LogValue returns what Format prints, for log/slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.summary()) }

// MarshalJSON returns what Format prints, for encoding/json.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.summary()) }
