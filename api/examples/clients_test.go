package examples

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/api/client"
)

// The clients of other languages, and the programs of api/README.md, against a real 'batchreset dev'.

const (
	root    = "../../"
	clients = root + "api/client/"
)

func TestTheGoProgramOfTheReadme(t *testing.T) {
	t.Parallel()
	checkout, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), programOf(t, "The Go client", "go"))
	environment := []string{"GOPROXY=off", "GOFLAGS=", "GOWORK=off"} // it needs nothing else
	run(t, dir, environment, "go", "mod", "init", "example.com/reset")
	run(t, dir, environment, "go", "mod", "edit", "-require", "batchreset@v0.0.0", "-replace", "batchreset="+checkout)
	run(t, dir, environment, "go", "build", "-o", "reset", ".")
	checkProgram(t, "go", nil, filepath.Join(dir, "reset"))
}

func TestTheShellScriptOfTheReadme(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: run .ci/setup (%v)", tool, err)
		}
	}
	script := filepath.Join(t.TempDir(), "reset.sh")
	write(t, script, programOf(t, "A shell script", "bash"))
	checkProgram(t, "shell", nil, "sh", script)
}

func TestTheTypeScriptClient(t *testing.T) {
	t.Parallel()
	modules, err := filepath.Abs(root + ".bin/typescript/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "typescript")); err != nil {
		t.Fatalf("this test needs the packages of api/client/typescript/package.json: run 'make .bin/typescript/installed' (%v)", err)
	}
	dir := workspace(t, "typescript", "package.json", "README.md", "tsconfig.json", "src", "test")
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}

	run(t, dir, nil, "npm", "run", "generate")
	if readFile(t, filepath.Join(dir, "src/contract.ts")) != readFile(t, clients+"typescript/src/contract.ts") {
		t.Error("src/contract.ts is not that of api/openapi.yaml: run 'npm ci && npm run generate' in api/client/typescript")
	}
	run(t, dir, dev(t, "--proof-key-file", proofKey(t)), "npm", "test")

	run(t, dir, nil, "npm", "pack", "--ignore-scripts") // of what the tests have built
	program := t.TempDir()
	write(t, filepath.Join(program, "package.json"), `{"type":"module"}`)
	write(t, filepath.Join(program, "reset.ts"), programOf(t, "The TypeScript client", "ts"))
	run(t, program, nil, "npm", "install", "--offline", "--ignore-scripts", filepath.Join(dir, "batchreset-0.0.0.tgz"))
	run(t, program, nil, filepath.Join(modules, ".bin/tsc"), "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext",
		"--types", "node", "--typeRoots", filepath.Join(modules, "@types"), "reset.ts")
	checkProgram(t, "typescript", nil, "node", filepath.Join(program, "reset.js"))
}

func TestThePythonClient(t *testing.T) {
	t.Parallel()
	python := pythonWithTools(t)
	dir := workspace(t, "python", "pyproject.toml", "README.md", "generate.py", "batchreset", "tests")

	if run(t, dir, nil, python, "generate.py") != readFile(t, clients+"python/batchreset/contract.py") {
		t.Error("contract.py is not that of api/openapi.yaml: run 'python3 generate.py > batchreset/contract.py' in api/client/python")
	}
	run(t, dir, dev(t, "--proof-key-file", proofKey(t)), python, "-m", "unittest")

	run(t, dir, nil, python, "-m", "pip", "wheel", "--no-index", "--no-build-isolation", "--no-deps", ".")
	packages, program := t.TempDir(), filepath.Join(t.TempDir(), "reset.py")
	run(t, dir, nil, python, "-m", "pip", "install", "--no-index", "--no-deps", "--target", packages, "batchreset-0.0.0-py3-none-any.whl")
	write(t, program, programOf(t, "The Python client", "python"))
	checkProgram(t, "python", []string{"PYTHONPATH=" + packages}, python, program)
}

// pythonWithTools is a Python that can run the generator and make a wheel. Debian's has its tools
// in packages of their own, which another Python on the PATH does not see.
func pythonWithTools(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(t.Context(), python, "-c", "import setuptools, wheel, pip, yaml").Run() == nil {
			return python
		}
	}
	t.Fatal("this test needs Python with pip, setuptools, wheel and PyYAML: run .ci/setup")
	return ""
}

