package composetest

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"
)

const root = "../.."

// load reads docker-compose.yml as Docker Compose does, with these profiles. Keys that there are not are errors.
func load(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithProfiles(profiles), cli.WithName("batchreset"), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestWhichServicesAProfileHas(t *testing.T) {
	for profiles, want := range map[string]string{
		"":                            "api redis worker",
		"observability":               "api grafana prometheus redis worker",
		"docker-phones":               "api docker-phone docker-proxy docker-worker redis worker",
		"cli":                         "api cli redis worker",
		"observability docker-phones": "api docker-phone docker-proxy docker-worker grafana prometheus redis worker",
	} {
		got := load(t, strings.Fields(profiles)...).ServiceNames()
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q has the services %v, want %s", profiles, got, want)
		}
	}
}

// everything is all that there is.
func everything(t *testing.T) *types.Project {
	t.Helper()
	return load(t, "*")
}

// ours are the services that run our program.
func ours(project *types.Project) (services []types.ServiceConfig) {
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		if s := project.Services[name]; s.Image == "batchreset:latest" {
			services = append(services, s)
		}
	}
	return services
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// secretsMade runs make-secrets in a copy of deploy/redis, and returns where they are.
func secretsMade(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, mode := range map[string]os.FileMode{"make-secrets": 0o700, "users.acl": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, "deploy/redis", name)), mode); err != nil {
			t.Fatal(err)
		}
	}
	makeSecrets(t, dir)
	return filepath.Join(dir, "secrets")
}

func makeSecrets(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "make-secrets")).CombinedOutput(); err != nil {
		t.Fatalf("make-secrets: %v\n%s", err, out)
	}
}

func TestWhoHasSecretsGetsThoseThatAreNew(t *testing.T) {
	secrets := secretsMade(t)
	before := map[string]string{}
	entries, err := os.ReadDir(secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(secrets, e.Name()))
		if err != nil || len(b) < 20 {
			t.Fatalf("%s: %q, %v", e.Name(), b, err)
		}
		before[e.Name()] = string(b)
	}
	if err := os.Remove(filepath.Join(secrets, "grafana-password")); err != nil {
		t.Fatal(err)
	}
	makeSecrets(t, filepath.Dir(secrets))
	for name, content := range before {
		b, err := os.ReadFile(filepath.Join(secrets, name))
		if same := string(b) == content; err != nil || same == (name == "grafana-password") {
			t.Errorf("%s: unchanged %v, %v", name, same, err)
		}
	}
}

