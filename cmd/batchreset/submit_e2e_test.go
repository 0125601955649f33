package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"batchreset/api/client"
	"batchreset/cmd/harness"
)

// TestASubmitThatIsKilledAndInterrupted has the command of a long list killed, given again, interrupted
// by Ctrl-C and given once more: the run goes on meanwhile, and no phone is reset twice or forgotten.
func TestASubmitThatIsKilledAndInterrupted(t *testing.T) {
	t.Parallel()
	const instances = 100
	plane, url := newWiper(t)
	released := make(chan struct{})
	plane.waits = func(ctx context.Context) {
		if plane.count() < 40 {
			return
		}
		select {
		case <-released:
		case <-ctx.Done():
		}
	}
	s := newCampaign(t, url, "--concurrency", "10")
	worker := s.worker()
	worker.logged("worker started")
	dir := t.TempDir()
	file, result := filepath.Join(dir, "list.txt"), filepath.Join(dir, "result.csv")
	if err := os.WriteFile(file, []byte(strings.Join(phonesList(instances), "\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"submit", "--file", file, "--run-id", "recall-7", "--result", result}
	for _, number := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		submit := exec.CommandContext(t.Context(), binary, args...)
		for name, value := range s.environment {
			submit.Env = append(submit.Env, name+"="+value)
		}
		says, err := submit.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := submit.Start(); err != nil {
			t.Fatal(err)
		}
		lines, said := bufio.NewScanner(says), ""
		for lines.Scan() && !strings.Contains(lines.Text(), " ended: ") { // it follows the run
			said += lines.Text() + "\n"
		}
		harness.Eventually(t, patience, "the first to be wiped", func() bool { return plane.count() >= 40 })
		if err := submit.Process.Signal(number); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			said += lines.Text() + "\n"
		}
		_ = submit.Wait() // its state tells
		if status := submit.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != number {
			t.Errorf("it ended with status %#x: %s", status, said)
		}
		if number == syscall.SIGINT && !regexp.MustCompile(`interrupted; the run goes on; 'batchreset run watch (\w{32})' follows it, 'run pause (\w{32})' stops it for now, 'run cancel (\w{32})'`).MatchString(said) {
			t.Errorf("it says %s", said)
		}
		if _, err := os.Stat(result); err == nil {
			t.Error("there is a result already")
		}
	}
	close(released)
	command(t, s.environment, args...).OK(t)
	rows, err := readRows(result)
	if err != nil || len(rows) != instances {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for n, row := range rows {
		if row["instance_id"] != phonesList(instances)[n] || row["state"] != "succeeded" || row["attempts"] != "1" {
			t.Errorf("row %d is %v", n, row)
		}
	}
	var list struct {
		Runs []client.Run `json:"runs"`
	}
	out := command(t, s.environment, "run", "list", "--output", "json").OK(t).Out
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Runs) != 1 {
		t.Errorf("%v, runs %s", err, out)
	}
	plane.mu.Lock()
	defer plane.mu.Unlock()
	for _, id := range phonesList(instances) {
		if plane.wiped[id] != 1 {
			t.Errorf("%s was wiped %d times", id, plane.wiped[id])
		}
	}
}

// readRows reads the rows of a result, by the names of the columns.
func readRows(path string) (rows []map[string]string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(path) == ".jsonl" {
		for line := range bytes.Lines(raw) {
			fields := map[string]any{}
			if err := json.Unmarshal(line, &fields); err != nil {
				return nil, err
			}
			row := map[string]string{}
			for name, value := range fields {
				row[name] = fmt.Sprint(value)
			}
			rows = append(rows, row)
		}
		return rows, nil
	}
	table, err := csv.NewReader(bytes.NewReader(raw)).ReadAll()
	for n, cells := range table {
		row := map[string]string{}
		for i, cell := range cells {
			row[table[0][i]] = cell
		}
		if n > 0 {
			rows = append(rows, row)
		}
	}
	return rows, err
}
