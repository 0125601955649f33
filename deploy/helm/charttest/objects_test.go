package charttest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// component is what a pod is.
func component(d *appsv1.Deployment) string {
	return d.Spec.Template.Labels["app.kubernetes.io/component"]
}

// selected are the Deployments whose pods have the labels.
func selected(t *testing.T, r rendering, selector *metav1.LabelSelector) (found []*appsv1.Deployment) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all[*appsv1.Deployment](r) {
		if s.Matches(labels.Set(d.Spec.Template.Labels)) {
			found = append(found, d)
		}
	}
	return found
}

func portOf(c corev1.Container, name string) int32 {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return 0
}

func TestSelectors(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		for _, d := range all[*appsv1.Deployment](r) {
			if found := selected(t, r, d.Spec.Selector); len(found) != 1 || found[0] != d {
				t.Errorf("%s selects the pods of %d Deployments", d.Name, len(found))
			}
			for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
				if spread.LabelSelector == nil {
					t.Errorf("%s is spread without a selector", d.Name)
				} else if spread.LabelSelector.MatchLabels["a"] == "" && !slices.Contains(selected(t, r, spread.LabelSelector), d) {
					t.Errorf("%s is spread by %v", d.Name, spread.LabelSelector)
				}
			}
		}
		for _, s := range all[*corev1.Service](r) {
			found := selected(t, r, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
			if len(found) == 0 {
				t.Errorf("the Service %s selects nothing", s.Name)
			}
			for _, d := range found {
				for _, p := range s.Spec.Ports {
					port := portOf(d.Spec.Template.Spec.Containers[0], p.TargetPort.String())
					if port == 0 || p.Name == "ops" && p.Port != port {
						t.Errorf("the Service %s leads to port %v of %s, which has %d", s.Name, p.TargetPort.String(), d.Name, port)
					}
				}
				if component(d) == "admin" {
					t.Errorf("the Service %s leads to %s", s.Name, d.Name)
				}
			}
		}
		budgets := all[*policyv1.PodDisruptionBudget](r)
		for _, b := range budgets {
			if found := selected(t, r, b.Spec.Selector); len(found) != 1 || b.Spec.MaxUnavailable == nil {
				t.Errorf("the budget %s is of %d Deployments", b.Name, len(found))
			}
		}
		if want := len(workersOf(r)) + 1; len(budgets) != want {
			t.Errorf("%d budgets, want %d", len(budgets), want)
		}
	})
}

func workersOf(r rendering) (found []*appsv1.Deployment) {
	for _, d := range all[*appsv1.Deployment](r) {
		if component(d) == "worker" {
			found = append(found, d)
		}
	}
	return found
}

// TestPods is about what every pod of ours must have.
func TestPods(t *testing.T) {
	flags := readSettings(t)
	eachSet(t, func(t *testing.T, r rendering) {
		for _, d := range all[*appsv1.Deployment](r) {
			pod := d.Spec.Template.Spec
			if len(pod.Containers) != 1 {
				t.Fatal(d.Name, len(pod.Containers))
			}
			c := pod.Containers[0]
			checkSecurity(t, d.Name, pod, c)
			checkVolumes(t, d.Name, pod, c)
			if component(d) == "demo-redis" {
				continue
			}
			checkEnvironment(t, d, flags)
			checkProbes(t, r, d)
			checkGrace(t, d)
		}
	})
}

func checkSecurity(t *testing.T, name string, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	yes := func(b *bool) bool { return b != nil && *b }
	no := func(b *bool) bool { return b != nil && !*b }
	s, p := c.SecurityContext, pod.SecurityContext
	if !no(pod.AutomountServiceAccountToken) || p == nil || !yes(p.RunAsNonRoot) || p.RunAsUser == nil || *p.RunAsUser == 0 || p.SeccompProfile == nil || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: pod %+v", name, p)
	}
	if s == nil || !no(s.AllowPrivilegeEscalation) || !yes(s.ReadOnlyRootFilesystem) || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("%s: container %+v", name, s)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s has no bound of memory", name)
	}
}