// TestEveryFileIsThere looks at what is mounted, at secrets, and at what images are built of.
func TestEveryFileIsThere(t *testing.T) {
	project, made := everything(t), secretsMade(t)
	for name, secret := range project.Secrets {
		if _, err := os.Stat(filepath.Join(made, filepath.Base(secret.File))); err != nil {
			t.Errorf("the secret %s is not made by make-secrets: %v", name, err)
		}
		if want, _ := filepath.Abs(filepath.Join(root, "deploy/redis/secrets")); filepath.Dir(secret.File) != want {
			t.Errorf("the secret %s is %s, which make-secrets does not make", name, secret.File)
		}
	}
	used := map[string]bool{}
	for name, s := range project.Services {
		for _, secret := range s.Secrets {
			used[secret.Source] = true
			if _, found := project.Secrets[secret.Source]; !found {
				t.Errorf("%s has the secret %s, which there is not", name, secret.Source)
			}
		}
		for _, v := range s.Volumes {
			switch {
			case v.Type == types.VolumeTypeVolume:
				if _, found := project.Volumes[v.Source]; !found {
					t.Errorf("%s has the volume %s, which there is not", name, v.Source)
				}
			case v.Source == "/var/run/docker.sock" && name == "docker-proxy":
				if bool(v.Bind.CreateHostPath) {
					t.Error("Docker would make a folder where the engine's socket should be")
				}
			default:
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s mounts %s: %v, read-only %v", name, v.Source, err, v.ReadOnly)
				}
			}
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, cmpOr(s.Build.Dockerfile, "Dockerfile"))); err != nil {
				t.Errorf("%s is built of nothing: %v", name, err)
			}
		}
	}
	for name := range project.Secrets {
		if !used[name] {
			t.Errorf("nobody has the secret %s", name)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestNothingIsOpenThatNeedNotBe looks at ports, privileges and networks.
func TestNothingIsOpenThatNeedNotBe(t *testing.T) {
	project := everything(t)
	ports := map[string]string{}
	for name, s := range project.Services {
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s at %q", name, p.Published, p.HostIP)
			}
			if other, taken := ports[p.Published]; taken {
				t.Errorf("%s and %s publish %s", name, other, p.Published)
			}
			ports[p.Published] = name + ":" + strconv.Itoa(int(p.Target))
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged {
			t.Errorf("%s: read-only %v, capabilities dropped %v, security %v, privileged %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt, s.Privileged)
		}
		if len(s.CapAdd) > 0 && (name != "docker-proxy" || !slices.Equal(s.CapAdd, []string{"SETGID", "SETUID"})) {
			t.Errorf("%s has the capabilities %v", name, s.CapAdd)
		}
		for _, v := range s.Volumes {
			if strings.HasSuffix(v.Source, "docker.sock") && name != "docker-proxy" {
				t.Errorf("%s has the engine's socket", name)
			}
		}
		_, redis := s.Networks["redis"]
		if redis != slices.Contains([]string{"redis", "api", "worker", "docker-worker", "cli"}, name) {
			t.Errorf("%s is in Redis's network: %v", name, redis)
		}
	}
	want := map[string]string{"8080": "api:8080", "9090": "api:9090", "9091": "prometheus:9090", "3000": "grafana:3000"}
	if !maps.Equal(ports, want) {
		t.Errorf("published are %v, want %v", ports, want)
	}
	if !project.Networks["redis"].Internal {
		t.Error("Redis's network leads outside")
	}
	for _, name := range []string{"docker-proxy", "docker-phone"} {
		if mode := project.Services[name].NetworkMode; mode != "none" {
			t.Errorf("%s has the network mode %q", name, mode)
		}
	}
}

func TestImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?$`)
	services := everything(t).Services
	built := map[string]string{}
	for name, s := range services {
		if other := built[s.Image]; s.Build != nil && other != "" {
			t.Errorf("%s and %s build the image %s, and take its name from each other: 'up' would start one of them anew", name, other, s.Image)
		}
		if s.Build != nil {
			built[s.Image] = name
		}
	}
	for name, s := range services {
		ours := built[s.Image] != ""
		if !ours && s.Image != "redis:7" && !pinned.MatchString(s.Image) { // Redis gets its repairs
			t.Errorf("%s has the image %s", name, s.Image)
		}
		if ours && s.Build == nil && s.PullPolicy != types.PullPolicyNever {
			t.Errorf("Docker would look for the image of %s elsewhere", name)
		}
		if s.Build != nil && !strings.HasPrefix(s.Image, "batchreset") {
			t.Errorf("%s is built as %s", name, s.Image)
		}
	}
	from := regexp.MustCompile(`(?m)^FROM (\S+)`)
	for _, found := range from.FindAllStringSubmatch(read(t, "deploy/docker-phones/phone/Dockerfile"), -1) {
		if !pinned.MatchString(found[1]) {
			t.Errorf("the phone is from %s", found[1])
		}
	}
}

// TestEverybodyIsLookedAt wants a health check of all but what ends by itself and what the image checks.
func TestEverybodyIsLookedAt(t *testing.T) {
	project := everything(t)
	if !strings.Contains(read(t, "deploy/Dockerfile"), `HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/batchreset", "healthcheck"]`) {
		t.Error("our image checks nothing")
	}
	for name, s := range project.Services {
		if s.HealthCheck == nil && s.Image != "batchreset:latest" && name != "docker-phone" { // the driver itself looks at phones
			t.Errorf("%s has no health check", name)
		}
		if want := types.RestartPolicyUnlessStopped; s.Restart != want && name != "cli" {
			t.Errorf("%s is restarted %q", name, s.Restart)
		}
		for other, how := range s.DependsOn {
			if project.Services[other].HealthCheck == nil || how.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s waits for %s: %v", name, other, how)
			}
		}
	}
}

// settings are the environment variables of SETTINGS.md, by command.
func settings(t *testing.T) map[string]string {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `--[a-z0-9-]+` \\| `(BATCHRESET_[A-Z0-9_]+)` \\| ([^|]*) \\|")
	used := map[string]string{}
	for _, found := range row.FindAllStringSubmatch(read(t, "deploy/SETTINGS.md"), -1) {
		used[found[1]] = found[2]
	}
	if len(used) < 50 {
		t.Fatalf("SETTINGS.md has %d settings", len(used))
	}
	return used
}

