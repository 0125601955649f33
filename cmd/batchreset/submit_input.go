package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"batchreset/tasks"
)

// maxComplaints is how many bad IDs are named before the rest is only counted.
const maxComplaints = 10

// readInstances collects the instance IDs of a submit, from its arguments and
// then its file, without repeats, and says how many repeats there were. Bad IDs
// are refused with their place.
func readInstances(args []string, file string, stdin io.Reader) (ids []string, repeats int, err error) {
	seen := map[string]bool{}
	var complaints []error
	bad := 0
	add := func(id, place string, n int) {
		if err := tasks.CheckInstanceID(id); err != nil {
			if bad++; bad <= maxComplaints {
				complaints = append(complaints, fmt.Errorf("%s %d: instance ID %w", place, n, err))
			}
			return
		}
		if seen[id] {
			repeats++
			return
		}
		seen[id] = true
		ids = append(ids, id)
	}
	for i, id := range args {
		add(id, "argument", i+1)
	}
	if file != "" {
		name := "--file " + file
		if err := readLines(file, stdin, func(id string, line int) { add(id, name+" line", line) }); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case bad > maxComplaints:
		complaints = append(complaints, fmt.Errorf("and %d more; nothing was sent", bad-maxComplaints))
		return nil, 0, errors.Join(complaints...)
	case bad > 0:
		return nil, 0, errors.Join(complaints...)
	case len(ids) == 0 && file != "":
		return nil, 0, fmt.Errorf("--file %s names no instance", file)
	case len(ids) == 0:
		return nil, 0, errors.New("there is no instance ID: name some as arguments, or in a file with --file")
	}
	return ids, repeats, nil
}

// readLines calls add with each line of a file, or of stdin if it is called "-",
// that is not blank or a comment.
func readLines(file string, stdin io.Reader, add func(text string, line int)) (err error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return errors.Unwrap(err) // the path is said already
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	lines := bufio.NewScanner(in)
	n := 0
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		n++
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // some editors put a byte order mark
		}
		if text = strings.TrimSpace(text); text != "" {
			add(text, n)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d bytes", n+1, bufio.MaxScanTokenSize)
	} else if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return pathError.Err
	} else {
		return err
	}
}
