package client

import (
	"context"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxNamed is how many jobs one request may name.
const maxNamed = 100

// JobsFilter selects among the tenant's jobs. An empty field selects everything.
type JobsFilter struct {
	State      string
	InstanceID string
	Labels     []string // name=value; a job must have all of them
	// Since and Until bound the time of creation; Until is the first moment that is not
	// meant.
	Since, Until time.Time
	// Limit is how many jobs one request asks for, 1 to 100; 0 leaves it to the server.
	// It does not bound how many there are in all.
	Limit int
}

func (f JobsFilter) query(cursor string) url.Values {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("state", f.State)
	set("instance_id", f.InstanceID)
	set("cursor", cursor)
	for _, label := range f.Labels {
		query.Add("label", label)
	}
	for name, bound := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !bound.IsZero() {
			set(name, bound.UTC().Format(time.RFC3339Nano))
		}
	}
	if f.Limit != 0 {
		query.Set("limit", strconv.Itoa(f.Limit))
	}
	return query
}

// jobsPage is a part of a list of jobs.
type jobsPage struct {
	Jobs       []Job    `json:"jobs"`
	NextCursor string   `json:"next_cursor"` // empty on the last page
	Missing    []string `json:"missing"`     // of those that were named
}

// Jobs lists the tenant's jobs, newest first, without their items. It asks for the next
// page when the loop has come to it. An error is the last that there is.
func (c *Client) Jobs(ctx context.Context, filter JobsFilter) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		cursor := ""
		for {
			page, err := c.jobsPage(ctx, filter.query(cursor))
			if err != nil {
				yield(Job{}, err)
				return
			}
			for _, job := range page.Jobs {
				if !yield(job, nil) {
					return
				}
			}
			if cursor = page.NextCursor; cursor == "" {
				return
			}
		}
	}
}

// JobsByID reads jobs by name, without their items, a hundred with each request. Those
// that do not exist, or are another tenant's, are missing.
func (c *Client) JobsByID(ctx context.Context, ids ...string) (jobs []Job, missing []string, err error) {
	for some := range slices.Chunk(ids, maxNamed) {
		page, err := c.jobsPage(ctx, url.Values{"ids": {strings.Join(some, ",")}})
		if err != nil {
			return nil, nil, err
		}
		jobs, missing = append(jobs, page.Jobs...), append(missing, page.Missing...)
	}
	return jobs, missing, nil
}

func (c *Client) jobsPage(ctx context.Context, query url.Values) (jobsPage, error) {
	path := "/v1/jobs"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	a, err := c.get(ctx, path, nil)
	if err != nil {
		return jobsPage{}, err
	}
	var page jobsPage
	if err := a.decode(&page); err != nil {
		return jobsPage{}, err
	}
	if page.Jobs == nil {
		return jobsPage{}, a.unusable("no list of jobs")
	}
	for _, job := range page.Jobs {
		if job.ID == "" || job.State == "" {
			return jobsPage{}, a.unusable("a record without job_id or state")
		}
	}
	return page, nil
}
