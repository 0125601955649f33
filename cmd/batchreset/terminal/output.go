package terminal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// outputForms are what --output takes. The first one is for people, and is meant where
// nothing is said.
var outputForms = []string{"text", "json", "jsonl", "yaml", "csv", "table"}

// Output is how a command prints its result.
type Output string

// Define defines --output and --quiet. A command may have more forms than all have, such as
// View.Others tells to write.
func (f *Output) Define(flags *pflag.FlagSet, more ...string) {
	usage := "`form` of the result: text; json or yaml, one document; jsonl, csv or table, its rows"
	if len(more) > 0 {
		usage += "; " + strings.Join(more, " or ") + ", a report"
	}
	flags.VarP(&outputFlag{f, append(slices.Clone(outputForms), more...)}, "output", "o", usage)
	flags.BoolP("quiet", "q", false, "say nothing on standard error but what went wrong")
}

// outputFlag is the value of --output, of a command that has these forms.
type outputFlag struct {
	*Output
	forms []string
}

// Set implements pflag.Value.
func (f *outputFlag) Set(value string) error {
	if !slices.Contains(f.forms, value) {
		return fmt.Errorf("must be one of %s", strings.Join(f.forms, ", "))
	}
	*f.Output = Output(value)
	return nil
}

// IsText reports whether the result is for people.
func (f *Output) IsText() bool { return f.String() == "text" }

// IsDocument reports whether all that there is to say goes into one object.
func (f *Output) IsDocument() bool { return *f == "json" || *f == "yaml" }

// String implements pflag.Value.
func (f *Output) String() string { return cmp.Or(string(*f), outputForms[0]) }

// Set implements pflag.Value, with the forms that every command has.
func (f *Output) Set(value string) error { return (&outputFlag{f, outputForms}).Set(value) }

// Type implements pflag.Value.
func (f *Output) Type() string { return "form" }

// View is what a command shows, in whatever form is asked for.
type View struct {
	Document any                             // json and yaml; always an object
	List     string                          // or: the name of the array in it that the rows are
	Rows     func(add func(any) error) error // jsonl, csv and table; nil: the document is the only one
	Columns  []string                        // of csv: names of fields as they are in JSON; nil: all
	Text     func(w io.Writer) error         // nil: the table
	Table    func(w io.Writer) error         // nil: the columns of csv

	Others map[Output]func(w io.Writer) error // forms that this command has and others do not
}

// Each are the rows that a list has.
func Each[T any](list []T) func(add func(any) error) error {
	return func(add func(any) error) error {
		for _, row := range list {
			if err := add(row); err != nil {
				return err
			}
		}
		return nil
	}
}

// Show prints what a command has to show.
func (f *Output) Show(w io.Writer, v View) error {
	if write := v.Others[*f]; write != nil {
		return write(w)
	}
	if v.Rows == nil {
		v.Rows = Each([]any{v.Document})
	}
	switch f.String() {
	case "json", "yaml":
		return f.showDocument(w, v)
	case "jsonl":
		return v.Rows(jsonLines(w).Encode)
	case "csv":
		return v.writeCSV(w)
	case "text":
		if v.Text != nil {
			return v.Text(w)
		}
	}
	if v.Table != nil {
		return v.Table(w)
	}
	return v.writeTable(w)
}

func (f *Output) showDocument(w io.Writer, v View) error {
	if v.List != "" {
		all := []any{}
		if err := v.Rows(func(row any) error { all = append(all, row); return nil }); err != nil {
			return err
		}
		v.Document = map[string]any{v.List: all}
	}
	if *f == "json" {
		return writeJSON(w, v.Document)
	}
	return writeYAML(w, v.Document)
}

// Said shows that something was done: to people in words, on standard error.
func (f *Output) Said(std *Streams, document any, format string, args ...any) error {
	return f.Show(std.Out, View{Document: document, Text: func(io.Writer) error {
		_, err := fmt.Fprintf(std.Err, format+"\n", args...)
		return err
	}})
}

func jsonLines(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// writeJSON prints one indented document.
func writeJSON(w io.Writer, v any) error {
	encoder := jsonLines(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// writeYAML prints what JSON would be as YAML, in the same order.
func writeYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var document yaml.Node // JSON is YAML, in a style of its own
	if err := errors.Join(yaml.Unmarshal(text, &document), restyle(&document)); err != nil {
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(&document), encoder.Close())
}

// restyle has a document from JSON look as YAML does. Text that some reader of YAML would not
// take for text, such as no, keeps its quotes.
func restyle(n *yaml.Node) error {
	if n.ShortTag() == "!!str" {
		return n.Encode(n.Value)
	}
	n.Style = 0
	for _, within := range n.Content {
		if err := restyle(within); err != nil {
			return err
		}
	}
	return nil
}
