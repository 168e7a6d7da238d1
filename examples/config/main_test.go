package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/caarlos0/env/v11"
	"github.com/go-heartbeat/heartbeat"
	goccy "github.com/goccy/go-yaml"
	koanfyaml "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/viper"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// want is what the files settings.* say.
var want = Settings{
	DB: "/data/app.db",
	Heartbeat: heartbeat.Config{
		URL:        "https://hc-ping.com/your-uuid-here",
		URLs:       []string{"https://nosnch.in/your-token", "https://cronitor.link/p/your-key/your-monitor"},
		Interval:   time.Hour,
		MaxSyncAge: 26 * time.Hour,
		FailURL:    "https://hc-ping.com/your-uuid-here/fail",
		FailBody:   "{reason}",
	},
}

// variables say the same in the environment.
var variables = map[string]string{
	"DB":                     "/data/app.db",
	"HEARTBEAT_URL":          "https://hc-ping.com/your-uuid-here",
	"HEARTBEAT_URLS":         "https://nosnch.in/your-token,https://cronitor.link/p/your-key/your-monitor",
	"HEARTBEAT_INTERVAL":     "1h",
	"HEARTBEAT_MAX_SYNC_AGE": "26h",
	"HEARTBEAT_FAIL_URL":     "https://hc-ping.com/your-uuid-here/fail",
	"HEARTBEAT_FAIL_BODY":    "{reason}",
}

func file(t *testing.T, format string) []byte {
	t.Helper()
	data, err := os.ReadFile("settings." + format)
	require.NoError(t, err)
	return data
}

// Each package reads all of the keys, and the Config can be used as it is.
func TestLoad(t *testing.T) {
	for _, l := range loaders {
		for _, format := range l.formats {
			data := file(t, format)
			if format == "json" && l.name != "json" {
				data = []byte(strings.NewReplacer("3600000000000", `"1h"`, "93600000000000", `"26h"`).Replace(string(data)))
			}
			t.Run(l.name+" "+format, func(t *testing.T) {
				got, err := l.load(data, format)
				require.NoError(t, err)
				requireWant(t, got)
			})
		}
	}
	got, err := loadEnv(variables)
	require.NoError(t, err)
	requireWant(t, got)
}

func requireWant(t *testing.T, got Settings) {
	t.Helper()
	require.Equal(t, want, got)
	monitor, err := got.monitor(heartbeat.NewSyncTracker(got.DB))
	require.NoError(t, err)
	require.Equal(t, time.Hour, monitor.Status().Interval)
}

// A misspelt key, a duration without a unit and an empty list item are errors with
// each package, which name the key and show no credential.
func TestLoadMistakes(t *testing.T) {
	for _, row := range []struct {
		yaml, key string
	}{
		{"heartbeat-ulr: https://host/s3cr3t", "heartbeat-ulr"},
		{"heartbeat-interval: 300", "heartbeat-interval"},
		{"heartbeat-interval: 5 minutes", "heartbeat-interval"},
		{"heartbeat-interval: -5m", "heartbeat-interval"},
		{"heartbeat-interval: 300000h", "heartbeat-interval"},
		{"heartbeat-max-sync-age: 90000", "heartbeat-max-sync-age"},
		{"heartbeat-urls: [https://other/s3cr3t, '']", "heartbeat-urls[1]"},
		{"heartbeat-urls: [https://other/s3cr3t, ~]", "heartbeat-urls[1]"},
		{"heartbeat-urls:\n- https://other/s3cr3t\n-", "heartbeat-urls[1]"},
		{"heartbeat-urls:\n- ", "heartbeat-urls[0]"},
	} {
		text := "heartbeat-fail-url: https://host/s3cr3t/fail\n" + row.yaml + "\nheartbeat-url: https://host/s3cr3t/a\n"
		var fields map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(text), &fields))
		asJSON, err := json.Marshal(fields)
		require.NoError(t, err)
		var asTOML bytes.Buffer
		tomlErr := toml.NewEncoder(&asTOML).Encode(fields) // TOML has no null
		for _, l := range loaders {
			for format, data := range map[string][]byte{"yaml": []byte(text), "json": asJSON, "toml": asTOML.Bytes()} {
				if !slices.Contains(l.formats, format) || format == "toml" && tomlErr != nil {
					continue
				}
				settings, err := l.load(data, format)
				if err == nil {
					err = settings.Heartbeat.Validate()
				}
				require.Error(t, err, "%s %s: %s", l.name, format, row.yaml)
				require.NotContains(t, err.Error(), "s3cr3t", "%s %s: %s", l.name, format, row.yaml)
				if l.name != "goccy" && l.name != "yaml.v3" { // these name a line
					require.Contains(t, err.Error(), row.key, "%s %s: %s", l.name, format, row.yaml)
				}
			}
		}
	}
}