func checkVolumes(t *testing.T, name string, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	volumes := map[string]int{}
	for _, v := range pod.Volumes {
		if _, twice := volumes[v.Name]; twice {
			t.Errorf("%s has the volume %s twice", name, v.Name)
		}
		volumes[v.Name] = 0
	}
	paths := map[string]bool{}
	for _, m := range c.VolumeMounts {
		if _, there := volumes[m.Name]; !there {
			t.Errorf("%s mounts %s, which is no volume", name, m.Name)
		}
		if paths[m.MountPath] {
			t.Errorf("%s mounts two volumes at %s", name, m.MountPath)
		}
		if m.SubPath != "" {
			t.Errorf("%s: a file that is mounted alone is never renewed: %s", name, m.MountPath)
		}
		paths[m.MountPath] = true
		volumes[m.Name]++
	}
	for v, n := range volumes {
		if n != 1 {
			t.Errorf("%s mounts the volume %s %d times", name, v, n)
		}
	}
	for _, e := range c.Env {
		if path := e.Value; strings.HasPrefix(path, "/run/batchreset/") && !paths[path[:strings.LastIndexByte(path, '/')]] {
			t.Errorf("%s: %s is %s, which nothing is mounted at", name, e.Name, path)
		}
	}
}

// checkEnvironment makes sure that each variable is one of a flag of the command.
func checkEnvironment(t *testing.T, d *appsv1.Deployment, flags []setting) {
	t.Helper()
	c := d.Spec.Template.Spec.Containers[0]
	if len(c.Args) != 1 || len(c.Command) > 0 {
		t.Fatal(c.Args, c.Command)
	}
	command := c.Args[0]
	seen := map[string]bool{}
	for _, e := range c.Env {
		if seen[e.Name] {
			t.Errorf("%s has %s twice", d.Name, e.Name)
		}
		seen[e.Name] = true
		flag := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(e.Name, "BATCHRESET_")), "_", "-")
		known := slices.ContainsFunc(flags, func(s setting) bool { return s.flag == flag && s.usedBy(command) })
		if strings.HasPrefix(e.Name, "BATCHRESET_") && !known && (component(d) != "admin" || flag != "server") {
			t.Errorf("%s: %s is no flag of %s", d.Name, e.Name, command)
		}
		if strings.Contains(e.Value, "e+") {
			t.Errorf("%s: %s is %s", d.Name, e.Name, e.Value)
		}
	}
	for _, name := range []string{"BATCHRESET_OPS_LISTEN", "BATCHRESET_REDIS_FILE"} {
		if !seen[name] {
			t.Errorf("%s has no %s", d.Name, name)
		}
	}
}

func checkProbes(t *testing.T, r rendering, d *appsv1.Deployment) {
	t.Helper()
	c := d.Spec.Template.Spec.Containers[0]
	env := environment(c)
	want := map[string]string{"api": ":9090", "worker": ":9091", "admin": "127.0.0.1:9090"}[component(d)]
	if env["BATCHRESET_OPS_LISTEN"] != want {
		t.Errorf("%s listens on %s, not on %s", d.Name, env["BATCHRESET_OPS_LISTEN"], want)
	}
	scheme := corev1.URISchemeHTTP
	if r.value("tls.existingSecret") != "" {
		scheme = corev1.URISchemeHTTPS
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		switch {
		case probe == nil:
			t.Errorf("%s: %s is not asked", d.Name, path)
		case component(d) == "admin": // on loopback, and never TLS
			if url := "http://127.0.0.1:9090" + path; probe.Exec == nil || !slices.Contains(probe.Exec.Command, url) || len(c.Ports) > 0 || env["BATCHRESET_TLS_CERT"] != "" {
				t.Errorf("%s: %+v", d.Name, probe)
			}
		case probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Scheme != scheme || portOf(c, probe.HTTPGet.Port.String()) == 0:
			t.Errorf("%s: %+v", d.Name, probe.HTTPGet)
		}
	}
	if (env["BATCHRESET_TLS_CERT"] != "") != (scheme == corev1.URISchemeHTTPS && component(d) != "admin") {
		t.Errorf("%s: certificate %q", d.Name, env["BATCHRESET_TLS_CERT"])
	}
	patience := 30 * time.Second
	if p, err := time.ParseDuration(env["BATCHRESET_REDIS_PATIENCE"]); err == nil {
		patience = p
	}
	if s := c.StartupProbe; s == nil || time.Duration(s.PeriodSeconds*s.FailureThreshold)*time.Second < patience+20*time.Second {
		t.Errorf("%s is killed while it waits for Redis: %+v", d.Name, s)
	}
}

