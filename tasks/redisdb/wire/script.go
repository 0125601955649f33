package wire

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var ours embed.FS

// Scripts makes scripts of the Lua files of a package, which are in its folder lua. A line
//
//	-- needs: a, b
//
// in a file puts lua/lib/a.lua and lua/lib/b.lua in front of it: of the package, or else of
// this one.
type Scripts struct {
	files     fs.FS
	constants string
}

// NewScripts makes Scripts of files. The constants are names that every script knows as
// strings: what the program and its scripts have in common is said once.
func NewScripts(files fs.FS, constants map[string]string) Scripts {
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(constants)) {
		fmt.Fprintf(&lines, "local %s = %q\n", name, constants[name])
	}
	return Scripts{files, lines.String()}
}

// Script makes a script of lua/name.lua. It panics if that, or what it needs, is not there.
func (s Scripts) Script(name string) *redis.Script {
	text, needed := s.read(name)
	return redis.NewScript(needed + text)
}

// Many is a script that runs another one on many items at once, for Each.
type Many struct{ script *redis.Script }

// Hash is what Redis knows the script by.
func (m Many) Hash() string { return m.script.Hash() }

// Many makes a script that runs lua/name.lua on many items at once: they share the call, its
// answer, and the functions of what it needs, which are made anew for each call. It panics
// like Script.
func (s Scripts) Many(name string) Many {
	text, needed := s.read(name)
	run, err := ours.ReadFile("lua/many.lua")
	if err != nil {
		panic(err)
	}
	return Many{redis.NewScript("local all_keys, all_args = KEYS, ARGV\nlocal KEYS, ARGV\n" +
		needed + "local function one()\n" + text + "end\n" + string(run))}
}

var needs = regexp.MustCompile(`(?m)^-- needs: (.+)$`)

// read returns a script, and what goes in front of it.
func (s Scripts) read(name string) (text, needed string) {
	script, err := fs.ReadFile(s.files, "lua/"+name+".lua")
	if err != nil {
		panic(err)
	}
	needed = s.constants
	if line := needs.FindSubmatch(script); line != nil {
		for lib := range strings.SplitSeq(string(line[1]), ", ") {
			needed += s.lib(lib)
		}
	}
	return string(script), needed
}

func (s Scripts) lib(name string) string {
	path := "lua/lib/" + name + ".lua"
	lib, err := fs.ReadFile(s.files, path)
	if err != nil {
		lib, err = ours.ReadFile(path)
	}
	if err != nil {
		panic(err)
	}
	return string(lib)
}
