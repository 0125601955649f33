package call

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"batchreset/tasks"
)

const (
	// maxComplaints is how many bad IDs are named before the rest is only counted.
	maxComplaints = 10
	// maxList is far above a list of a million instances: more is no list.
	maxList = 128 << 20
)

// instanceList collects the instance IDs of a submit, each once, and what is wrong with
// others.
type instanceList struct {
	ids        []string
	repeats    int
	seen       map[string]bool
	bad        int
	complaints []error
}

// readInstances collects the instance IDs of a submit, from its arguments and
// then its file, without repeats, and says how many repeats there were. Bad IDs
// are refused with their place.
func readInstances(args []string, file string, stdin io.Reader) (ids []string, repeats int, err error) {
	l := &instanceList{seen: map[string]bool{}}
	for i, id := range args {
		l.add(id, fmt.Sprintf("argument %d", i+1))
	}
	if file != "" {
		raw, err := readList(file, stdin)
		if err == nil {
			err = l.read(raw, "--file "+file)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("--file %s: %w", file, err)
		}
	}
	if l.bad > maxComplaints {
		l.complaints = append(l.complaints, fmt.Errorf("and %d more; nothing was sent", l.bad-maxComplaints))
	}
	switch {
	case l.bad > 0:
		return nil, 0, errors.Join(l.complaints...)
	case len(l.ids) == 0 && file != "":
		return nil, 0, fmt.Errorf("--file %s names no instance", file)
	case len(l.ids) == 0:
		return nil, 0, errors.New("there is no instance ID: name some as arguments, or in a file with --file")
	}
	return l.ids, l.repeats, nil
}

// add adds an ID, unless it is bad or there already.
func (l *instanceList) add(id, place string) {
	switch err := tasks.CheckInstanceID(id); {
	case id == listColumn:
		l.complain(fmt.Errorf("%s: %s is the name of a column, not an instance", place, id))
	case err != nil && strings.Contains(id, "#"):
		l.complain(fmt.Errorf("%s: instance ID %w; a comment is a line that begins with #", place, err))
	case err != nil:
		l.complain(fmt.Errorf("%s: instance ID %w", place, err))
	case l.seen[id]:
		l.repeats++
	default:
		l.seen[id] = true
		l.ids = append(l.ids, id)
	}
}

func (l *instanceList) complain(err error) {
	if l.bad++; l.bad <= maxComplaints {
		l.complaints = append(l.complaints, err)
	}
}

// readList reads a file, or stdin if it is called "-".
func readList(file string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, errors.Unwrap(err) // the path is said already
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxList+1))
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathError.Err
	} else if err != nil {
		return nil, err
	}
	if len(raw) > maxList {
		return nil, fmt.Errorf("is larger than %d MiB", maxList>>20)
	}
	return raw, nil
}
