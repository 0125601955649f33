package charttest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// build builds the program.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "batchreset")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", "../../..", "-o", program, "./cmd/batchreset").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestTheProgramTakesWhatItIsGiven starts each pod's command as the pod would, with its files. It is content with all of it if
// nothing is wrong but that there is no Redis.
func TestTheProgramTakesWhatItIsGiven(t *testing.T) {
	program := build(t)
	certificate, key := newCertificate(t)
	eachSet(t, func(t *testing.T, r rendering) {
		for _, d := range all[*appsv1.Deployment](r) {
			if component(d) == "demo-redis" {
				continue
			}
			t.Run(d.Name, func(t *testing.T) {
				t.Parallel()
				out := start(t, program, d, func(mount, file string) string {
					switch filepath.Join(mount, file) {
					case "redis/url":
						return "redis://127.0.0.1:1/0?max_retries=-1"
					case "tls/tls.crt", "tls-client/ca.crt":
						return certificate
					case "tls/tls.key":
						return key
					case "secret-key/key":
						return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
					case "files/notify.txt":
						return "https://hooks.example/x"
					case "files/callers.yaml":
						return "certificates: [{common_name: pipeline, tenant: acme, scopes: [submit, read]}]"
					case "files/proof.key":
						return newProofKey(t, program)
					case "drivers/drivers.yaml":
						for _, s := range all[*corev1.Secret](r) {
							if s.Name == secretOf(d, "drivers") {
								return s.StringData["drivers.yaml"]
							}
						}
						return "drivers: [{name: default, type: simulator}]"
					}
					return "secret"
				})
				if !strings.Contains(out, "cannot reach Redis") {
					t.Errorf("%s: %s", d.Name, out)
				}
			})
		}
	})
	t.Run("and says no to what it is not", func(t *testing.T) {
		values := of(t, `{redis: {existingSecret: r}, workers: {default: {drivers: [{name: default, type: http, ur1: x}]}}}`)
		r := render(t, values)
		d := one[*appsv1.Deployment](t, r, "reset-batchreset-worker-default")
		out := start(t, program, d, func(mount, file string) string {
			if file == "drivers.yaml" {
				return one[*corev1.Secret](t, r, secretOf(d, "drivers")).StringData[file]
			}
			return "redis://127.0.0.1:1/0?max_retries=-1"
		})
		if !strings.Contains(out, `unknown key "ur1"`) {
			t.Error(out)
		}
	})
}

func secretOf(d *appsv1.Deployment, volume string) string {
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.Name == volume && v.Secret != nil {
			return v.Secret.SecretName
		}
	}
	return ""
}

// start runs the command of a pod to its end, with its variables, and with its files where content says what they have. It returns
// what the command said.
func start(t *testing.T, program string, d *appsv1.Deployment, content func(mount, file string) string) string {
	t.Helper()
	dir := t.TempDir()
	here := strings.NewReplacer("/run/batchreset/", dir+"/")
	write := func(mount string, items []corev1.KeyToPath) {
		for _, item := range items {
			path := filepath.Join(dir, mount, item.Path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(here.Replace(content(mount, item.Path))+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		if v.Secret != nil {
			write(v.Name, v.Secret.Items)
		}
		if v.Projected != nil {
			for _, source := range v.Projected.Sources {
				write(v.Name, source.Secret.Items)
			}
		}
	}
	c := d.Spec.Template.Spec.Containers[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, c.Args...)
	cmd.Env = []string{"HOME=" + dir, "BATCHRESET_REDIS_PATIENCE=0"}
	for _, e := range c.Env {
		if e.ValueFrom == nil && e.Name != "BATCHRESET_REDIS_PATIENCE" {
			cmd.Env = append(cmd.Env, e.Name+"="+here.Replace(e.Value))
		}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err == nil {
		t.Errorf("%s ended without an error", d.Name)
	}
	return out.String()
}

func newProofKey(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), program, "proof", "new-key", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(key))
}

// newCertificate makes a certificate and its key.
func newCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})))
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", encoded)
}
