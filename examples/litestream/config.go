package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A config is what the operator writes. The heartbeat-… keys are the library's.
type config struct {
	heartbeat.Config `yaml:",inline"`
	Restore          restoreConfig `yaml:",inline"`
	RestoreDir       string        `yaml:"restore-check-dir"` // empty: the system's
	Addr             string        `yaml:"addr"`              // where /healthz and /metrics are served; empty: nowhere
	DBs              []dbConfig    `yaml:"dbs"`
}

type dbConfig struct {
	Path    string        `yaml:"path"`
	Replica replicaConfig `yaml:"replica"`

	// A heartbeat of this database's own. If its Interval or its MaxSyncAge is zero,
	// that of the global one counts.
	heartbeat.Config `yaml:",inline"`
	Global           *bool `yaml:"heartbeat-global"` // nil: see countsGlobally

	// What is set here takes the place of what the top has.
	Restore restoreConfig `yaml:",inline"`

	off bool // whether heartbeat-url is there, and empty
}

type replicaConfig struct {
	URL          string        `yaml:"url"`
	SyncInterval time.Duration `yaml:"sync-interval"` // zero: Litestream's default
}

// A restoreConfig says how often a replica is restored, to see that it can be.
type restoreConfig struct {
	Every *time.Duration `yaml:"restore-check"`       // nil: as above it, or not at all; zero: not at all
	Query string         `yaml:"restore-check-query"` // empty: none
}

// on reports whether replicas are restored.
func (c restoreConfig) on() bool { return c.Every != nil && *c.Every > 0 }

// restoreCheck returns what counts for the i-th database.
func (c *config) restoreCheck(i int) restoreConfig {
	db := c.DBs[i].Restore
	return restoreConfig{cmp.Or(db.Every, c.Restore.Every), cmp.Or(db.Query, c.Restore.Query)}
}

// countsGlobally reports whether the global heartbeat stands for the database too.
func (c *dbConfig) countsGlobally() bool {
	if c.Global != nil {
		return *c.Global
	}
	return !c.Enabled() && !c.off
}

// A beat is one heartbeat, and the databases that it stands for, by their indexes.
type beat struct {
	key string // of the configuration that it comes from, as a prefix of its keys
	heartbeat.Config
	databases []int
}