// untagged has the Config as a named field too, without a tag that inlines it.
type untagged struct {
	DB        string `yaml:"db" json:"db" toml:"db" mapstructure:"db" koanf:"db"`
	Heartbeat heartbeat.Config
}

// What happens where an option of README.md's table is left out: most packages say
// nothing, and heartbeats are off.
func TestWithoutTheOption(t *testing.T) {
	off := func(t *testing.T, s untagged) {
		t.Helper()
		require.Equal(t, "/data/app.db", s.DB)
		require.False(t, s.Heartbeat.Enabled())
	}
	for name, unmarshal := range map[string]func([]byte, any) error{
		"yaml.v3": yaml.Unmarshal,
		"goccy":   goccy.Unmarshal,
		"viper": func(data []byte, v any) error {
			v2 := viper.New()
			v2.SetConfigType("yaml")
			require.NoError(t, v2.ReadConfig(bytes.NewReader(data)))
			return v2.Unmarshal(v)
		},
		"koanf": func(data []byte, v any) error {
			k := koanf.New(".")
			require.NoError(t, k.Load(rawbytes.Provider(data), koanfyaml.Parser()))
			return k.Unmarshal("", v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s untagged
			require.NoError(t, unmarshal(file(t, "yaml"), &s), "silence")
			off(t, s)
			// With the tag, but without the option that refuses unknown keys.
			var misspelt Settings
			require.NoError(t, unmarshal([]byte("heartbeat-ulr: https://host/a"), &misspelt), "silence")
			require.False(t, misspelt.Heartbeat.Enabled())
		})
	}
	t.Run("strict, yaml.v3", func(t *testing.T) {
		decoder := yaml.NewDecoder(bytes.NewReader(file(t, "yaml")))
		decoder.KnownFields(true)
		require.ErrorContains(t, decoder.Decode(&untagged{}), "field heartbeat-url not found")
	})
	t.Run("strict, goccy", func(t *testing.T) {
		require.ErrorContains(t, goccy.UnmarshalWithOptions(file(t, "yaml"), &untagged{}, goccy.Strict()), `unknown field "heartbeat-`)
	})
	t.Run("json", func(t *testing.T) { // there is no tag that inlines
		var s untagged
		require.NoError(t, json.Unmarshal(file(t, "json"), &s), "silence")
		off(t, s)
		decoder := json.NewDecoder(bytes.NewReader(file(t, "json")))
		decoder.DisallowUnknownFields()
		require.ErrorContains(t, decoder.Decode(&s), `unknown field "heartbeat-url"`)
	})
	t.Run("toml", func(t *testing.T) {
		var s untagged
		meta, err := toml.Decode(string(file(t, "toml")), &s)
		require.NoError(t, err, "silence")
		off(t, s)
		require.Len(t, meta.Undecoded(), 6)
	})
	t.Run("env", func(t *testing.T) { // needs no option
		var s untagged
		require.NoError(t, env.ParseWithOptions(&s, env.Options{Environment: map[string]string{"HEARTBEAT_URL": "https://host/a"}}))
		require.True(t, s.Heartbeat.Enabled())
	})
}

// encoding/json takes nanoseconds, and a text is an error. Packages for YAML, and
// viper and koanf, take a text in JSON.
func TestJSONDuration(t *testing.T) {
	const text = `{"heartbeat-url": "https://host/a", "heartbeat-interval": "5m"}`
	_, err := loadJSON([]byte(text), "json")
	require.ErrorContains(t, err, "heartbeat-interval")
	for _, l := range loaders {
		if l.name == "json" || !slices.Contains(l.formats, "json") {
			continue
		}
		settings, err := l.load([]byte(text), "json")
		require.NoError(t, err, l.name)
		require.Equal(t, 5*time.Minute, settings.Heartbeat.Interval, l.name)
	}
}

// What follows the settings would be ignored; and where there is nothing, nothing is set.
func TestMore(t *testing.T) {
	for _, text := range []string{"db: a\n---\nheartbeat-url: https://example.com\n", `{"db": "a"} {"heartbeat-url": "https://example.com"}`} {
		_, err := loadYAML([]byte(text), "yaml")
		require.Error(t, err, text)
	}
	for _, rest := range []string{`{"heartbeat-url": "https://example.com"}`, "x"} {
		_, err := loadJSON([]byte(`{"db": "a"}`+rest), "json")
		require.ErrorIs(t, err, errMore)
	}
	for _, text := range []string{"", "# nothing\n"} {
		s, err := loadYAML([]byte(text), "yaml")
		require.NoError(t, err)
		require.Zero(t, s)
	}
}