func TestEveryVariableIsASetting(t *testing.T) {
	known := settings(t)
	for _, s := range ours(everything(t)) {
		for name := range s.Environment {
			if s.Name == "cli" && name == "BATCHRESET_SERVER" { // of callers' commands
				continue
			}
			if used, found := known[name]; !found || s.Name != "cli" && !strings.Contains(used, s.Command[0]) {
				t.Errorf("%s has %s, which is no setting of %v: %q", s.Name, name, s.Command, used)
			}
		}
	}
}

// TestEveryWorkerIsScraped compares the scrape configuration with the services.
func TestEveryWorkerIsScraped(t *testing.T) {
	project := everything(t)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("this test needs promtool: run .ci/setup")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", filepath.Join(root, "deploy/prometheus/compose.yaml")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName      string `yaml:"job_name"`
			DNSSDConfigs []struct {
				Names []string
				Type  string
				Port  int
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/compose.yaml")), &config); err != nil {
		t.Fatal(err)
	}
	scraped := map[string]bool{}
	for _, c := range config.ScrapeConfigs {
		for _, d := range c.DNSSDConfigs {
			for _, name := range d.Names {
				scraped[c.JobName+" "+name+":"+strconv.Itoa(d.Port)] = d.Type == "A"
			}
		}
	}
	want := map[string]bool{"batchreset-api api:9090": true, "batchreset-worker worker:9090": true}
	if !maps.Equal(scraped, want) {
		t.Errorf("scraped are %v, want %v", scraped, want)
	}
	for _, s := range ours(project) {
		if s.Name == "cli" {
			continue
		}
		names := []string{s.Name}
		if n := s.Networks["default"]; n != nil {
			names = append(names, n.Aliases...)
		}
		if listen := *s.Environment["BATCHRESET_OPS_LISTEN"]; listen != ":9090" || !slices.Contains(names, s.Command[0]) {
			t.Errorf("%s listens on %s and is called %v", s.Name, listen, names)
		}
	}
	mounted(t, project.Services["prometheus"], "/etc/prometheus/prometheus.yaml", "/etc/prometheus/"+config.RuleFiles[0])
	if !slices.Contains(project.Services["prometheus"].Command, "--config.file=/etc/prometheus/prometheus.yaml") {
		t.Errorf("Prometheus is started as %v", project.Services["prometheus"].Command)
	}
}

// mounted wants files in a container.
func mounted(t *testing.T, s types.ServiceConfig, targets ...string) {
	t.Helper()
	for _, target := range targets {
		if source(s, target) == "" {
			t.Errorf("%s has no %s", s.Name, target)
		}
	}
}

// source is what a container has at a path.
func source(s types.ServiceConfig, target string) string {
	for _, v := range s.Volumes {
		if rest, below := strings.CutPrefix(target, v.Target); below && (rest == "" || rest[0] == '/') {
			return v.Source + rest
		}
	}
	return ""
}

// TestGrafanaHasOurDashboard follows the paths of its provisioning to files that are there.
func TestGrafanaHasOurDashboard(t *testing.T) {
	project := everything(t)
	grafana := project.Services["grafana"]
	var dashboards struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	var sources struct {
		Datasources []struct {
			Type, URL string
			IsDefault bool `yaml:"isDefault"`
		}
	}
	for path, into := range map[string]any{"dashboards/batchreset.yaml": &dashboards, "datasources/prometheus.yaml": &sources} {
		file := source(grafana, "/etc/grafana/provisioning/"+path)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	if len(dashboards.Providers) != 1 || len(sources.Datasources) != 1 {
		t.Fatalf("%+v, %+v", dashboards, sources)
	}
	dashboard := source(grafana, dashboards.Providers[0].Options.Path+"/batchreset.json")
	b, err := os.ReadFile(dashboard)
	if err != nil || !json.Valid(b) {
		t.Errorf("the dashboard %q: %v", dashboard, err)
	}
	if home := *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]; source(grafana, home) != dashboard {
		t.Errorf("it begins with %s", home)
	}
	if d := sources.Datasources[0]; d.Type != "prometheus" || d.URL != "http://prometheus:9090" || !d.IsDefault {
		t.Errorf("it asks %+v", d)
	}
	if file := *grafana.Environment["GF_SECURITY_ADMIN_PASSWORD__FILE"]; file != "/run/secrets/"+grafana.Secrets[0].Source {
		t.Errorf("the password is from %s", file)
	}
}
