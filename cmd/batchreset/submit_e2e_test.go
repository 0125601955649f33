package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb/redistest"
)

// TestASubmitThatIsKilledTwice has a long list whose command is killed in the middle,
// twice, and given again: no phone may be reset twice, and none be forgotten.
func TestASubmitThatIsKilledTwice(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	resets := map[string]int{}
	phones := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			InstanceID string `json:"instance_id"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		resets[body.InstanceID]++
		if strings.HasSuffix(body.InstanceID, "99") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"error_code":"CPS.0005","error_msg":"no such phone"}`))
		}
	}))
	defer phones.Close()
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	environment := map[string]string{"BATCHRESET_REDIS": redis}
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", phones.URL+"/{instance_id}", "--concurrency", "200")
	worker.logged("worker started")

	const instances = 5000
	var list strings.Builder
	for n := range instances {
		fmt.Fprintf(&list, "phone-%05d\r\n", n)
	}
	dir := t.TempDir()
	file, result := filepath.Join(dir, "list.txt"), filepath.Join(dir, "result.csv")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"submit", "--file", file, "--run-id", "recall-7", "--result", result}
	jobs := map[string]bool{}
	for _, after := range []int{30, 90} { // job IDs; there are 157
		submit := exec.CommandContext(t.Context(), binary, args...)
		for name, value := range environment {
			submit.Env = append(submit.Env, name+"="+value)
		}
		out, err := submit.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := submit.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < after && lines.Scan(); n++ {
			jobs[lines.Text()] = true
		}
		if err := submit.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := submit.Wait(); err == nil {
			t.Fatal("it was at its end before it was killed")
		}
		if _, err := os.Stat(result); err == nil {
			t.Error("there is a result already")
		}
	}
	last := command(t, environment, args...)
	for id := range strings.FieldsSeq(last.Out) {
		jobs[id] = true
	}
	if terminal.ExitCode(last.Err) != 2 || len(jobs) != (instances+31)/32 {
		t.Errorf("%v, and %d jobs in all: %s", last.Err, len(jobs), last.Errs)
	}
	rows, err := readRows(result)
	if err != nil || len(rows) != instances {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	states := map[string]int{}
	mu.Lock()
	for n, row := range rows {
		states[row["state"]]++
		if row["instance_id"] != fmt.Sprintf("phone-%05d", n) || row["attempts"] != "1" || resets[row["instance_id"]] != 1 {
			t.Errorf("row %d is %+v; the phone was reset %d times", n, row, resets[row["instance_id"]])
		}
	}
	mu.Unlock()
	if states["succeeded"] != instances*99/100 || states["failed"] != instances/100 {
		t.Errorf("states %v", states)
	}

	again := filepath.Join(dir, "again.jsonl")
	for n := range 2 { // the second time it goes on from the first
		retried := command(t, environment, "retry", "--failed-from", result, "--result", again)
		if terminal.ExitCode(retried.Err) != terminal.ExitSome || strings.Contains(retried.Errs, "already retried as job") != (n == 1) {
			t.Errorf("%v: %s", retried.Err, retried.Errs)
		}
	}
	if rows, err = readRows(again); err != nil || len(rows) != instances/100 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range resets {
		if want := 1 + 2*strings.Count(id+"!", "99!"); n != want {
			t.Errorf("%s was reset %d times, want %d", id, n, want)
		}
	}
	worker.stop()
	api.stop()
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
