package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	neturl "net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/benbjohnson/litestream"
	"github.com/go-heartbeat/heartbeat"
)

// validate returns the first thing that is wrong with the configuration.
func (c *config) validate() error {
	if len(c.DBs) == 0 {
		return errors.New("dbs: no databases; list at least one")
	}
	var places []place
	for i := range c.DBs {
		p, err := c.DBs[i].place()
		if err != nil {
			return fmt.Errorf("dbs[%d].%w", i, err)
		}
		places = append(places, p)
	}
	for i := range places {
		if err := checkPlaces(c.DBs, places, i); err != nil {
			return fmt.Errorf("dbs[%d].%w", i, err)
		}
	}
	if err := c.validateHeartbeats(); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Addr); c.Addr != "" && err != nil {
		return errors.New("addr: not an address such as localhost:9090 or :9090")
	}
	return c.validateRestoreChecks(places)
}

func (c *config) validateHeartbeats() error {
	if err := beneath("", c.Validate()); err != nil {
		return err
	}
	for i := range c.DBs {
		db, key := &c.DBs[i], fmt.Sprintf("dbs[%d].", i)
		if err := beneath(key, db.Validate()); err != nil {
			return err
		}
		switch {
		case db.Interval != 0 && !db.Enabled():
			return fmt.Errorf("%sheartbeat-interval: set without heartbeat-url", key)
		case db.MaxSyncAge != 0 && !db.Enabled():
			return fmt.Errorf("%sheartbeat-max-sync-age: set without heartbeat-url", key)
		case db.Global != nil && *db.Global && !c.Enabled():
			return fmt.Errorf("%sheartbeat-global: there is no global heartbeat-url", key)
		}
	}
	return c.validateURLs()
}

// validateURLs sees to it that each heartbeat is on for something, and has URLs
// that no other has.
func (c *config) validateURLs() error {
	seen := map[string]string{}
	for _, b := range c.beats() {
		if len(b.databases) == 0 {
			return errors.New("heartbeat-url: no database counts for it, so it would never be pinged; write heartbeat-global: true beneath one, or leave it out")
		}
		keys := map[string]string{b.URL: "heartbeat-url", b.FailURL: "heartbeat-fail-url"}
		for i, url := range b.URLs {
			keys[url] = fmt.Sprintf("heartbeat-urls[%d]", i)
		}
		for _, url := range slices.Sorted(maps.Keys(keys)) {
			key := b.key + keys[url]
			if first, ok := seen[url]; ok && url != "" {
				return fmt.Errorf("%s: the same URL as %s; each heartbeat needs a check of its own", key, first)
			}
			seen[url] = key
		}
	}
	return nil
}

// beneath returns the first thing that the library found wrong, with a prefix to
// its key.
func beneath(prefix string, err error) error {
	if ce, ok := errors.AsType[*heartbeat.ConfigError](err); ok {
		return fmt.Errorf("%s%s: %w", prefix, ce.Key, ce.Err)
	}
	return err
}

// A place is where a database is, and where its replica is, with all symbolic
// links followed: two of them for one thing must not pass for two things.
type place struct {
	database string
	own      string // Litestream's own folder beside the database
	store    string // the replica's scheme, host and query
	replica  string // its path there
}

// isFile reports whether the replica is a folder of this machine.
func (p place) isFile() bool { return strings.HasPrefix(p.store, "file:") }

// place returns where a database and its replica are, or what is wrong with either
// alone. The key that an error begins with is beneath dbs[…].
func (c *dbConfig) place() (place, error) {
	database, err := databasePlace(c.Path)
	if err != nil {
		return place{}, fmt.Errorf("path: %w", err)
	}
	own, err := canonical(litestream.NewDB(c.Path).MetaPath())
	if err != nil {
		return place{}, fmt.Errorf("path: %w", err)
	}
	if c.Replica.URL == "" {
		return place{}, fmt.Errorf("replica.url: not set for %s", c.Path)
	}
	store, replica, err := replicaPlace(c.Replica.URL)
	if err != nil {
		return place{}, fmt.Errorf("replica.url: %w", err)
	}
	return place{database, own, store, replica}, nil
}

