package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const wantOutput = `level=WARN msg="heartbeat skipped" reason="database not synced" db=/data/app.db
level=INFO msg="heartbeat sent" url=http://SERVICE
level=DEBUG msg="heartbeat skipped" reason="rate limited" url=http://SERVICE
level=WARN msg="heartbeat skipped" reason="no databases"
level=WARN msg="heartbeat skipped" reason="database not synced" db=/data/app.db
level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2026-03-01T11:58:59.999Z
level=WARN msg="heartbeat skipped" reason="last sync in the future" db=/data/app.db last_sync=2026-03-01T12:01:00.000Z
level=INFO msg="heartbeat sent"
level=DEBUG msg="heartbeat skipped" reason="rate limited"
level=ERROR msg="sync reporter panicked" db=/data/broken.db panic=closed
level=WARN msg="heartbeat skipped" reason="sync reporter panicked" db=/data/broken.db
level=ERROR msg="heartbeat failed" url=http://SERVICE/busy error="heartbeat: server answered 429 Too Many Requests, retry after 2m0s"
level=ERROR msg="heartbeat failed" url=http://SERVICE/unknown error="heartbeat: ping not accepted: server answered \"OK (not found)\"" hint="will not mend itself: check the ping URL, and the check it names at the service"
level=INFO msg="heartbeat sent"
level=INFO msg="heartbeat sent"
level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2026-03-01T12:00:00.000Z
level=INFO msg="heartbeat failure signal sent"
level=WARN msg="heartbeat skipped" reason="last sync too old" db=/data/app.db last_sync=2026-03-01T12:00:00.000Z
level=INFO msg="heartbeat sent"
level=ERROR msg="heartbeat failed" error=unreachable
level=INFO msg="heartbeat sent"
level=DEBUG msg="two targets" result.outcome=failed result.databases=1 result.error="target 2: down"
level=DEBUG msg=configured result.outcome=skipped result.databases=1 result.reason="last sync too old" result.unhealthy=1
6 pings arrived, 0 checks failed
`

// The log lines are part of the contract too.
func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out); err != nil {
		t.Error(err)
	}
	got := regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(out.String(), "SERVICE")
	if got != wantOutput {
		t.Errorf("got:\n%s\nwant:\n%s", got, wantOutput)
	}
}

// The test binary becomes the program when TestProgram starts it again.
func TestMain(m *testing.M) {
	if os.Getenv("CONTRACT_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), self)
	program.Env = append(os.Environ(), "CONTRACT_MAIN=1")
	out, err := program.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "\n6 pings arrived, 0 checks failed\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// This program uses every name that the two packages export, so that none can
// change or go without it noticing, nor come without its being written down here.
func TestUsesEveryExportedName(t *testing.T) {
	used := make(map[string]bool)
	for _, file := range parse(t, ".") {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				used[n.Sel.Name] = true
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok {
					used[key.Name] = true
				}
			}
			return true
		})
	}
	for _, dir := range []string{"../..", "../../heartbeattest"} {
		names := 0
		for _, file := range parse(t, dir) {
			for _, name := range exported(file) {
				names++
				if last := name[strings.LastIndexByte(name, '.')+1:]; !used[last] {
					t.Errorf("%s: %s is not used here", dir, name)
				}
			}
		}
		if names < 10 {
			t.Errorf("%s: found only %d exported names", dir, names)
		}
	}
}

// parse returns the files of dir that are not tests.
func parse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// exported returns the exported names that file declares: of the package, and of
// the methods and fields of its exported types.
func exported(file *ast.File) (names []string) {
	add := func(of string, idents ...*ast.Ident) {
		for _, id := range idents {
			if id.IsExported() {
				names = append(names, of+id.Name)
			}
		}
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				add("", decl.Name)
				continue
			}
			of := decl.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			if id, ok := of.(*ast.Ident); ok && id.IsExported() {
				add(id.Name+".", decl.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					add("", spec.Names...)
				case *ast.TypeSpec:
					add("", spec.Name)
					if !spec.Name.IsExported() {
						continue
					}
					ast.Inspect(spec.Type, func(n ast.Node) bool {
						if f, ok := n.(*ast.Field); ok {
							add(spec.Name.Name+".", f.Names...)
						}
						return true
					})
				}
			}
		}
	}
	return names
}
