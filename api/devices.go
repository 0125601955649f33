package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// KooPhone's own look-ups around a reset: is an instance idle or being reset, and which are mine.

// The states of an instance that this service knows, of those in the newest table of KooPhone.
const (
	statusIdle      = 0
	statusRestoring = 1
)

type instanceStatuses struct {
	Results []instanceStatus `json:"status_results"`
}

type instanceStatus struct {
	InstanceID string `json:"instance_id"`
	Status     int    `json:"status"`
}

// batchQueryStatus is KooPhone's POST /v1/instances/batch-query-status.
func (s *server) batchQueryStatus(c echo.Context) error {
	ctx := c.Request().Context()
	instances, err := decodeInstanceIDs(c.Request().Body, s.cfg.MaxInstances)
	if err != nil {
		return err
	}
	if err := s.checkOwned(ctx, tenant(c), instances); err != nil {
		return err
	}
	open, err := s.store.OpenInstances(ctx, tenant(c), instances)
	if err != nil {
		return err
	}
	data := instanceStatuses{Results: make([]instanceStatus, len(instances))}
	for i, id := range instances {
		data.Results[i] = instanceStatus{id, statusIdle}
		if open[id] {
			data.Results[i].Status = statusRestoring
		}
	}
	return ok(c, data)
}

// checkOwned refuses instances that are unknown or another tenant's. They may be protected: nothing happens to them.
func (s *server) checkOwned(ctx context.Context, tenant string, instances []string) error {
	var foreign someInstances
	err := s.eachVerdict(ctx, tasks.Token{Tenant: tenant}, instances, func(_ tasks.Instance, id string, v tasks.Verdict) {
		if v == tasks.VerdictUnknown {
			foreign.add(id)
		}
	})
	if err != nil {
		return err
	}
	if foreign.count > 0 {
		return tasks.Errorf(tasks.NotYourInstance, "no permission on instances: %s", foreign)
	}
	return nil
}

const batchQueryPath = "/v1/instances/batch-query"

// Bounds of a page of instances.
const (
	maxPageSize = 500
	maxPageNo   = 1_000_000
)

// instancesParameters are those of batch-query that are understood. KooPhone has more, which are refused by name:
// to leave out a filter would show instances that were not asked for.
var instancesParameters = parameters{"page_no": false, "page_size": false, "instance_id": false, requestIDParameter: false}

// requestIDParameter is where KooPhone's batch-query has its request ID.
const requestIDParameter = "x-request-id"

type instancesPage struct {
	Result     []ownInstance `json:"result"`
	PageNo     int           `json:"page_no"`
	PageSize   int           `json:"page_size"`
	TotalCount int           `json:"total_count"`
}

// ownInstance is what this service knows of what KooPhone says of an instance. A name is what
// people call it: here, its ID.
type ownInstance struct {
	InstanceID   string `json:"instance_id"`
	InstanceName string `json:"instance_name"`
}

// batchQuery is KooPhone's GET /v1/instances/batch-query.
func (s *server) batchQuery(c echo.Context) error {
	ctx, query := c.Request().Context(), c.QueryParams()
	no, err := pageNumber(query, "page_no", maxPageNo)
	if err != nil {
		return err
	}
	size, err := pageNumber(query, "page_size", maxPageSize)
	if err != nil {
		return err
	}
	page := instancesPage{Result: []ownInstance{}, PageNo: no, PageSize: size}
	var found []tasks.Instance
	if query.Has("instance_id") {
		found, page.TotalCount, err = s.oneInstance(ctx, tenant(c), query.Get("instance_id"), no)
	} else {
		found, page.TotalCount, err = s.store.InstancesOf(ctx, tenant(c), (no-1)*size, size)
	}
	if err != nil {
		return err
	}
	for _, in := range found {
		page.Result = append(page.Result, ownInstance{in.ID, in.ID})
	}
	return ok(c, page)
}

// oneInstance is a page of one instance, if it is the tenant's.
func (s *server) oneInstance(ctx context.Context, tenant, id string, no int) (found []tasks.Instance, total int, err error) {
	if err := tasks.CheckInstanceID(id); err != nil {
		return nil, 0, tasks.Errorf(tasks.BadRequest, "instance_id %s", err)
	}
	fleet, err := s.store.Registered(ctx, []string{id})
	if err != nil {
		return nil, 0, err
	}
	in, registered := fleet[id]
	if !registered || in.Tenant != tenant {
		return nil, 0, nil
	}
	if no > 1 {
		return nil, 1, nil
	}
	return []tasks.Instance{in}, 1, nil
}

func pageNumber(query url.Values, name string, most int) (int, error) {
	n, err := strconv.Atoi(query.Get(name))
	if err != nil || n < 1 || n > most {
		return 0, tasks.Errorf(tasks.BadRequest, "%s must be a number from 1 to %d, and is needed", name, most)
	}
	return n, nil
}

// notServed are the paths of KooPhone that do something else than reset, and look around a reset.
var notServed = map[string]string{
	"/v1/instances/sync-command": http.MethodPost, "/v1/instances/async-command": http.MethodPost, "/v1/instances/video-setting": http.MethodPut,
	"/v1/instances/reboot": http.MethodPost, "/v1/instances/:instance/auth": http.MethodPost, "/v1/instances/create": http.MethodPost,
	"/v1/instances/delete": http.MethodPost, "/v1/instances/assign": http.MethodPost, "/v1/instances/unassign": http.MethodPost,
	"/v1/instances/sku": http.MethodGet, "/v1/instances/prepare": http.MethodPost, "/v1/instances/prepare-progress": http.MethodPost,
	"/v1/instances/backup": http.MethodPost, "/v1/instances/session/release": http.MethodPost, "/v1/instances/streaming/stop": http.MethodPost,
	"/v1/instances/app/install": http.MethodPost, "/v1/instances/:instance/app-list": http.MethodGet,
}

// sayNotServed answers a request of KooPhone's API that this service does not have.
func sayNotServed(c echo.Context) error {
	return tasks.Errorf(tasks.NoRoute, "%s %s is not served here: this service resets instances, for all else ask KooPhone itself", c.Request().Method, cut(c.Request().URL.Path))
}
