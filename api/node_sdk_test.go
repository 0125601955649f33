package api_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"batchreset/tasks"
)

// TestTheSDKForNode has the core of Huawei Cloud's SDK for Node.js call the API, with an endpoint and a key
// and nothing else. That for Go is in the module sdktest.
func TestTheSDKForNode(t *testing.T) {
	t.Parallel()
	modules, err := filepath.Abs("../.bin/npm/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "@huaweicloud")); err != nil {
		t.Fatalf("this test needs the packages of .ci/package.json: run 'make .bin/npm/installed' (%v)", err)
	}
	cfg := testConfig
	cfg.AllowUnregistered = false
	s := newSigning(t, cfg, tasks.Token{})
	err = s.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}, {ID: "phone-2", Tenant: "acme"}, {ID: "phone-3", Tenant: "acme"}}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	defer server.Close()
	cmd := exec.CommandContext(t.Context(), "node", "testdata/koophone.cjs")
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "HOME="+t.TempDir(), "ENDPOINT="+server.URL, "AK="+s.key.Access, "SK="+s.key.Secret)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errors.String())
	}
	type refusal struct {
		Status        int
		Code, Message string
	}
	var got struct {
		Total, Jobs  int
		Task, States []int
		Refused      refusal
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n") // the SDK logs what is refused
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got.Total != 3 || got.Jobs != 2 || !reflect.DeepEqual(got.Task, []int{1, 1}) || !reflect.DeepEqual(got.States, []int{1, 1}) {
		t.Errorf("the program says %s", out)
	}
	if got.Refused.Status != 401 || got.Refused.Code != "APIGW.0301" || !strings.Contains(got.Refused.Message, "verify aksk signature fail") {
		t.Errorf("with a wrong secret: %+v", got.Refused)
	}
}