// workspace is a copy of a client and of what it is tested with, in folders as in the tree.
func workspace(t *testing.T, name string, files ...string) string {
	t.Helper()
	api := filepath.Join(t.TempDir(), "api")
	dir := filepath.Join(api, "client", name)
	write(t, filepath.Join(api, "openapi.yaml"), readFile(t, root+"api/openapi.yaml"))
	write(t, filepath.Join(api, "client/testdata/repeats.json"), readFile(t, clients+"testdata/repeats.json"))
	for _, file := range files {
		from := filepath.Join(clients, name, file)
		err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				write(t, filepath.Join(dir, file, strings.TrimPrefix(path, from)), readFile(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a command that must succeed, and returns what it has written to its standard output.
func run(t *testing.T, dir string, environment []string, name string, args ...string) string {
	t.Helper()
	out, errs, code := outcome(t, dir, environment, name, args...)
	if code != 0 {
		t.Fatalf("%s %s ended with %d\n%s%s", name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

func outcome(t *testing.T, dir string, environment []string, name string, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append(environment, "PYTHONDONTWRITEBYTECODE=1", "NO_UPDATE_NOTIFIER=1")...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatalf("%s: %v", name, err)
	} else if ended {
		code = exit.ExitCode()
	}
	return stdout.String(), stderr.String(), code
}

// programOf is the program in a language below a heading of api/README.md.
func programOf(t *testing.T, heading, language string) string {
	t.Helper()
	_, section, found := strings.Cut(readFile(t, root+"api/README.md"), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, program, begins := strings.Cut(section, "```"+language+"\n")
	program, _, ends := strings.Cut(program, "```\n")
	if !found || !begins || !ends {
		t.Fatalf("api/README.md has no %s program below %q", language, heading)
	}
	return program
}

// dev starts one, and returns the environment of a caller: its token, and one of an approver.
func dev(t *testing.T, args ...string) []string {
	t.Helper()
	s := startDev(t, nil, args...)
	redis := regexp.MustCompile(`fleet list --redis (\S+)`).FindStringSubmatch(s.said())
	if redis == nil {
		t.Fatalf("greeting %s", s.said())
	}
	approver := run(t, "", nil, binary, "token", "add", "--redis", redis[1], "--tenant", "demo", "--owner", "bob", "--scope", "read,approve")
	return []string{"BATCHRESET_SERVER=" + s.url, "BATCHRESET_TOKEN=" + token, "APPROVER=" + strings.TrimSpace(approver)}
}

func proofKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proof-key.pem")
	run(t, "", nil, binary, "proof", "new-key", path)
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkProgram runs a program of api/README.md where all goes well, twice, where every reset fails, and
// where it has no token that is valid.
func checkProgram(t *testing.T, prefix string, environment []string, name string, args ...string) {
	t.Helper()
	one, two := prefix+"-1", prefix+"-2"
	args = append(args, prefix+"-0042", one, two)
	fine := append(dev(t), environment...)
	for range 2 {
		if out := run(t, "", fine, name, args...); out != "" {
			t.Errorf("it printed %q although all were reset", out)
		}
	}
	c, err := client.New(strings.TrimPrefix(fine[0], "BATCHRESET_SERVER="), strings.TrimPrefix(fine[1], "BATCHRESET_TOKEN="))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	jobs := 0
	for _, err := range c.Jobs(t.Context(), client.JobsFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		jobs++
	}
	if jobs != 1 {
		t.Errorf("it made %d jobs under one key", jobs)
	}

	broken := append(dev(t, "--simulator-failure-rate", "1", "--max-attempts", "1"), environment...)
	out, errs, code := outcome(t, "", broken, name, args...)
	if code != 2 || !regexp.MustCompile(`^`+one+` failed CPS\.\d+\n`+two+` failed CPS\.\d+\n$`).MatchString(out) {
		t.Errorf("where all fail, it ended with %d and printed %q\n%s", code, out, errs)
	}

	const wrong = "a-token-that-is-not-valid"
	out, errs, code = outcome(t, "", append(fine, "BATCHRESET_TOKEN="+wrong), name, args...)
	if code != 1 || out != "" || !strings.Contains(errs, "APIGW.0301") || strings.Contains(errs, wrong) {
		t.Errorf("with a wrong token, it ended with %d and printed %q\n%s", code, out, errs)
	}
}