// checkGrace is the arithmetic of the runbook: "Stopping a worker", "Stopping an api".
func checkGrace(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	env := environment(pod.Containers[0])
	variable, more := "BATCHRESET_SHUTDOWN_TIMEOUT", 40*time.Second
	if component(d) != "worker" {
		variable, more = "BATCHRESET_DRAIN_DELAY", 15*time.Second
	}
	takes, err := time.ParseDuration(env[variable])
	if err != nil {
		t.Fatal(d.Name, err)
	}
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace != takes+more {
		t.Errorf("%s has %s to stop, want %s and %s", d.Name, grace, takes, more)
	}
}

func TestGracePeriods(t *testing.T) {
	for text, want := range map[string]int64{
		`api: {config: {drain-delay: 0s}}`:                                                                                 15,
		`api: {config: {drain-delay: 1m30s}}`:                                                                              105,
		`api: {config: {drain-delay: null}}`:                                                                               20,
		`workers: {default: {config: {shutdown-timeout: 1h10m0s}}}`:                                                        4240,
		`workers: {default: {config: {shutdown-timeout: 90s, attempt-timeout: 1h}}}`:                                       130,
		`workers: {default: {config: {shutdown-timeout: "0", attempt-timeout: 1h1s}}}`:                                     3641,
		`workers: {default: {config: {attempt-timeout: null}}}`:                                                            640,
		`workers: {default: {}}`:                                                                                           640,
		`workers: {default: {config: {attempt-timeout: 008m}}}`:                                                            520,
		`workers: {default: {drivers: [{name: a, type: simulator, attempt_timeout: 2h}, {name: b, type: simulator}]}}`:     7240,
		`workers: {default: {config: {shutdown-timeout: 5m}, drivers: [{name: a, type: simulator, attempt_timeout: 2h}]}}`: 340,
		`workers: {default: {config: {attempt-timeout: 30m}, drivers: [{name: a, type: simulator, attempt_timeout: 1m}]}}`: 1840,
	} {
		values := of(t, "redis: {existingSecret: r}\n"+text)
		name := "reset-batchreset-worker-default"
		if strings.HasPrefix(text, "api") {
			name = "reset-batchreset-api"
		}
		if got := *one[*appsv1.Deployment](t, render(t, values), name).Spec.Template.Spec.TerminationGracePeriodSeconds; got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestSecrets makes sure that each Secret and ConfigMap that a pod needs is made by the chart, or is one that the values name, and that
// the chart says which it expects.
func TestSecrets(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		made := map[string]map[string]bool{}
		for _, s := range all[*corev1.Secret](r) {
			made[s.Name] = map[string]bool{}
			for key := range s.StringData {
				made[s.Name][key] = true
			}
		}
		named := map[string]bool{}
		eachText(r.values, func(text string) { named[text] = true })
		check := func(d *appsv1.Deployment, secret string, items []corev1.KeyToPath) {
			keys, ours := made[secret]
			for _, item := range items {
				if ours && !keys[item.Key] || !ours && !named[item.Key] {
					t.Errorf("%s needs the key %s of %s", d.Name, item.Key, secret)
				}
			}
			if !ours && !named[secret] && !strings.Contains(r.notes, "create secret generic "+secret+" ") {
				t.Errorf("%s needs the Secret %s, and nothing says so", d.Name, secret)
			}
			if len(items) == 0 {
				t.Errorf("%s gets all of %s", d.Name, secret)
			}
		}
		for _, d := range all[*appsv1.Deployment](r) {
			for _, v := range d.Spec.Template.Spec.Volumes {
				if v.Secret != nil {
					check(d, v.Secret.SecretName, v.Secret.Items)
				}
				if v.Projected != nil {
					for _, source := range v.Projected.Sources {
						check(d, source.Secret.Name, source.Secret.Items)
					}
				}
			}
		}
	})
}

