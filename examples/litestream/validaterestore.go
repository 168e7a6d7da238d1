package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// validateRestoreChecks returns what is wrong with the keys of the restore checks.
func (c *config) validateRestoreChecks(places []place) error {
	heartbeats := map[int]bool{}
	for _, b := range c.beats() {
		for _, i := range b.databases {
			heartbeats[i] = true
		}
	}
	any := false
	for i, db := range c.DBs {
		check := c.restoreCheck(i)
		switch {
		case db.Restore.on() && !heartbeats[i]:
			return fmt.Errorf("dbs[%d].restore-check: no heartbeat stands for this database, so nobody would be told; set heartbeat-url", i)
		case db.Restore.Query != "" && !check.on():
			return fmt.Errorf("dbs[%d].restore-check-query: set without restore-check", i)
		}
		if check.on() && heartbeats[i] {
			any = true
			if err := checkQuery(check.Query); err != nil {
				key := "restore-check-query"
				if db.Restore.Query != "" {
					key = fmt.Sprintf("dbs[%d].%s", i, key)
				}
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	switch {
	case any:
		return c.checkRestoreDir(places)
	case c.Restore.on():
		return errors.New("restore-check: no heartbeat stands for any database, so nobody would be told; set heartbeat-url")
	case c.Restore.Query != "":
		return errors.New("restore-check-query: set without restore-check")
	case c.RestoreDir != "":
		return errors.New("restore-check-dir: set without restore-check")
	}
	return nil
}

// checkQuery returns an error for what is no SQL. What the tables are, only a
// restored copy can tell.
func checkQuery(query string) error {
	if query == "" {
		return nil
	}
	if !oneStatement(query) { // which is asked before any of them is run
		return errors.New("more than one SQL statement; write one")
	}
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), "EXPLAIN "+query)
	if err == nil {
		return errors.Join(rows.Close(), asks(query))
	}
	for _, text := range []string{"syntax error", "incomplete input", "unrecognized token"} {
		if strings.Contains(err.Error(), text) {
			return errors.New("not an SQL statement such as SELECT count(*) > 0 FROM users")
		}
	}
	return asks(query)
}

// asks returns an error for a statement that has no value to look at. It would fail
// at the first check, up to a day later, and VACUUM INTO or ATTACH would make files.
func asks(query string) error {
	word := ""
	for query != "" {
		token, blank := sqlToken(query)
		if blank && word != "" || !blank && !isLetter(token) {
			break
		} else if !blank {
			word += token
		}
		query = query[len(token):]
	}
	switch strings.ToUpper(word) {
	case "SELECT", "WITH", "VALUES", "PRAGMA":
		return nil
	}
	return errors.New("not a statement that returns a value; begin it with SELECT, WITH, VALUES or PRAGMA")
}

func isLetter(token string) bool {
	return len(token) == 1 && ('a' <= token[0]|0x20 && token[0]|0x20 <= 'z')
}

// oneStatement reports whether nothing but space and comments follows the first
// semicolon of a query that is in neither a quoted text nor a comment.
func oneStatement(query string) bool {
	ended := false
	for query != "" {
		token, blank := sqlToken(query)
		switch {
		case token == ";":
			ended = true
		case ended && !blank:
			return false
		}
		query = query[len(token):]
	}
	return true
}

// sqlToken returns what a query begins with: a quoted text or name, a comment, or
// else one byte; and whether that is space or a comment.
func sqlToken(query string) (token string, blank bool) {
	through := func(begin, end string) string {
		if at := strings.Index(query[len(begin):], end); at >= 0 {
			return query[:len(begin)+at+len(end)]
		}
		return query
	}
	switch {
	case strings.HasPrefix(query, "--"):
		return through("--", "\n"), true
	case strings.HasPrefix(query, "/*"):
		return through("/*", "*/"), true
	case strings.Contains("'\"`", query[:1]):
		return through(query[:1], query[:1]), false
	case query[0] == '[':
		return through("[", "]"), false
	}
	return query[:1], strings.Contains(" \t\r\n\f", query[:1])
}

// checkRestoreDir returns what is wrong with the folder for restored copies.
func (c *config) checkRestoreDir(places []place) error {
	if c.RestoreDir == "" {
		return nil
	}
	if isHome(c.RestoreDir) {
		return errors.New("restore-check-dir: ~ is not expanded; write the whole path, or $HOME")
	}
	if info, err := os.Stat(c.RestoreDir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("restore-check-dir: %s does not exist", c.RestoreDir)
	} else if err == nil && !info.IsDir() {
		return fmt.Errorf("restore-check-dir: %s is not a folder", c.RestoreDir)
	}
	dir, err := canonical(c.RestoreDir)
	if err != nil {
		return fmt.Errorf("restore-check-dir: %w", err)
	}
	for i, p := range places {
		if p.isFile() && sameOrWithin(filepath.ToSlash(dir), p.replica) || sameOrWithin(dir, p.own) {
			return fmt.Errorf("restore-check-dir: lies within what belongs to dbs[%d] alone", i)
		}
	}
	return nil
}
