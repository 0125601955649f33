package tasks_test

import (
	"testing"

	"batchreset/tasks"
)

func TestQueuesAreNamedByTheirDriver(t *testing.T) {
	for _, row := range []struct{ queue, driver string }{
		{"reset-0", "default"}, {"reset-15", "default"}, {"reset-lab-0", "lab"}, {"reset-lab-2-3", "lab-2"},
	} {
		if driver, ok := tasks.DriverOf(row.queue); !ok || driver != row.driver {
			t.Errorf("%s is of %q, %t", row.queue, driver, ok)
		}
	}
	for _, queue := range []string{"", "reset-", "reset-lab", "reset-lab-", "reset-LAB-0", "reset--0", "webhooks", "default", "xreset-0", "reset-7lab-0"} {
		if driver, ok := tasks.DriverOf(queue); ok {
			t.Errorf("%q is of %q", queue, driver)
		}
	}
	if got := tasks.QueueOf("reset-7", "lab"); got != "reset-lab-7" {
		t.Error(got)
	}
	if a, b := tasks.QueueName("", 3), tasks.QueueName(tasks.DefaultDriver, 3); a != "reset-3" || a != b {
		t.Error(a, b)
	}
}