// eachText calls do with each text in values.
func eachText(values any, do func(string)) {
	switch v := values.(type) {
	case string:
		do(v)
	case map[string]any:
		for _, part := range v {
			eachText(part, do)
		}
	case []any:
		for _, part := range v {
			eachText(part, do)
		}
	}
}

// TestEachProcessHasItsOwnRedisUser keeps the rights of operators out of pods that others reach.
func TestEachProcessHasItsOwnRedisUser(t *testing.T) {
	deployments := all[*appsv1.Deployment](renderSet(t, "minimal"))
	if len(deployments) != 3 {
		t.Errorf("there are %d Deployments, want api, worker and admin", len(deployments))
	}
	for _, d := range deployments {
		want := map[string]string{"api": "api-url", "worker": "worker-url", "admin": "operator-url"}[component(d)]
		for _, v := range d.Spec.Template.Spec.Volumes {
			if v.Name == "redis" && v.Secret.Items[0].Key != want {
				t.Errorf("%s has %s", d.Name, v.Secret.Items[0].Key)
			}
		}
	}
}

func TestIngress(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		for _, i := range all[*networkingv1.Ingress](r) {
			for _, rule := range i.Spec.Rules {
				backend := rule.HTTP.Paths[0].Backend.Service
				service := one[*corev1.Service](t, r, backend.Name)
				if !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == backend.Port.Name }) {
					t.Errorf("%s leads to port %s of %s", i.Name, backend.Port.Name, service.Name)
				}
			}
			a := i.Annotations
			const nginx = "nginx.ingress.kubernetes.io/"
			if timeout := a[nginx+"proxy-read-timeout"]; a[nginx+"proxy-buffering"] != "off" || timeout != "3600" && timeout != "600" || a[nginx+"proxy-body-size"] != "9m" {
				t.Errorf("%s: %v", i.Name, a)
			}
			if (a[nginx+"backend-protocol"] == "HTTPS") != (r.value("tls.existingSecret") != "") {
				t.Errorf("%s: %v", i.Name, a)
			}
		}
	})
	if i := all[*networkingv1.Ingress](render(t, of(t, "{redis: {existingSecret: r}, ingress: {enabled: true}}"))); len(i) != 1 || i[0].Spec.Rules[0].Host != "" {
		t.Error(i)
	}
	var paths []string
	for _, name := range []string{"production", "ingress"} {
		for _, i := range all[*networkingv1.Ingress](renderSet(t, name)) {
			paths = append(paths, i.Spec.Rules[0].Host+i.Spec.Rules[0].HTTP.Paths[0].Path)
		}
	}
	slices.Sort(paths)
	if want := []string{"api.example/reset", "ops.api.example/", "reset.example/", "reset.example/ops"}; !slices.Equal(paths, want) {
		t.Errorf("%v, want %v", paths, want)
	}
}

func TestMonitoring(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		monitors := all[*monitoring.ServiceMonitor](r)
		if on := r.value("serviceMonitor.enabled") == true; on != (len(monitors) == 2) {
			t.Fatal(len(monitors))
		}
		for _, m := range monitors {
			selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
			if err != nil {
				t.Fatal(err)
			}
			var found []*corev1.Service
			for _, s := range all[*corev1.Service](r) {
				if selector.Matches(labels.Set(s.Labels)) {
					found = append(found, s)
				}
			}
			e := m.Spec.Endpoints[0]
			if len(found) != 1 || found[0].Spec.Ports[0].Name != e.Port || e.Path != "/metrics" {
				t.Errorf("%s: %d Services, %+v", m.Name, len(found), e)
			}
			// The alerts go by the names of the jobs.
			job := "batchreset-" + m.Labels["app.kubernetes.io/component"]
			if c := e.RelabelConfigs; len(c) != 1 || c[0].TargetLabel != "job" || *c[0].Replacement != job {
				t.Errorf("%s: %+v", m.Name, c)
			}
			tls := r.value("tls.existingSecret") != ""
			if tls != (e.TLSConfig != nil) || tls != (e.Scheme != nil && strings.EqualFold(e.Scheme.String(), "https")) {
				t.Errorf("%s: %v %+v", m.Name, e.Scheme, e.TLSConfig)
			}
		}
	})
	rules := one[*monitoring.PrometheusRule](t, renderSet(t, "production"), "reset-batchreset")
	alerts := rules.Spec.Groups[0].Rules
	if len(alerts) < 15 {
		t.Errorf("%d alerts", len(alerts))
	}
	for _, a := range alerts {
		if !strings.HasPrefix(a.Annotations["runbook_url"], "https://git.example/batchreset/blob/main/deploy/RUNBOOK.md#") {
			t.Errorf("%s: %s", a.Alert, a.Annotations["runbook_url"])
		}
	}
}

