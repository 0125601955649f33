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
	f.Since, f.Until, f.Limit, err = decodeBounds(query)
	return f, err
}

// decodeBounds reads what the lists of jobs and runs have in common: which times, and how many. It
// checks the labels, too.
func decodeBounds(query url.Values) (since, until time.Time, limit int, err error) {
	if err := tasks.CheckLabelFilter(query["label"]); err != nil {
		return since, until, 0, tasks.Errorf(tasks.BadRequest, "label %s", err)
	}
	if since, err = decodeTime(query, "since"); err != nil {
		return since, until, 0, err
	}
	if until, err = decodeTime(query, "until"); err != nil {
		return since, until, 0, err
	}
	if err := tasks.CheckTimes(since, until); err != nil {
		return since, until, 0, tasks.Errorf(tasks.BadRequest, "since %s", err)
	}
	limit = defaultJobsLimit
	if text := query.Get("limit"); text != "" {
		limit, err = strconv.Atoi(text)
		if err != nil || limit < 1 || limit > maxJobsLimit {
			return since, until, 0, tasks.Errorf(tasks.BadRequest, "limit must be a number from 1 to %d", maxJobsLimit)
		}
	}
	return since, until, limit, nil
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
