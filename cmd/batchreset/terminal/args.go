package terminal

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/tasks"
)

// ArgsFromUsage takes the arguments that the command's own line of usage names, and names the one
// that is missing. The last one may be there several times if it ends with an ellipsis.
func ArgsFromUsage(cmd *cobra.Command, args []string) error {
	names := strings.Fields(cmd.Use)[1:]
	switch last := len(names) - 1; {
	case len(args) <= last:
		return fmt.Errorf("%s is missing (see '%s --help')", strings.TrimSuffix(names[len(args)], "…"), cmd.CommandPath())
	case len(args) > len(names) && !strings.HasSuffix(names[last], "…"):
		return fmt.Errorf("unexpected argument %q (see '%s --help')", args[len(names)], cmd.CommandPath())
	}
	return nil
}

// onceEach has cmd and the commands below it refuse a flag that is given twice, of which
// the last would count otherwise.
func onceEach(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if slice, many := f.Value.(pflag.SliceValue); many {
			f.Value = &list{Value: f.Value, SliceValue: slice, flag: f}
			return
		}
		if f.Value.Type() == "stringToString" {
			f.Value = &onceByName{Value: f.Value, given: map[string]bool{}}
			return
		}
		f.Value = &once{Value: f.Value, flag: f}
	})
	for _, sub := range cmd.Commands() {
		onceEach(sub)
	}
}

// leaveNothingOut has cmd and the commands below it refuse the name of a command that does
// not exist, for which there would be help and success otherwise. No duration is 0s in the
// help.
func leaveNothingOut(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.DefValue == "0s" {
			f.DefValue = "0" // else the help would say so
		}
	})
	var names []string
	for _, sub := range cmd.Commands() {
		leaveNothingOut(sub)
		names = append(names, sub.Name())
	}
	if cmd.HasParent() && names != nil && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), tasks.DidYouMean(args[0], names))
			}
			return cmd.Help()
		}
	}
}

// once is the value of a flag that can be given once.
type once struct {
	pflag.Value
	flag  *pflag.Flag
	given bool
}

// Set sets it.
func (o *once) Set(value string) error {
	if o.given {
		return errors.New("it is given twice, which one is right?")
	}
	o.given = true
	if value == "" && o.Type() == "string" && !mayBeEmpty(o.flag) {
		return errEmpty
	}
	return o.Value.Set(value)
}

// errEmpty is for what comes from a variable of the shell that is not set: the default would be taken in its place, or
// nothing be left out.
var errEmpty = errors.New("it is empty")

// kinds says what the value of a flag of a type must be.
var kinds = map[string]string{
	"bool": "it must be true or false", "int": "it must be a whole number", "int64": "it must be a whole number", "float64": "it must be a number",
	"intSlice": "it must be whole numbers, with commas between them",
	"duration": "it must be a time with its unit, such as 90s or 1h30m",
}

// inWords has an error of a flag say what the value must be, where it would tell which function of Go did not take it.
func inWords(err error) error {
	invalid, is := errors.AsType[*pflag.InvalidValueError](err)
	if !is {
		return err
	}
	cause, words := invalid.Unwrap(), kinds[invalid.GetFlag().Value.Type()]
	number, parsed := errors.AsType[*strconv.NumError](cause)
	switch {
	case words == "" || !parsed && !strings.HasPrefix(cause.Error(), "time: "):
		return err
	case parsed && errors.Is(number, strconv.ErrRange):
		words = "it is too large or too small"
	}
	return errors.New(strings.TrimSuffix(err.Error(), cause.Error()) + words)
}

// list is the value of a flag that has several.
type list struct {
	pflag.Value
	pflag.SliceValue
	flag *pflag.Flag
}

// Set adds what is said.
func (l *list) Set(value string) error {
	if strings.Trim(value, ", \t") == "" && !mayBeEmpty(l.flag) {
		return errEmpty
	}
	return l.Value.Set(value)
}

// onceByName is the value of a flag that can be given several times, but once for each name.
type onceByName struct {
	pflag.Value
	given map[string]bool
}

// Set adds name=value, or several of these with commas between them.
func (o *onceByName) Set(value string) error {
	pairs := []string{strings.Trim(value, `"`)}
	if strings.Count(value, "=") > 1 {
		pairs, _ = csv.NewReader(strings.NewReader(value)).Read() // else o.Value says what is wrong
	}
	for _, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		if o.given[name] {
			return fmt.Errorf("it has %s twice, which one is right?", name)
		}
		o.given[name] = true
	}
	return o.Value.Set(value)
}

const emptyAnnotation = "may be empty"

func mayBeEmpty(f *pflag.Flag) bool { return len(f.Annotations[emptyAnnotation]) > 0 }

// MayBeEmpty is for flags that mean something when they are empty.
func MayBeEmpty(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := flags.SetAnnotation(name, emptyAnnotation, []string{"yes"}); err != nil {
			panic(err) // only for a flag that is not there
		}
	}
}

// NoArgs refuses arguments by name.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q (see '%s --help')", args[0], cmd.CommandPath())
	}
	return nil
}