// peer is somebody who wants to connect to a pod, or to be connected to.
type peer struct{ namespace, pod labels.Set }

// matches reports whether a peer of a policy is this one. Addresses are nobody of ours.
func (p peer) matches(t *testing.T, peers []networkingv1.NetworkPolicyPeer) bool {
	t.Helper()
	is := func(s *metav1.LabelSelector, set labels.Set) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return selector.Matches(set)
	}
	return len(peers) == 0 || slices.ContainsFunc(peers, func(q networkingv1.NetworkPolicyPeer) bool {
		if q.IPBlock != nil || q.NamespaceSelector == nil && p.namespace != nil {
			return false
		}
		return (q.NamespaceSelector == nil || is(q.NamespaceSelector, p.namespace)) && (q.PodSelector == nil || is(q.PodSelector, p.pod))
	})
}

func hasPort(ports []networkingv1.NetworkPolicyPort, want intstr.IntOrString) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && *p.Port == want })
}

func letsIn(t *testing.T, n *networkingv1.NetworkPolicy, from peer, port string) bool {
	t.Helper()
	return slices.ContainsFunc(n.Spec.Ingress, func(r networkingv1.NetworkPolicyIngressRule) bool {
		return hasPort(r.Ports, intstr.FromString(port)) && from.matches(t, r.From)
	})
}

func letsOut(n *networkingv1.NetworkPolicy, port int32) bool {
	return slices.ContainsFunc(n.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
		return hasPort(r.Ports, intstr.FromInt32(port))
	})
}

func in(name string) peer {
	return peer{namespace: labels.Set{"kubernetes.io/metadata.name": name}}
}

func TestNetworkPolicies(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		byComponent := map[string]*networkingv1.NetworkPolicy{}
		for _, n := range all[*networkingv1.NetworkPolicy](r) {
			found := selected(t, r, &n.Spec.PodSelector)
			if len(found) != 1 || len(n.Spec.PolicyTypes) != 2 {
				t.Fatalf("%s is of %d Deployments, %v", n.Name, len(found), n.Spec.PolicyTypes)
			}
			byComponent[component(found[0])] = n
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					if portOf(found[0].Spec.Template.Spec.Containers[0], p.Port.String()) == 0 {
						t.Errorf("%s is about port %s", n.Name, p.Port)
					}
				}
			}
		}
		if r.value("networkPolicy.enabled") != true {
			return
		}
		for name, n := range byComponent {
			if !letsOut(n, 53) || !letsOut(n, 6379) || letsOut(n, 443) != (r.value("networkPolicy.https") == true) {
				t.Errorf("%s: %+v", name, n.Spec.Egress)
			}
		}
		api, worker := byComponent["api"], byComponent["worker"]
		if api == nil || worker == nil || (byComponent["admin"] != nil) != (r.value("admin.enabled") == true) {
			t.Fatal(slices.Collect(maps.Keys(byComponent)))
		}
		for _, row := range []struct {
			to   *networkingv1.NetworkPolicy
			from string
			port string
			want bool
		}{
			{api, "ingress-nginx", "api", true},
			{api, "ingress-nginx", "ops", r.value("ingress.ops.enabled") == true},
			{api, "monitoring", "ops", r.value("serviceMonitor.enabled") == true},
			{api, "keda", "ops", r.value("keda.enabled") == true},
			{api, "somebody", "ops", false},
			{api, "somebody", "api", len(r.value("networkPolicy.apiFrom").([]any)) == 0},
			{worker, "monitoring", "ops", r.value("serviceMonitor.enabled") == true},
			{worker, "keda", "ops", false},
			{worker, "somebody", "ops", false},
		} {
			if got := letsIn(t, row.to, in(row.from), row.port); got != row.want {
				t.Errorf("%s, from %s to %s: %t", row.to.Name, row.from, row.port, got)
			}
		}
		if admin := byComponent["admin"]; admin != nil && len(admin.Spec.Ingress) > 0 {
			t.Error("others reach admin")
		}
	})
	t.Run("the demo's Redis", func(t *testing.T) {
		r := renderSet(t, "demo")
		n := one[*networkingv1.NetworkPolicy](t, r, "reset-batchreset-demo-redis")
		for _, d := range all[*appsv1.Deployment](r) {
			if !letsIn(t, n, peer{pod: d.Spec.Template.Labels}, "redis") {
				t.Errorf("%s does not reach it", d.Name)
			}
		}
		if letsIn(t, n, in("somebody"), "redis") || letsIn(t, n, peer{pod: labels.Set{"a": "b"}}, "redis") || letsOut(n, 53) {
			t.Errorf("%+v", n.Spec)
		}
	})
	t.Run("what is let through to control planes", func(t *testing.T) {
		r := renderSet(t, "networkpolicy")
		for name, want := range map[string]bool{"worker-default": true, "api": false} {
			n := one[*networkingv1.NetworkPolicy](t, r, "reset-batchreset-"+name)
			if letsOut(n, 5555) != want || !letsOut(n, 4318) {
				t.Errorf("%s: %+v", name, n.Spec.Egress)
			}
		}
	})
}

