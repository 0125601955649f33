package terminal

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"batchreset/tasks"
)

const (
	// ConfigFlag names a file with settings.
	ConfigFlag = "config"

	takesAll = "all flags are settings"  // a command that has it, on which the file may set all flags, and which has a part of it
	asksFor  = "its argument has a part" // a command that has it, and takes the part of the command that its argument names
	setting  = "a setting"               // a flag that has it, which the file sets on whatever command
)

// TakeConfig has the flags of a command be the settings of a file: those at its beginning, and in a part of its own by the
// name of the command.
func TakeConfig(cmd *cobra.Command) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[takesAll] = "yes"
}

// TakePart has a command take the part of the file that is for the one its first argument names.
func TakePart(cmd *cobra.Command) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[asksFor] = "yes"
}

// Settings marks flags that mean the same on all commands that have them, so that a file of settings sets them on each.
func Settings(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := flags.SetAnnotation(name, setting, []string{}); err != nil {
			panic(err) // only for a flag that is not there
		}
	}
}

// defineConfig gives --config to the commands that a file can tell something.
func defineConfig(cmd *cobra.Command) {
	takes := cmd.Annotations[takesAll] != ""
	cmd.Flags().VisitAll(func(f *pflag.Flag) { takes = takes || f.Annotations[setting] != nil })
	if takes && cmd.Runnable() {
		cmd.Flags().String(ConfigFlag, "", "YAML `file` with settings: a line NAME: VALUE for a flag --NAME, for all processes or in a part 'api:', 'worker:' or 'dev:'; the command line and the environment win; see 'batchreset config'")
	}
	for _, sub := range cmd.Commands() {
		defineConfig(sub)
	}
}

// configFile is what a file of settings says.
type configFile struct {
	path   string
	shared map[string]fileSetting
	parts  map[string]map[string]fileSetting // by the name of the command
}

type fileSetting struct {
	values []string
	list   bool
	line   int
}

// readConfig reads a file and refuses what is no setting of a command below root. Its errors name the line.
func readConfig(path string, root *cobra.Command) (c configFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("--%s: %w", ConfigFlag, err)
	}
	c = configFile{path: path, shared: map[string]fileSetting{}, parts: map[string]map[string]fileSetting{}}
	var document, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return c, nil // nothing but comments
	case err != nil:
		fault := strings.TrimPrefix(err.Error(), "yaml: ")
		if !strings.HasPrefix(fault, "line ") { // the library leaves out the first one
			fault = "line 1: " + fault
		}
		return c, fmt.Errorf("%s, %s", path, fault)
	}
	if !errors.Is(d.Decode(&more), io.EOF) {
		return c, fmt.Errorf("%s: there is more than one document in it", path)
	}
	top := document.Content[0]
	if top.Tag == "!!null" {
		return c, nil
	}
	known, all := settingsOf(root), []string{}
	for name, flags := range known {
		all = append(all, name)
		c.parts[name] = map[string]fileSetting{}
		for flag := range flags {
			all = append(all, flag)
		}
	}
	slices.Sort(all)
	return c, c.entries(top, func(key, value *yaml.Node) error {
		if flags := known[key.Value]; flags != nil {
			return c.part(key.Value, flags, value)
		}
		if !slices.Contains(all, key.Value) {
			return c.fault(key, "unknown setting %.80q%s", key.Value, tasks.DidYouMean(key.Value, slices.Compact(all)))
		}
		return c.put(c.shared, key, value)
	})
}

// part reads the part of a command.
func (c *configFile) part(command string, flags map[string]bool, value *yaml.Node) error {
	names := []string{}
	for flag := range flags {
		names = append(names, flag)
	}
	slices.Sort(names)
	if value.Tag == "!!null" {
		return nil
	}
	return c.entries(value, func(key, value *yaml.Node) error {
		if !flags[key.Value] {
			return c.fault(key, "unknown setting %.80q of %s%s", key.Value, command, tasks.DidYouMean(key.Value, names))
		}
		return c.put(c.parts[command], key, value)
	})
}

