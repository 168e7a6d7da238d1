package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// A config is what the operator writes. The heartbeat-… keys are the library's.
type config struct {
	heartbeat.Config `yaml:",inline"`
	DBs              []dbConfig `yaml:"dbs"`
}

type dbConfig struct {
	Path    string        `yaml:"path"`
	Replica replicaConfig `yaml:"replica"`
}

type replicaConfig struct {
	URL          string       `yaml:"url"`
	SyncInterval syncInterval `yaml:"sync-interval"` // zero: Litestream's default
}

// A syncInterval is a type of its own, so that a malformed one can be told by
// its key.
type syncInterval time.Duration

// loadConfig reads a configuration, and returns one line that names the file,
// and the key or path, when it is not fit for use. No error has a value in it
// that may be secret: ping URLs are, and replica URLs may hold passwords.
func loadConfig(path string) (*config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err // which does not repeat the path
		}
		return nil, fmt.Errorf("%s: %w", cmp.Or(path, "-config"), err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict(),
		yaml.CustomUnmarshaler(unmarshalDuration[time.Duration]("heartbeat-interval")),
		yaml.CustomUnmarshaler(unmarshalDuration[syncInterval]("sync-interval")))
	var cfg config
	if err := decode(decoder, &cfg); err != nil && !errors.Is(err, io.EOF) { // an empty file has no dbs
		return nil, yamlError(path, err)
	}
	if err := decode(decoder, new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document; write one", path)
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &cfg, nil
}

// decode makes an error of a panic, which the package has for some malformed YAML:
// FuzzLoadConfig found "heartbeat-urls: !x", with a scalar on the next line.
func decode(decoder *yaml.Decoder, into any) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not valid YAML")
		}
	}()
	return decoder.Decode(into)
}

func unmarshalDuration[T ~int64](key string) func(*T, []byte) error {
	return func(d *T, data []byte) error {
		var text string
		if err := yaml.Unmarshal(data, &text); err != nil {
			return fmt.Errorf("%s: not a duration such as 30s or 5m", key)
		}
		parsed, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%s: not a duration such as 30s or 5m", key) // its value may be a misplaced URL
		}
		if parsed <= 0 {
			return fmt.Errorf("%s: %s is not positive", key, text)
		}
		*d = T(parsed)
		return nil
	}
}

// yamlError makes one line of an error, with the place and the key in it.
func yamlError(path string, err error) error {
	ye, ok := errors.AsType[yaml.Error](err)
	if !ok || ye.GetToken() == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	at := ye.GetToken()
	message := strings.Replace(ye.GetMessage(), "unknown field", "unknown key", 1)
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		message = "value has the wrong type" // its text is about Go
	}
	if at.Prev != nil && at.Prev.Type == token.MappingValueType && at.Prev.Prev != nil {
		message = at.Prev.Prev.Value + ": " + message
	}
	if strings.Contains(message, "://") {
		message = "a URL is where none belongs" // and may be a secret one
	}
	return fmt.Errorf("%s:%d:%d: %s", path, at.Position.Line, at.Position.Column, message)
}

func (c *config) validate() error {
	if c.FailURL != "" && !c.Enabled() {
		return errors.New("heartbeat-fail-url: set without heartbeat-url")
	}
	if len(c.DBs) == 0 {
		return errors.New("dbs: no databases; list at least one")
	}
	paths, replicas := map[string]bool{}, map[string]bool{}
	for i := range c.DBs {
		db := &c.DBs[i]
		if db.Path == "" {
			return fmt.Errorf("dbs[%d].path: not set", i)
		}
		path, err := filepath.Abs(db.Path)
		if err != nil {
			return fmt.Errorf("dbs[%d].path: %w", i, err)
		}
		if paths[path] {
			return fmt.Errorf("dbs[%d].path: %s is given twice", i, db.Path)
		}
		paths[path] = true

		if db.Replica.URL == "" {
			return fmt.Errorf("dbs[%d].replica.url: not set for %s", i, db.Path)
		}
		if _, err := replicaClient(db.Replica.URL); err != nil {
			return fmt.Errorf("dbs[%d].replica.url: %w", i, err)
		}
		scheme, host, dir, query, _, err := litestream.ParseReplicaURLWithQuery(db.Replica.URL)
		if err != nil {
			return fmt.Errorf("dbs[%d].replica.url: not a valid URL", i)
		}
		place := scheme + "://" + host + "/" + dir + "?" + query.Encode()
		if replicas[place] { // two databases in one place destroy each other's replica
			return fmt.Errorf("dbs[%d].replica.url: the same as another database's", i)
		}
		replicas[place] = true

		// A replica that is brought up to date less often cannot be told from one
		// that lags: see checksPerBeat.
		if limit := c.interval() / checksPerBeat; c.Enabled() && time.Duration(db.Replica.SyncInterval) > limit {
			return fmt.Errorf("dbs[%d].replica.sync-interval: %v is too long to prove a heartbeat every %v; at most %v",
				i, time.Duration(db.Replica.SyncInterval), c.interval(), limit)
		}
	}
	return nil
}

// interval is the time between two heartbeats, as the library will have it.
func (c *config) interval() time.Duration {
	if c.Interval == 0 {
		return heartbeat.DefaultInterval
	}
	return max(c.Interval, heartbeat.MinInterval)
}

func replicaClient(url string) (litestream.ReplicaClient, error) {
	if litestream.ReplicaTypeFromURL(url) == "" {
		return nil, errors.New("not a replica URL such as file:///backup/app or s3://bucket/app")
	}
	return litestream.NewReplicaClientFromURL(url)
}
