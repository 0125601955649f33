package terminal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/tasks"
)

const environmentPrefix = "BATCHRESET_"

// ParseEnvironment is the environment of a process, by the names of the variables.
func ParseEnvironment(environ []string) map[string]string {
	variables := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		variables[name] = value
	}
	return variables
}

// EnvironmentVariable is the name of the variable that sets a flag.
func EnvironmentVariable(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// checkEnvironment refuses variables that were meant to be one of a flag of some command.
// Others are not ours: Kubernetes makes some for a service that is called batchreset.
func checkEnvironment(root *cobra.Command, variables map[string]string) error {
	known := map[string]bool{"BINARY": true} // people's own, and near to CANARY
	var collect func(*cobra.Command)
	collect = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known[strings.TrimPrefix(EnvironmentVariable(f.Name), environmentPrefix)] = true })
		for _, sub := range cmd.Commands() {
			collect(sub)
		}
	}
	collect(root)
	for _, variable := range slices.Sorted(maps.Keys(variables)) {
		name, ours := strings.CutPrefix(variable, environmentPrefix)
		if !ours || known[name] {
			continue
		}
		if hint := tasks.DidYouMean(name, slices.Sorted(maps.Keys(known))); hint != "" {
			return fmt.Errorf("unknown environment variable %s%s", variable, strings.Replace(hint, `"`, `"`+environmentPrefix, 1))
		}
	}
	return nil
}

// What is kept with a flag.
const (
	yieldsTo = "yields to" // flags which, where a stronger layer has them, have this one's value count for nothing
	setBy    = "set by"    // the variable or the line that has set it; not there: the command line, or nothing
)

// Origin is where the value of a flag is from. A larger one wins.
type Origin int

// Where values are from.
const (
	FromDefault Origin = iota
	FromFile
	FromEnvironment
	FromCommandLine
)

// OriginOf says where the value of a flag is from, and for a file or the environment the line or the variable.
func OriginOf(f *pflag.Flag) (origin Origin, where string) {
	by := f.Annotations[setBy]
	switch {
	case by != nil && by[0] == variableOrigin:
		return FromEnvironment, by[1]
	case by != nil:
		return FromFile, by[1]
	case f.Changed:
		return FromCommandLine, "--" + f.Name
	}
	return FromDefault, ""
}

const (
	variableOrigin = "variable"
	fileOrigin     = "file"
)

// Arguments stands for whatever on a command line is no flag.
const Arguments = "an argument"

// Yields has the variable of a flag count for nothing where one of the others is on the
// command line, or is it with a value: "result=-".
func Yields(flags *pflag.FlagSet, name string, to ...string) {
	if err := flags.SetAnnotation(name, yieldsTo, append(flags.Lookup(name).Annotations[yieldsTo], to...)); err != nil {
		panic(err) // only for a flag that is not there
	}
}

// Alternatives are flags of which one may be given. Where one is on the command line, the
// variables of the others count for nothing.
func Alternatives(flags *pflag.FlagSet, names ...string) {
	for i, name := range names {
		if name != Arguments {
			Yields(flags, name, slices.Concat(names[:i], names[i+1:])...)
		}
	}
}

// layer is a place that values of flags are from.
type layer struct {
	origin Origin
	// value is what it says of a flag, if that is anything, and where it says so.
	value func(f *pflag.Flag) (value, where string, err error)
}

// environment are the variables.
func environment(variables map[string]string) layer {
	return layer{FromEnvironment, func(f *pflag.Flag) (value, where string, err error) {
		where = EnvironmentVariable(f.Name)
		return variables[where], where, nil
	}}
}

// fill gives each flag that was not set before the value of a layer, if that has one: what was set before wins, also where
// it says the same in another way.
func (l layer) fill(flags *pflag.FlagSet, args []string) (err error) {
	given := map[string]bool{Arguments: len(args) > 0}
	flags.Visit(func(f *pflag.Flag) { given[f.Name], given[f.Name+"="+f.Value.String()] = says(f), true })
	name := fileOrigin
	if l.origin == FromEnvironment {
		name = variableOrigin
	}
	flags.VisitAll(func(f *pflag.Flag) {
		overruled := slices.ContainsFunc(f.Annotations[yieldsTo], func(other string) bool { return given[other] })
		if err != nil || f.Changed || overruled || f.Name == "help" {
			return
		}
		value, where, wrong := l.value(f)
		if wrong == nil && value == "" {
			return
		}
		if wrong == nil && strings.HasSuffix(f.Value.Type(), "Slice") && strings.ContainsAny(strings.TrimSpace(value), "\r\n") {
			wrong = errors.New("has several lines, of which only the first would count: write a list, with commas in between")
		}
		if wrong == nil {
			wrong = inWords(flags.Set(f.Name, value))
		}
		if wrong != nil {
			err = fmt.Errorf("%s: %w", where, wrong)
			return
		}
		err = flags.SetAnnotation(f.Name, setBy, []string{name, where})
	})
	if err != nil {
		return err
	}
	return checkAlternatives(flags)
}

// says reports whether a flag is given, and not to say that it is not meant.
func says(f *pflag.Flag) bool { return f.Changed && f.Value.String() != "false" }

// checkAlternatives refuses two flags of which each yields to the other.
func checkAlternatives(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		for _, name := range f.Annotations[yieldsTo] {
			other := flags.Lookup(name)
			if err == nil && says(f) && other != nil && says(other) && slices.Contains(other.Annotations[yieldsTo], f.Name) {
				err = fmt.Errorf("%s and %s do not go together", howSet(f), howSet(other))
			}
		}
	})
	return err
}

// howSet names a flag as the caller has given it.
func howSet(f *pflag.Flag) string {
	if _, where := OriginOf(f); where != "" {
		return where
	}
	return "--" + f.Name
}
