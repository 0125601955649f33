package api

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

const (
	defaultJobsLimit = 50
	maxJobsLimit     = 100
)

// jobsParameters are those of a list of jobs.
var jobsParameters = parameters{
	"state": false, "instance_id": false, "label": true, "since": false, "until": false, "limit": false, "cursor": false, "ids": true,
}

// decodeFilter reads the filter in the query of a list of jobs.
func decodeFilter(query url.Values) (f tasks.JobFilter, err error) {
	f = tasks.JobFilter{
		State:      tasks.JobState(query.Get("state")),
		InstanceID: query.Get("instance_id"),
		Labels:     query["label"],
		Limit:      defaultJobsLimit,
		Cursor:     query.Get("cursor"),
	}
	if f.State != "" && !slices.Contains(tasks.JobStates, f.State) {
		return f, tasks.Errorf(tasks.BadRequest, "state must be one of %v", tasks.JobStates)
	}
	if f.InstanceID != "" {
		if err := tasks.CheckInstanceID(f.InstanceID); err != nil {
			return f, tasks.Errorf(tasks.BadRequest, "instance_id %s", err)
		}
	}
	if err := tasks.CheckLabelFilter(f.Labels); err != nil {
		return f, tasks.Errorf(tasks.BadRequest, "label %s", err)
	}
	if f.Since, err = decodeTime(query, "since"); err != nil {
		return f, err
	}
	if f.Until, err = decodeTime(query, "until"); err != nil {
		return f, err
	}
	if err := tasks.CheckTimes(f.Since, f.Until); err != nil {
		return f, tasks.Errorf(tasks.BadRequest, "since %s", err)
	}
	if limit := query.Get("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > maxJobsLimit {
			return f, tasks.Errorf(tasks.BadRequest, "limit must be a number from 1 to %d", maxJobsLimit)
		}
		f.Limit = n
	}
	return f, nil
}

// decodeTime reads a time of a query; the zero time if there is none.
func decodeTime(query url.Values, name string) (time.Time, error) {
	text := query.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		hint := ""
		if strings.Contains(text, " ") {
			hint = "; a plus sign in a URL is written %2B"
		}
		return t, tasks.Errorf(tasks.BadRequest, "%s must be a time such as 2026-01-02T15:04:05Z, not %.80q%s", name, text, hint)
	}
	return t, nil
}

// decodeIDs reads the list of jobs in a query.
func decodeIDs(query url.Values) ([]string, error) {
	for name := range query {
		if name != "ids" {
			return nil, tasks.Errorf(tasks.BadRequest, "ids and %s do not go together", name)
		}
	}
	var ids []string
	for i, id := range strings.Split(strings.Join(query["ids"], ","), ",") {
		if !tasks.ValidJobID(id) {
			return nil, tasks.Errorf(tasks.BadRequest, "ids[%d] %.64q is not a job ID", i, id)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) > maxJobsLimit {
		return nil, tasks.Errorf(tasks.BadRequest, "ids lists %d jobs, the limit is %d", len(ids), maxJobsLimit)
	}
	return ids, nil
}