// settingsOf are the flags of each command that has a part of the file.
func settingsOf(root *cobra.Command) map[string]map[string]bool {
	known := map[string]map[string]bool{}
	for _, cmd := range root.Commands() {
		if cmd.Annotations[takesAll] == "" {
			continue
		}
		known[cmd.Name()] = map[string]bool{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != ConfigFlag && f.Name != "help" {
				known[cmd.Name()][f.Name] = true
			}
		})
	}
	return known
}

// entries calls do for each key of what must be keys and values.
func (c *configFile) entries(of *yaml.Node, do func(key, value *yaml.Node) error) error {
	if of.Kind != yaml.MappingNode {
		return c.fault(of, "there must be lines NAME: VALUE")
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(of.Content); i += 2 {
		key, value := of.Content[i], of.Content[i+1]
		if before, twice := seen[key.Value]; twice {
			return c.fault(key, "%.80s is there twice, on line %d, too", key.Value, before)
		}
		seen[key.Value] = key.Line
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if err := do(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *configFile) fault(at *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s, line %d: %s", c.path, at.Line, fmt.Sprintf(format, args...))
}

// otherBase is what YAML 1.1, YAML 1.2 and Go read as different numbers: 010 is eight or ten.
var otherBase = regexp.MustCompile(`^[-+]?0([0-9_]+|[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)$`)

// put keeps a value. It is not quoted in errors: it may be a secret in the wrong place.
func (c *configFile) put(into map[string]fileSetting, key, value *yaml.Node) error {
	s := fileSetting{line: key.Line}
	switch {
	case value.Tag == "!!null":
		return c.fault(key, "%s has no value", key.Value)
	case otherBase.MatchString(value.Value) && value.Style == 0:
		return c.fault(key, "%s must be a decimal number, or a text in quotes", key.Value)
	case value.Kind == yaml.ScalarNode:
		s.values = []string{value.Value}
	case value.Kind == yaml.SequenceNode:
		s.list = true
		for _, each := range value.Content {
			if each.Kind != yaml.ScalarNode || each.Tag == "!!null" {
				return c.fault(each, "%s must be a list of values", key.Value)
			}
			s.values = append(s.values, each.Value)
		}
	default:
		return c.fault(key, "%s must be a value or a list", key.Value)
	}
	into[key.Value] = s
	return nil
}

// layer has what the file says of the flags of a command with args: its part before what is for all.
func (c configFile) layer(cmd *cobra.Command, args []string) layer {
	all, part := cmd.Annotations[takesAll] != "", map[string]fileSetting{}
	switch {
	case all:
		part = c.parts[cmd.Name()]
	case cmd.Annotations[asksFor] != "" && len(args) > 0:
		part = c.parts[args[0]]
	}
	return layer{FromFile, func(f *pflag.Flag) (value, where string, err error) {
		s, found := part[f.Name]
		if !found && (all || f.Annotations[setting] != nil) {
			s, found = c.shared[f.Name]
		}
		if !found {
			return "", "", nil
		}
		where = fmt.Sprintf("%s, line %d: %s", c.path, s.line, f.Name)
		if !s.list {
			return s.values[0], where, nil
		}
		if !strings.HasSuffix(f.Value.Type(), "Slice") { // some of which are no pflag.SliceValue
			return "", where, errors.New("takes one value, not a list")
		}
		var line strings.Builder // as the command line has it
		w := csv.NewWriter(&line)
		if err := w.Write(s.values); err != nil {
			return "", where, err
		}
		w.Flush()
		return strings.TrimSuffix(line.String(), "\n"), where, nil
	}}
}

// PartsOf are the commands that have a part with something in it in a file of settings.
func PartsOf(path string, root *cobra.Command) (names []string, err error) {
	c, err := readConfig(path, root)
	for name, part := range c.parts {
		if len(part) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}
