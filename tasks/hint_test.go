package tasks_test

import (
	"strings"
	"testing"

	"batchreset/tasks"
)

func TestDidYouMean(t *testing.T) {
	known := []string{"instance_ids", "dry_run", "max_failures", "not_before", "reason", "labels", "id"}
	for name, want := range map[string]string{
		"dryRun": "dry_run", "DRY_RUN": "dry_run", "dry-run": "dry_run", "dryrun": "dry_run", "notBefore": "not_before",
		"instance_id": "instance_ids", "instanceIds": "instance_ids", "INSTANCE_IDS": "instance_ids", "instances": "instance_ids",
		"label": "labels", "reson": "reason", "maxFailure": "max_failures", "not_befroe": "not_before",
		"": "", "x": "", "force": "", "task": "", "no": "", "_": "", strings.Repeat("dry_run", 20): "", strings.Repeat("r", 1<<16): "",
	} {
		if want != "" {
			want = `; did you mean "` + want + `"?`
		}
		if got := tasks.DidYouMean(name, known); got != want {
			t.Errorf("%.40q: %q, want %q", name, got, want)
		}
	}
}