func databasePlace(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("not set")
	case isHome(path):
		return "", errors.New("~ is not expanded; write the whole path, or $HOME")
	case litestream.IsURL(path):
		return "", errors.New("not a path but a URL")
	}
	if err := checkSQLite(path); err != nil {
		return "", err
	}
	return canonical(path)
}

func replicaPlace(url string) (store, dir string, err error) {
	if _, err := replicaClient(url); err != nil {
		return "", "", err
	}
	scheme, host, dir, query, _, err := litestream.ParseReplicaURLWithQuery(url)
	if err != nil {
		return "", "", errors.New("not a valid URL")
	}
	store = scheme + "://" + host + "?" + query.Encode()
	if (scheme == "file" || scheme == "sftp") && isHome(strings.TrimPrefix(dir, "/")) {
		return "", "", errors.New("~ is not expanded; write the whole path")
	}
	// Litestream takes a host for the path's first folder.
	if u, err := neturl.Parse(url); scheme == "file" && err == nil && u.Host != "" {
		return "", "", fmt.Errorf("%s is taken for a host, which a file URL has not; write three slashes before the whole path, as in file:///backup/app", u.Host)
	}
	if scheme != "file" {
		return store, path.Clean("/" + dir), nil
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return "", "", fmt.Errorf("%s is a file; a replica is a folder", dir)
	}
	dir, err = canonical(dir)
	return store, filepath.ToSlash(dir), err
}

// checkPlaces returns what is wrong with the i-th database and its replica beside
// those before it.
func checkPlaces(dbs []dbConfig, places []place, i int) error {
	p := places[i]
	for j, other := range places {
		if own := filepath.ToSlash(other.own); p.isFile() && sameOrWithin(p.replica, own) {
			// It would be compared with itself.
			return fmt.Errorf("replica.url: lies within Litestream's own folder beside %s; write one elsewhere, best on another disk", dbs[j].Path)
		} else if p.isFile() && (within(own, p.replica) || within(filepath.ToSlash(other.database), p.replica)) {
			return fmt.Errorf("replica.url: %s lies within it; write a folder that the replica has for itself", dbs[j].Path)
		}
	}
	for j, other := range places[:i] {
		switch {
		case other.database == p.database:
			return fmt.Errorf("path: %s is given twice", dbs[i].Path)
		case other.store != p.store:
		case other.replica == p.replica: // they would destroy each other
			return errors.New("replica.url: the same as another database's")
		case within(p.replica, other.replica):
			return fmt.Errorf("replica.url: lies within the replica of dbs[%d]", j)
		case within(other.replica, p.replica):
			return fmt.Errorf("replica.url: the replica of dbs[%d] lies within it", j)
		}
	}
	return nil
}

func within(inner, outer string) bool {
	return strings.HasPrefix(inner, strings.TrimSuffix(outer, "/")+"/")
}

func sameOrWithin(inner, outer string) bool { return inner == outer || within(inner, outer) }

func isHome(path string) bool { return path == "~" || strings.HasPrefix(path, "~/") }

// canonical returns a path with all symbolic links followed; it need not exist.
func canonical(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for p := path; ; p = filepath.Dir(p) {
		if followed, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(followed, rest), nil
		}
		if p == filepath.Dir(p) {
			return path, nil
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

// checkSQLite returns an error if there is a file that is no database. One that is
// missing or empty may yet become one.
func checkSQLite(path string) error {
	if info, err := os.Stat(path); err != nil {
		return nil // Litestream will say why it cannot be opened
	} else if info.IsDir() {
		return fmt.Errorf("%s is a folder, not a database", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // as above
	}
	defer f.Close()
	magic := []byte("SQLite format 3\x00")
	begin := make([]byte, len(magic))
	if n, err := io.ReadFull(f, begin); n > 0 && (err != nil || !bytes.Equal(begin, magic)) {
		return fmt.Errorf("%s is not an SQLite database", path)
	}
	return nil
}
