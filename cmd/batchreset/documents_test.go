package main

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/api/client"
	"batchreset/tasks/redisdb/redistest"
)

const root = "../../"

func TestTheReadmeIsShort(t *testing.T) {
	if lines := strings.Count(readFile(t, root+"README.md"), "\n"); lines > 150 {
		t.Errorf("it has %d lines; more than 150 belong beside what they are about", lines)
	}
}

// TestLinksInDocumentsLeadSomewhere looks at links between documents and at their headings.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	documents := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."), entry.Name() == "node_modules":
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		documents++
		for _, found := range link.FindAllStringSubmatch(readFile(t, path), -1) {
			file, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, found[1], err)
			} else if anchor != "" && !headings(readFile(t, target))[anchor] {
				t.Errorf("%s links to %s, and there is no such heading", path, found[1])
			}
		}
		return nil
	})
	if err != nil || documents < 5 {
		t.Errorf("%d documents, %v", documents, err)
	}
}

// headings are the anchors that GitHub makes of a document's headings.
func headings(document string) map[string]bool {
	drop := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	anchors := map[string]bool{}
	for line := range strings.Lines(document) {
		if text, found := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); found && strings.HasPrefix(line, "#") {
			text = drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), "")
			anchors[strings.ReplaceAll(text, " ", "-")] = true
		}
	}
	return anchors
}

func TestTheControlPlaneOfTheReadmeResetsPhones(t *testing.T) {
	t.Parallel()
	source := readFile(t, root+"deploy/controlplane/main.go")
	if shown := source[strings.Index(source, "func main()"):]; !strings.Contains(readFile(t, root+"README.md"), "```go\n"+shown+"```\n") {
		t.Error("the README shows another one than deploy/controlplane/main.go")
	}

	plane := filepath.Join(t.TempDir(), "controlplane")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", plane, root+"deploy/controlplane").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wiped := filepath.Join(t.TempDir(), "wiped.txt")
	address := freeAddress(t)
	cmd := exec.CommandContext(t.Context(), plane, "sh", "-c", `echo "wipe $PHONE" >>"$WIPED"; test "$PHONE" != broken`)
	cmd.Env = append(os.Environ(), "LISTEN="+address, "WIPED="+wiped)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	server, _ := api.logged("api started")["api"].(string)
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--max-attempts", "1",
		"--driver", "http", "--driver-url", "http://"+address+"/phones/{instance_id}/reset")
	worker.logged("worker started")
	token := strings.TrimSpace(command(t, map[string]string{"BATCHRESET_REDIS": redis}, "token", "add", "--tenant", "acme").OK(t).Out)
	c, err := client.New(server, token)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := c.Submit(t.Context(), client.Batch{InstanceIDs: []string{"phone-1", "broken"}})
	if err != nil {
		t.Fatal(err)
	}
	job, err := c.Wait(t.Context(), accepted.JobID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if one, other := job.Items[0], job.Items[1]; one.State != "succeeded" || other.State != "failed" || other.Message != "exit status 1" {
		t.Errorf("%+v", job.Items)
	}
	for _, phone := range []string{"phone-1", "broken"} {
		if n := strings.Count(readFile(t, wiped), "wipe "+phone+"\n"); n != 1 {
			t.Errorf("%s was wiped %d times", phone, n)
		}
	}
	worker.stop()
	api.stop()
}

// freeAddress is one of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
