package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/caarlos0/env/v11"
	"github.com/go-heartbeat/heartbeat"
	goccy "github.com/goccy/go-yaml"
	koanfyaml "github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	"github.com/mitchellh/mapstructure"
	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

// A loader reads settings with one package. Each refuses a key that is not known:
// a misspelt heartbeat-url would leave heartbeats off, and nobody would be told.
type loader struct {
	name    string
	formats []string
	load    func(data []byte, format string) (Settings, error)
}

// The first that has a format is the default for it. JSON is YAML too, and packages
// for YAML take a duration such as "1h" there, which encoding/json does not.
var loaders = []loader{
	{"json", []string{"json"}, loadJSON},
	{"yaml.v3", []string{"yaml", "json"}, loadYAML},
	{"goccy", []string{"yaml", "json"}, loadGoccy},
	{"toml", []string{"toml"}, loadTOML},
	{"viper", []string{"yaml", "json", "toml"}, loadViper},
	{"koanf", []string{"yaml", "json"}, loadKoanf},
}

func names() []string {
	names := []string{"env"}
	for _, l := range loaders {
		names = append(names, l.name)
	}
	return names
}

// errMore is returned by what reads a stream, in which the rest would be ignored.
var errMore = errors.New("something follows the settings; write one document")

// loadYAML needs `yaml:",inline"` at the field.
func loadYAML(data []byte, _ string) (s Settings, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil && !errors.Is(err, io.EOF) { // an empty file sets nothing
		return Settings{}, err
	}
	if !errors.Is(decoder.Decode(new(any)), io.EOF) {
		return Settings{}, errMore
	}
	return s, emptyItems(data)
}

// emptyItems finds list items with nothing behind the dash: of a []string yaml.v3
// drops these without an error, and of a []*string it does not.
func emptyItems(data []byte) error {
	var list struct {
		URLs []*string `yaml:"heartbeat-urls"`
	}
	if err := yaml.Unmarshal(data, &list); err != nil {
		return err
	}
	for i, url := range list.URLs {
		if url == nil {
			return fmt.Errorf("heartbeat-urls[%d]: the list item is empty; write a URL, or leave it out", i)
		}
	}
	return nil
}

// loadGoccy needs `yaml:",inline"` at the field. Below the first line of an error the
// package quotes the file, and so ping URLs, which are credentials: that is left out.
func loadGoccy(data []byte, _ string) (s Settings, err error) {
	if err := goccy.UnmarshalWithOptions(data, &s, goccy.Strict()); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return s, errors.New(first)
	}
	return s, nil
}

// flat is how packages without an inline option are given Settings: they take the
// keys of an embedded struct for the outer one's. The pointers lead into Settings,
// and the methods that flat inherits do no harm, since it is only decoded into.
type flat struct {
	*Settings
	*heartbeat.Config
}

// loadJSON needs durations in nanoseconds: encoding/json refuses "5m".
func loadJSON(data []byte, _ string) (s Settings, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&flat{&s, &s.Heartbeat}); err != nil {
		return Settings{}, err
	}
	if !errors.Is(decoder.Decode(new(any)), io.EOF) {
		return Settings{}, errMore
	}
	return s, nil
}

func loadTOML(data []byte, _ string) (s Settings, err error) {
	meta, err := toml.Decode(string(data), &flat{&s, &s.Heartbeat})
	if err == nil && len(meta.Undecoded()) > 0 {
		err = fmt.Errorf("unknown keys: %v", meta.Undecoded())
	}
	return s, err
}

// loadViper needs `mapstructure:",squash"` at the field. It binds each key to its
// environment variable: AutomaticEnv alone finds only those of keys in the file.
func loadViper(data []byte, format string) (s Settings, err error) {
	v := viper.New()
	v.SetConfigType(format)
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	for _, key := range []string{
		"heartbeat-url", "heartbeat-urls", "heartbeat-interval", "heartbeat-max-sync-age", "heartbeat-fail-url", "heartbeat-fail-body",
	} {
		if err := v.BindEnv(key); err != nil {
			return s, err
		}
	}
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return s, err
	}
	return s, v.UnmarshalExact(&s)
}

// loadKoanf needs `koanf:",squash"` at the field.
func loadKoanf(data []byte, _ string) (s Settings, err error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(data), koanfyaml.Parser()); err != nil {
		return s, err
	}
	return s, k.UnmarshalWithConf("", &s, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result:           &s,
		ErrorUnused:      true,
		WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(",")),
	}})
}

// loadEnv needs nothing: the package looks into structs by itself. A list has
// commas between its items, and an empty variable counts as none.
func loadEnv(environment map[string]string) (s Settings, err error) {
	return s, env.ParseWithOptions(&s, env.Options{Environment: environment})
}

func environment() map[string]string {
	values := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	return values
}