// yaml.v3 drops list items with nothing behind the dash; goccy refuses the file.
func TestEmptyItem(t *testing.T) {
	const text = "heartbeat-urls:\n- \n"
	var s Settings
	require.NoError(t, yaml.Unmarshal([]byte(text), &s), "silence")
	require.Empty(t, s.Heartbeat.URLs)
	require.NoError(t, s.Heartbeat.Validate())
	_, err := loadYAML([]byte(text), "yaml")
	require.EqualError(t, err, "heartbeat-urls[0]: the list item is empty; write a URL, or leave it out")
	settings, err := loadGoccy([]byte(text), "yaml")
	if err == nil {
		err = settings.Heartbeat.Validate()
	}
	require.Error(t, err)
}

// The files have each key of a Config.
func TestEachKey(t *testing.T) {
	config := reflect.ValueOf(want.Heartbeat)
	for i := range config.NumField() {
		if key := config.Type().Field(i).Tag.Get("yaml"); key != "-" {
			require.False(t, config.Field(i).IsZero(), key)
		}
	}
}

// viper asks for the environment variable of a key only if it has been bound, or if
// the file has the key too.
func TestViperEnvironment(t *testing.T) {
	for name, value := range variables {
		t.Setenv(name, value)
	}
	settings, err := loadViper([]byte("db: /data/app.db"), "yaml")
	require.NoError(t, err)
	requireWant(t, settings)

	v := viper.New()
	v.SetConfigType("yaml")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	require.NoError(t, v.ReadConfig(strings.NewReader("heartbeat-interval: 1h")))
	var s Settings
	require.NoError(t, v.Unmarshal(&s), "silence")
	require.False(t, s.Heartbeat.Enabled())
}

// An empty variable counts as none; an empty item of a list is an error.
func TestEnvironment(t *testing.T) {
	settings, err := loadEnv(map[string]string{"HEARTBEAT_URL": "", "HEARTBEAT_URLS": "", "HEARTBEAT_INTERVAL": ""})
	require.NoError(t, err)
	require.NoError(t, settings.Heartbeat.Validate())
	require.False(t, settings.Heartbeat.Enabled())
	settings, err = loadEnv(map[string]string{"HEARTBEAT_URLS": "https://host/a,"})
	require.NoError(t, err)
	require.ErrorContains(t, settings.Heartbeat.Validate(), "heartbeat-urls[1]")
	_, err = loadEnv(map[string]string{"HEARTBEAT_INTERVAL": "300"})
	require.Error(t, err)
}

// A struct with a named Config prints and marshals as itself, without URLs; one
// with an embedded Config does not.
func TestNamedField(t *testing.T) {
	require.Contains(t, fmt.Sprint(want), "/data/app.db")
	text, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, `{"db": "/data/app.db"}`, string(text))
	embedded := struct {
		DB string
		heartbeat.Config
	}{want.DB, want.Heartbeat}
	require.NotContains(t, fmt.Sprint(embedded), "/data/app.db")
	text, err = json.Marshal(embedded)
	require.NoError(t, err)
	require.NotContains(t, string(text), "/data/app.db")
}

// README.md shows the Go of main.go and load.go.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	load, err := os.ReadFile("load.go")
	require.NoError(t, err)
	source = append(source, load...)
	blocks := strings.Split(string(readme), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		require.Contains(t, string(source), code)
	}
}

func TestRun(t *testing.T) {
	for _, name := range []string{"settings.yaml", "settings.toml", "settings.json"} {
		var out bytes.Buffer
		require.NoError(t, run([]string{name}, &out))
		require.True(t, strings.HasPrefix(out.String(), "heartbeats are on, one every 1h0m0s: heartbeat.Config{heartbeat-url, "), out.String())
		require.NotContains(t, out.String(), "your-")
	}
	empty := filepath.Join(t.TempDir(), "empty.yml")
	require.NoError(t, os.WriteFile(empty, []byte("db: x\n"), 0o600))
	var out bytes.Buffer
	require.NoError(t, run([]string{empty}, &out))
	require.Equal(t, "heartbeats are off: there is no URL to ping\n", out.String())

	out.Reset()
	require.ErrorIs(t, run([]string{"-h"}, &out), flag.ErrHelp)
	require.Contains(t, out.String(), "Usage: config [-with PACKAGE] FILE\n")
	require.Contains(t, out.String(), "env, json, yaml.v3, goccy, toml, viper, koanf")

	for want, args := range map[string][]string{
		"0 files were given":            {},
		"1 files were given":            {""},
		"2 files were given":            {"a.yaml", "b.yaml"},
		"no such file":                  {"missing.yaml"},
		`-with "x" is unknown`:          {"-with", "x", "settings.yaml"},
		`extension "yaml" is unknown`:   {"-with", "toml", "settings.yaml"},
		`extension "go" is unknown`:     {"main.go"},
		`reads no file, and "x" was`:    {"-with", "env", "x"},
		"flag provided but not defined": {"-x"},
		"flag needs an argument: -with": {"-with"},
	} {
		require.ErrorContains(t, run(args, &out), want)
	}
}