func TestADemoSaysSo(t *testing.T) {
	r := renderSet(t, "demo")
	if !strings.Contains(r.notes, "DEMONSTRATION") {
		t.Error(r.notes)
	}
	redis := one[*appsv1.Deployment](t, r, "reset-batchreset-demo-redis")
	if redis.Annotations["batchreset/demo"] == "" || redis.Spec.Template.Annotations["batchreset/demo"] == "" {
		t.Error(redis.Annotations)
	}
	if args := strings.Join(redis.Spec.Template.Spec.Containers[0].Args, " "); !strings.Contains(args, "--maxmemory-policy noeviction") {
		t.Errorf("it may forget jobs while it runs: %s", args)
	}
	for _, d := range workersOf(r) {
		if env := environment(d.Spec.Template.Spec.Containers[0]); env["BATCHRESET_DRIVER"] != "simulator" || env["BATCHRESET_DRIVERS"] != "" {
			t.Errorf("%s: %v", d.Name, env)
		}
	}
	for name := range sets(t) {
		if r := renderSet(t, name); name != "demo" && (strings.Contains(r.notes, "DEMONSTRATION") || slices.ContainsFunc(r.documents, func(d document) bool { return strings.Contains(d.Text, "demo") })) {
			t.Errorf("%s has something of the demo", name)
		}
	}
}

func TestNotesLeadToAReset(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		at := 0
		steps := []string{"rollout status", "operator add alice --role admin", "fleet set phone-1 --tenant acme", "DESTROYS THE DATA", "token add --tenant acme", "submit --token"}
		if r.value("admin.enabled") != true {
			steps[1] = "Redis user 'operator'"
		}
		for _, step := range steps {
			next := strings.Index(r.notes[at:], step)
			if next < 0 {
				t.Fatalf("the notes lack %q, or it comes too early:\n%s", step, r.notes)
			}
			at += next
		}
	})
}

// TestAdminIsForItself: its commands call its own API, which no certificate and no other caller is for.
func TestAdminIsForItself(t *testing.T) {
	r := renderSet(t, "production")
	env := environment(one[*appsv1.Deployment](t, r, "reset-batchreset-admin").Spec.Template.Spec.Containers[0])
	if env["BATCHRESET_SERVER"] != "http://"+env["BATCHRESET_LISTEN"] || !strings.HasPrefix(env["BATCHRESET_LISTEN"], "127.0.0.1:") {
		t.Errorf("its commands call %s, and it listens on %s", env["BATCHRESET_SERVER"], env["BATCHRESET_LISTEN"])
	}
	for _, name := range []string{"CALLERS_FILE", "TLS_CERT", "TLS_CLIENT_CA"} {
		if value, there := env["BATCHRESET_"+name]; there {
			t.Errorf("%s is %s", name, value)
		}
	}
	if env["BATCHRESET_MAX_BACKLOG"] != "5000000" {
		t.Error("it does not have what api has")
	}
	r = render(t, of(t, "{redis: {existingSecret: r}, api: {config: {job-retention: 1h, full-at: 80}}, admin: {config: {full-at: 90}}}"))
	for name, want := range map[string]string{"api": "80", "admin": "90"} {
		env := environment(one[*appsv1.Deployment](t, r, "reset-batchreset-"+name).Spec.Template.Spec.Containers[0])
		if env["BATCHRESET_FULL_AT"] != want || env["BATCHRESET_JOB_RETENTION"] != "1h" {
			t.Errorf("%s: %v", name, env)
		}
	}
}

