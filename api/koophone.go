package api

import (
	"fmt"

	"batchreset/tasks"
)

// KooPhone calls our job a task and our item a job. This file is the only place
// that speaks that dialect.

// accepted is the data of a batch-reset answer.
type accepted struct {
	TaskID  string   `json:"task_id"`
	CmdJobs []cmdJob `json:"cmd_jobs"`
}

type cmdJob struct {
	InstanceID string `json:"instance_id"`
	JobID      string `json:"job_id"`
}

func newAccepted(job tasks.Job) accepted {
	a := accepted{TaskID: job.ID}
	for _, it := range job.Items {
		a.CmdJobs = append(a.CmdJobs, cmdJob{InstanceID: it.InstanceID, JobID: it.ID})
	}
	return a
}

// taskStatus is the data of a task query.
type taskStatus struct {
	Jobs []taskJob `json:"jobs"`
}

type taskJob struct {
	JobID      string     `json:"job_id"`
	Status     int        `json:"status"` // 1 not final, 2 succeeded, -1 failed, unknown or cancelled
	Code       tasks.Code `json:"error_code"`
	Message    string     `json:"error_msg"`
	ExecuteMsg string     `json:"execute_msg"` // at most tasks.MaxMessage bytes, as stored
}

func newTaskStatus(job tasks.Job) taskStatus {
	var t taskStatus
	for _, it := range job.Items {
		j := taskJob{JobID: it.ID, Status: 1}
		switch {
		case it.State == tasks.ItemSucceeded:
			j.Status = 2
			j.ExecuteMsg = fmt.Sprintf("reset in %s", it.FinishedAt.Sub(it.StartedAt.Time))
		case it.State.Final():
			j.Status = -1
			j.Code, j.Message, j.ExecuteMsg = it.Code, it.Message, it.Message
		}
		t.Jobs = append(t.Jobs, j)
	}
	return t
}

// jobsPage is the data of a job list, which is ours and not KooPhone's.
type jobsPage struct {
	Jobs       []tasks.Job `json:"jobs"`
	NextCursor string      `json:"next_cursor,omitempty"`
	// Missing are the named jobs that do not exist, or are another tenant's.
	Missing []string `json:"missing,omitempty"`
}
