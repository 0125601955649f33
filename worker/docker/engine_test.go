//go:build engine

package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"batchreset/worker/docker/enginetest"
)

// The images of the tests, which differ in what they set.
const (
	phoneImage  = enginetest.PhoneImage
	otherImage  = enginetest.OtherImage
	healthImage = enginetest.HealthImage
)

// testEngine is a real Docker engine.
type testEngine struct {
	*enginetest.Engine

	engine engine // of the test itself
}

var started struct {
	sync.Once

	engine *testEngine
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	var err error
	if started.engine != nil {
		err = started.engine.Stop()
	}
	if err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// dockerd returns the engine that all tests share.
func dockerd(t *testing.T) *testEngine {
	t.Helper()
	started.Do(func() {
		// Not the test's context: others use the engine after it.
		started.engine, started.err = startEngine(context.Background())
	})
	if started.err != nil {
		t.Fatal(started.err)
	}
	return started.engine
}

// TestTheMachinesEngineKeepsItsBridge: an engine that is told to have no bridge removes docker0, whoever made it.
func TestTheMachinesEngineKeepsItsBridge(t *testing.T) {
	if _, err := net.InterfaceByName("docker0"); err != nil { // as on a machine whose own engine runs
		if out, err := exec.CommandContext(t.Context(), "ip", "link", "add", "docker0", "type", "bridge").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Cleanup(func() { _ = exec.CommandContext(context.Background(), "ip", "link", "delete", "docker0").Run() })
	}
	e, err := enginetest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := net.InterfaceByName("docker0"); err != nil {
		t.Error(err)
	}
}

func startEngine(ctx context.Context) (*testEngine, error) {
	e, err := enginetest.Start(ctx)
	if err != nil {
		return nil, err
	}
	d, err := New(Config{Host: e.Host()})
	if err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	own, err := d.connect(ctx)
	if err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return &testEngine{Engine: e, engine: own}, nil
}