// beats returns the heartbeats that are on: the global one, and databases' own.
func (c *config) beats() (beats []beat) {
	global := beat{Config: c.Config}
	for i := range c.DBs {
		db := &c.DBs[i]
		if db.countsGlobally() {
			global.databases = append(global.databases, i)
		}
		if db.Enabled() {
			own := beat{fmt.Sprintf("dbs[%d].", i), db.Config, []int{i}}
			own.Interval = cmp.Or(own.Interval, c.Interval)
			own.MaxSyncAge = cmp.Or(own.MaxSyncAge, c.MaxSyncAge)
			beats = append(beats, own)
		}
	}
	if c.Enabled() {
		beats = append([]beat{global}, beats...)
	}
	return beats
}

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
	cfg, err := parseConfig(expandEnv(data))
	if err == nil {
		err = cfg.validate()
	}
	if pe, ok := errors.AsType[*placedError](err); ok {
		return nil, fmt.Errorf("%s:%w", path, pe)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// expandEnv replaces $VAR and ${VAR}, as Litestream does. It also removes the
// mark that some editors begin a text with.
func expandEnv(data []byte) []byte {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	return []byte(os.Expand(string(data), func(key string) string {
		if key == "PID" {
			return strconv.Itoa(os.Getpid())
		}
		return os.Getenv(key)
	}))
}

// parseConfig makes an error of a panic, which the package has for some malformed
// YAML: FuzzLoadConfig found "heartbeat-urls: !x", with a scalar on the next line.
func parseConfig(data []byte) (_ *config, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("not valid YAML")
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, yamlError(data, err)
	}
	checker := &checker{}
	for _, doc := range file.Docs {
		ast.Walk(checker, doc)
	}
	if checker.err != nil {
		return nil, checker.err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	cfg := &config{}
	if err := decoder.Decode(cfg); err != nil && !errors.Is(err, io.EOF) { // an empty file has no dbs
		return nil, yamlError(data, err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document; write one")
	}
	// A string cannot tell an empty value from none.
	var urls struct {
		DBs []struct {
			URL *string `yaml:"heartbeat-url"`
		} `yaml:"dbs"`
	}
	if err := yaml.Unmarshal(data, &urls); err != nil {
		return nil, yamlError(data, err)
	}
	for i, db := range urls.DBs {
		cfg.DBs[i].off = db.URL != nil && *db.URL == ""
	}
	return cfg, nil
}

// A placedError is one at a place in the file.
type placedError struct {
	line, column int
	message      string
}

func (e *placedError) Error() string { return fmt.Sprintf("%d:%d: %s", e.line, e.column, e.message) }

// at returns an error at a token, with the key that the token is the value of.
func at(t *token.Token, message string) *placedError {
	if t.Prev != nil && t.Prev.Type == token.MappingValueType && t.Prev.Prev != nil {
		message = t.Prev.Prev.Value + ": " + message
	}
	if strings.Contains(message, "://") {
		message = "a URL is where none belongs" // and may be a secret one
	}
	return &placedError{t.Position.Line, t.Position.Column, message}
}

// A checker finds what the decoder would say nothing of, or say less well.
type checker struct {
	err error // the first
}

// Visit checks a node, and goes on to those beneath until something is wrong.
func (c *checker) Visit(node ast.Node) ast.Visitor {
	if c.err != nil {
		return nil
	}
	if pair, ok := node.(*ast.MappingValueNode); ok && pair.Value != nil {
		if err := checkValue(pair.Key.GetToken().Value, pair.Value); err != nil {
			c.err = err
		}
	}
	return c
}

func checkValue(key string, value ast.Node) error {
	t := value.GetToken()
	switch key {
	case "dbs":
		return checkDBs(value)
	case "heartbeat-interval", "heartbeat-max-sync-age", "sync-interval":
		d, ok, err := duration(key, value, "30s or 5m")
		if err == nil && ok && d <= 0 {
			err = at(t, t.Value+" is not positive")
		}
		return err
	case "restore-check":
		d, ok, err := duration(key, value, "24h, or 0s for none")
		if _, unitless := value.(*ast.IntegerNode); unitless {
			err = at(t, "not a duration such as 24h, or 0s for none")
		}
		if err == nil && ok && d < minRestoreCheck && d != 0 {
			err = at(t, fmt.Sprintf("%s is too often, since each check reads the whole replica; at least %s, or 0s for none", t.Value, "1h"))
		}
		return err
	}
	return nil
}

// maxDuration is more than anybody means.
const maxDuration = 365 * 24 * time.Hour

// duration returns the duration that a key has, and whether it has any.
func duration(key string, value ast.Node, example string) (d time.Duration, ok bool, err error) {
	if _, null := value.(*ast.NullNode); null {
		return 0, false, nil
	}
	t := value.GetToken()
	d, err = time.ParseDuration(t.Value)
	if _, scalar := value.(ast.ScalarNode); !scalar || err != nil {
		// It does not show the value, which may be a misplaced URL.
		return 0, false, &placedError{t.Position.Line, t.Position.Column, key + ": not a duration such as " + example}
	}
	if d > maxDuration {
		return 0, false, at(t, t.Value+" is more than a year; at most 8760h")
	}
	return d, true, nil
}

func checkDBs(value ast.Node) error {
	const want = `write a list, with "- path: /data/app.db" for each database and its replica beneath`
	list, ok := value.(*ast.SequenceNode)
	if !ok {
		if _, ok := value.(*ast.NullNode); ok {
			return nil // which is said later
		}
		t := value.GetToken()
		if pair, ok := value.(*ast.MappingValueNode); ok {
			t = pair.Key.GetToken()
		}
		if m, ok := value.(*ast.MappingNode); ok && len(m.Values) > 0 {
			t = m.Values[0].Key.GetToken()
		}
		return &placedError{t.Position.Line, t.Position.Column, "dbs: not a list; " + want}
	}
	for i, db := range list.Values {
		switch db.(type) {
		case *ast.MappingNode, *ast.MappingValueNode, *ast.AliasNode, *ast.AnchorNode:
		default:
			t := db.GetToken()
			return &placedError{t.Position.Line, t.Position.Column, fmt.Sprintf("dbs[%d]: not a database's settings; %s", i, want)}
		}
	}
	return nil
}

// yamlError makes one line of an error, with the place and the key in it.
func yamlError(data []byte, err error) error {
	ye, ok := errors.AsType[yaml.Error](err)
	if !ok || ye.GetToken() == nil {
		return err
	}
	message := strings.Replace(ye.GetMessage(), "unknown field", "unknown key", 1)
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		message = "value has the wrong type" // its text is about Go
	}
	if _, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		if quoted := openQuote(data); quoted != nil {
			return at(quoted, "the quote is not closed on its line")
		}
	}
	return at(ye.GetToken(), message)
}

// openQuote returns the first quoted text that goes on over a line's end. No
// value here has a reason to, and where the YAML is malformed that is why: it
// takes what follows for text, and is noticed far from where it began.
func openQuote(data []byte) *token.Token {
	for _, t := range lexer.Tokenize(string(data)) {
		if (t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType) && strings.Contains(strings.TrimSpace(t.Origin), "\n") {
			return t
		}
	}
	return nil
}
