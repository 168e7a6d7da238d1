package compat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every name that the two packages export is used in contract_test.go: a new one
// has to be written down there before it is promised.
func TestEveryExportedNameIsWrittenDown(t *testing.T) {
	used := usedNames(parseFile(t, "contract_test.go"))
	for _, dir := range []string{"../..", "../../heartbeattest"} {
		names := exportedNames(t, dir)
		require.Greater(t, len(names), 10, dir)
		for _, name := range names {
			assert.True(t, used[name], "%s is not in contract_test.go", name)
		}
	}
}

// usedNames returns what file names of other packages: package.Name,
// package.Type.Method, and package.Type.Field of a composite literal.
func usedNames(file *ast.File) map[string]bool {
	used := make(map[string]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			used[qualified(n)] = true
		case *ast.CompositeLit:
			for _, element := range n.Elts {
				if pair, ok := element.(*ast.KeyValueExpr); ok {
					used[qualified(n.Type)+"."+qualified(pair.Key)] = true
				}
			}
		}
		return true
	})
	return used
}

// qualified returns the dotted name that an expression is, without its
// parentheses and stars.
func qualified(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.ParenExpr:
		return qualified(e.X)
	case *ast.StarExpr:
		return qualified(e.X)
	case *ast.SelectorExpr:
		return qualified(e.X) + "." + e.Sel.Name
	}
	return ""
}

// exportedNames returns what the package in dir exports, in the form of
// usedNames. Methods of interfaces are left out: contract_test.go assigns each
// interface both ways.
func exportedNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := fs.Glob(os.DirFS(dir), "*.go")
	require.NoError(t, err)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file := parseFile(t, filepath.Join(dir, path))
		for _, decl := range file.Decls {
			for _, name := range declaredNames(decl) {
				names = append(names, file.Name.Name+"."+name)
			}
		}
	}
	return names
}

func declaredNames(decl ast.Decl) (names []string) {
	add := func(of string, idents ...*ast.Ident) {
		for _, id := range idents {
			if id.IsExported() {
				names = append(names, of+id.Name)
			}
		}
	}
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil {
			add("", decl.Name)
		} else if of := qualified(decl.Recv.List[0].Type); ast.IsExported(of) {
			add(of+".", decl.Name)
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				add("", spec.Names...)
			case *ast.TypeSpec:
				add("", spec.Name)
				if of, ok := spec.Type.(*ast.StructType); ok && spec.Name.IsExported() {
					for _, field := range of.Fields.List {
						add(spec.Name.Name+".", field.Names...)
					}
				}
			}
		}
	}
	return names
}

func parseFile(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
	require.NoError(t, err)
	return file
}
