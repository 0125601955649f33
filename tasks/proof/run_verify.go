package proof

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"batchreset/tasks"
)

// maxRunLine is far more than a line of a run's proof has: decisions, with their comments, make the longest.
const maxRunLine = 256 << 10

// VerifyRun reads the proof of a run, and returns what it states and the ID of the key that it is signed
// with, if it is just as one of the keys has signed it, and does not contradict itself. An error is a
// sentence about the proof, or one of in. Of each instance it keeps no more than its ID, which the list's
// hash needs.
//
// visit is called with each instance as it is read: what it is told counts for nothing if VerifyRun fails.
func (k Keys) VerifyRun(in io.Reader, visit func(RunItem)) (statement RunStatement, keyID string, err error) {
	r := runReader{in: bufio.NewReaderSize(in, maxRunLine), digest: sha256.New()}
	compact, err := r.readAll(visit)
	if err != nil {
		return RunStatement{}, "", err
	}
	var signed seal
	if keyID, err = k.open(runType, compact, &signed); err != nil {
		return RunStatement{}, "", fmt.Errorf("its last line: %w", err)
	}
	switch {
	case signed.Version != runVersion:
		return RunStatement{}, "", wrongRunVersion(signed.Version)
	case signed.Lines != 1+len(r.instances):
		return RunStatement{}, "", fmt.Errorf("%d lines were signed, and it has %d: some were added or left out", signed.Lines, 1+len(r.instances))
	case signed.Digest != hex.EncodeToString(r.digest.Sum(nil)):
		return RunStatement{}, "", errors.New("its lines are not those that were signed: one was changed, moved or exchanged")
	}
	if err := r.check(signed); err != nil {
		return RunStatement{}, "", fmt.Errorf("it is signed, but contradicts itself: %w", err)
	}
	return r.statement, keyID, nil
}

func wrongRunVersion(v int) error {
	return fmt.Errorf("it has version %d, and this program reads version %d", v, runVersion)
}

// runReader reads the lines of a run's proof.
type runReader struct {
	in     *bufio.Reader
	digest hash.Hash // of the lines before the signature
	lines  int

	statement RunStatement
	instances []string
	sum       runSum
}

// readAll reads a proof to its end, and returns its signature.
func (r *runReader) readAll(visit func(RunItem)) (compact string, err error) {
	line, err := r.next()
	if err != nil {
		return "", err
	}
	if err := r.begin(line); err != nil {
		return "", err
	}
	for {
		if line, err = r.next(); err != nil {
			return "", err
		}
		if bytes.HasPrefix(line, []byte(beforeSignature)) {
			return r.end(line)
		}
		it, err := r.instance(line)
		if err != nil {
			return "", fmt.Errorf("line %d: %w", r.lines, err)
		}
		visit(it)
	}
}

// next is the next line, with its line end, until the one after it is read.
func (r *runReader) next() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, fmt.Errorf("it ends after line %d, without a signature: its end is missing", r.lines)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("it ends within line %d: its end is missing", r.lines+1)
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("line %d is longer than %d bytes, which no line of a proof is", r.lines+1, maxRunLine)
	case err != nil:
		return nil, err
	}
	r.lines++
	return line, nil
}

// begin reads the first line.
func (r *runReader) begin(line []byte) error {
	_, _ = r.digest.Write(line) // never fails
	if err := json.Unmarshal(line, &r.statement); err != nil {
		return fmt.Errorf("its first line is no statement about a run: %w", err)
	}
	s := r.statement
	switch {
	case s.RunID == "":
		return errors.New("its first line is no statement about a run: it has no run_id")
	case s.Version != runVersion:
		return wrongRunVersion(s.Version)
	case s.Total < 1 || s.Total > tasks.MaxMaxRunInstances:
		return fmt.Errorf("its first line counts %d instances, which no run has", s.Total)
	}
	return nil
}

// instance reads a line about one.
func (r *runReader) instance(line []byte) (it RunItem, err error) {
	_, _ = r.digest.Write(line) // never fails
	if len(r.instances) == r.statement.Total {
		return it, fmt.Errorf("it is one more than the %d instances that the first line counts", r.statement.Total)
	}
	if err := json.Unmarshal(line, &it); err != nil {
		return it, fmt.Errorf("it says nothing about an instance: %w", err)
	}
	if err := tasks.CheckInstanceID(it.InstanceID); err != nil {
		return it, fmt.Errorf("its instance_id %w", err)
	}
	if err := r.sum.add(it); err != nil {
		return it, err
	}
	r.instances = append(r.instances, it.InstanceID)
	return it, nil
}

// end reads the last line, and that there is nothing after it.
func (r *runReader) end(line []byte) (compact string, err error) {
	text, whole := bytes.CutSuffix(line[len(beforeSignature):], []byte(afterSignature))
	if !whole {
		return "", fmt.Errorf("line %d is no signature: it was changed", r.lines)
	}
	compact = string(text)
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return "", fmt.Errorf("there is more after line %d, which is its signature", r.lines)
	case !errors.Is(err, io.EOF):
		return "", err
	}
	if n := len(r.instances); n < r.statement.Total {
		return "", fmt.Errorf("it has %d instances, and its first line counts %d: some were left out", n, r.statement.Total)
	}
	return compact, nil
}

// check finds what in a proof contradicts the rest of it.
func (r *runReader) check(signed seal) error {
	if signed.RunID != r.statement.RunID {
		return fmt.Errorf("its last line is about the run %.80q", signed.RunID)
	}
	if err := r.sum.check(r.statement); err != nil {
		return err
	}
	slices.Sort(r.instances)
	for n, id := range r.instances[1:] {
		if id == r.instances[n] {
			return fmt.Errorf("it has the instance %q twice", id)
		}
	}
	if r.statement.List != tasks.ListHash(r.instances) {
		return errors.New("list_sha256 is not that of its instances")
	}
	return nil
}
