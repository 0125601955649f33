package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTheEmbeddedRedisIsForDevAlone: miniredis and its Lua are in the binary because dev is.
// No other command has a way to them.
func TestTheEmbeddedRedisIsForDevAlone(t *testing.T) {
	files := parse(t, "../..")
	var starters []string // functions that use it
	for path, file := range files {
		if !imports(file, "github.com/alicebob/miniredis", "github.com/yuin/gopher-lua") {
			continue
		}
		if !ofDev(path) {
			t.Errorf("%s imports the embedded Redis: only dev may", path)
		}
		for _, d := range file.Decls {
			if f, is := d.(*ast.FuncDecl); is && names(f, "miniredis") {
				starters = append(starters, f.Name.Name)
			}
		}
	}
	if len(starters) == 0 {
		t.Fatal("nothing starts the embedded Redis")
	}
	for path, file := range files {
		if filepath.Dir(path) == devDir && !ofDev(path) && names(file, starters...) {
			t.Errorf("%s uses one of %v, which start the embedded Redis: only dev may", path, starters)
		}
	}
}

// devDir is where the command dev is.
const devDir = "../../cmd/batchreset/serve"

// ofDev reports whether a file is one of the command dev.
func ofDev(path string) bool {
	return filepath.Dir(path) == devDir && strings.HasPrefix(filepath.Base(path), "dev")
}

// parse reads the Go files below a folder that are not tests.
func parse(t *testing.T, root string) map[string]*ast.File {
	t.Helper()
	set, files := token.NewFileSet(), map[string]*ast.File{}
	if err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && len(entry.Name()) > 2 && entry.Name()[0] == '.':
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files[path], err = parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

func imports(file *ast.File, modules ...string) bool {
	return slices.ContainsFunc(file.Imports, func(spec *ast.ImportSpec) bool {
		path, _ := strconv.Unquote(spec.Path.Value)
		return slices.ContainsFunc(modules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
	})
}

// names reports whether a part of a program mentions one of the names.
func names(node ast.Node, wanted ...string) (found bool) {
	ast.Inspect(node, func(n ast.Node) bool {
		id, is := n.(*ast.Ident)
		found = found || is && slices.Contains(wanted, id.Name)
		return !found
	})
	return found
}
