package call

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
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
	ids []string
	// generations are what the fleet's counters of assignments must be, of instances whose row says so.
	generations map[string]int
	repeats     int
	seen        map[string]bool
	bad         int
	complaints  []error
}

// readInstances collects the instance IDs of a submit, from its arguments and
// then its file, without repeats, and what the file says of them. Bad IDs
// are refused with their place.
func readInstances(args []string, file string, stdin io.Reader) (*instanceList, error) {
	l := &instanceList{seen: map[string]bool{}, generations: map[string]int{}}
	for i, id := range args {
		l.add(id, fmt.Sprintf("argument %d", i+1))
	}
	if file != "" {
		raw, err := readList(file, stdin)
		if err == nil {
			err = l.read(raw, "--file "+file)
		}
		if err != nil {
			return nil, fmt.Errorf("--file %s: %w", file, err)
		}
	}
	if l.bad > maxComplaints {
		l.complaints = append(l.complaints, fmt.Errorf("and %d more; nothing was sent", l.bad-maxComplaints))
	}
	switch {
	case l.bad > 0:
		return nil, errors.Join(l.complaints...)
	case len(l.ids) == 0 && file != "":
		return nil, fmt.Errorf("--file %s names no instance", file)
	case len(l.ids) == 0:
		return nil, errors.New("there is no instance ID: name some as arguments, or in a file with --file")
	}
	return l, nil
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

// addGeneration adds what the fleet's counter must be for an instance.
func (l *instanceList) addGeneration(id, text, place string) {
	n, err := strconv.Atoi(text)
	before, twice := l.generations[id]
	switch {
	case err != nil || n < 1 || n > tasks.MaxGeneration:
		l.complain(fmt.Errorf("%s: %s must be a whole number from 1 to %d, not %.80q", place, generationColumn, tasks.MaxGeneration, text))
	case twice && before != n:
		l.complain(fmt.Errorf("%s: instance %s has the generation %d here, and %d before", place, id, n, before))
	default:
		l.generations[id] = n
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
