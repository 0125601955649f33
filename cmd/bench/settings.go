package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// settings are what the flags say.
type settings struct {
	quick   bool
	rows    []string // names; all if empty
	rounds  int      // 0: as many as the sizes say
	json    string   // file
	keep    string   // directory
	profile string   // directory
	binary  string   // file
}

func parse(args []string, stderr io.Writer) (s settings, err error) {
	var names string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&s.quick, "quick", false, "smaller and shorter: about two minutes instead of 10 to 20")
	flags.StringVar(&names, "rows", "", "only these rows, with commas between them: "+strings.Join(rowNames(), ","))
	flags.IntVar(&s.rounds, "rounds", 0, "how often each row is measured, at most 100 (default: 5, with --quick 3)")
	flags.StringVar(&s.json, "json", "", "write the results and what the machine is to this `file`")
	flags.StringVar(&s.keep, "keep", "", "keep the logs of all processes in this `directory`")
	flags.StringVar(&s.profile, "profile", "", "one more round of submit and drain: CPU profiles of api and worker into this `directory`, and what each Redis command costs per instance")
	flags.StringVar(&s.binary, "binary", "", "the batchreset to measure (default: built from this tree)")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	switch {
	case flags.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.rounds < 0 || s.rounds > 100:
		return s, fmt.Errorf("--rounds must be from 1 to 100, not %d", s.rounds)
	case names == "":
		return s, nil
	}
	s.rows = strings.Split(names, ",")
	for _, name := range s.rows {
		if !slices.Contains(rowNames(), name) {
			return s, fmt.Errorf("--rows: there is no row %q; the rows are %s", name, strings.Join(rowNames(), ", "))
		}
	}
	return s, nil
}