func TestNotesWarn(t *testing.T) {
	for text, want := range map[string]string{
		`workers: {default: null}`:                         "NO WORKER GROUP",
		`workers: {default: {enabled: false}}`:             "NO WORKER GROUP",
		`ingress: {enabled: true}`:                         "All callers count as one address",
		`secretKey: {existingSecret: ""}`:                  "Redis as they are",
		`tls: {existingSecret: ""}`:                        "Nothing here speaks TLS",
		`workers: {default: {driversSecret: {name: own}}}`: "create secret generic own ",
	} {
		if r := render(t, of(t, "redis: {existingSecret: r}\n"+text)); !strings.Contains(r.notes, want) {
			t.Errorf("%s: the notes lack %q:\n%s", text, want, r.notes)
		}
	}
	if r := renderSet(t, "production"); strings.Contains(r.notes, "NO WORKER") || strings.Contains(r.notes, "one address") || strings.Contains(r.notes, "as they are") || strings.Contains(r.notes, "Nothing here") {
		t.Error(r.notes)
	}
}

func TestGroups(t *testing.T) {
	var found []string
	for _, d := range workersOf(renderSet(t, "groups")) {
		c := d.Spec.Template.Spec.Containers[0]
		env := environment(c)
		found = append(found, strings.Join([]string{d.Name, env["BATCHRESET_CONCURRENCY"], env["BATCHRESET_ATTEMPT_TIMEOUT"], env["BATCHRESET_DRIVER"] + env["BATCHRESET_DRIVERS"], c.Image, d.Spec.Template.Labels["team"]}, " "))
	}
	slices.Sort(found)
	want := []string{
		"reset-batchreset-worker-cloud 100 20m /run/batchreset/drivers/drivers.yaml batchreset:latest phones",
		"reset-batchreset-worker-lab 10 20m simulator batchreset:latest phones",
		"reset-batchreset-worker-rack-7 100 20m /run/batchreset/drivers/drivers.yaml batchreset:v1.2.2 phones",
	}
	if !slices.Equal(found, want) {
		t.Errorf("%s", strings.Join(found, "\n"))
	}
}

// TestAnotherDriverStartsThePodsAnew: a worker reads its drivers at its start.
func TestAnotherDriverStartsThePodsAnew(t *testing.T) {
	annotations := func(url string) string {
		values := of(t, "redis: {existingSecret: r}\nworkers: {default: {drivers: [{name: default, type: http, url: "+url+"}]}}")
		return one[*appsv1.Deployment](t, render(t, values), "reset-batchreset-worker-default").Spec.Template.Annotations["batchreset/drivers-sha256"]
	}
	if a, b := annotations("x"), annotations("y"); a == b || a == "" || a != annotations("x") {
		t.Error(a, b)
	}
}

// TestLargeNumbers: Helm has some numbers as floats, which must not become 5e+06.
func TestLargeNumbers(t *testing.T) {
	values := of(t, `{redis: {existingSecret: r}, workers: {default: {config: {lanes: 5000000}, drivers: [{name: default, type: simulator, seed: 12345678901}]}}}`)
	r := render(t, values)
	c := one[*appsv1.Deployment](t, r, "reset-batchreset-worker-default").Spec.Template.Spec.Containers[0]
	if got := environment(c)["BATCHRESET_LANES"]; got != "5000000" {
		t.Errorf("lanes: %s", got)
	}
	if got := one[*corev1.Secret](t, r, "reset-batchreset-drivers-default").StringData["drivers.yaml"]; !strings.Contains(got, "seed: 12345678901\n") {
		t.Errorf("%s", got)
	}
}
