package ops

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// param is a parameter of a page's address. Values are what it can be besides empty; nil: what the page makes of it.
type param struct {
	name   string
	values []string
	many   bool // it may be there several times
}

// params are parameters of which the page says whether it can read them.
func params(names ...string) (all []param) {
	for _, name := range names {
		all = append(all, param{name: name})
	}
	return all
}

// one is a parameter that is one of a few values.
func one[T ~string](name string, values ...T) param {
	p := param{name: name, values: []string{}}
	for _, v := range values {
		p.values = append(p.values, string(v))
	}
	return p
}

// repeated is a parameter that may be there several times.
func (p param) repeated() param {
	p.many = true
	return p
}

// filtersOf are the parameters of filters. Those of choices are one of a few values.
func filtersOf(filters []filterName, choices ...param) (all []param) {
	for _, f := range filters {
		n := slices.IndexFunc(choices, func(p param) bool { return p.name == f.param })
		if n < 0 {
			all = append(all, param{name: f.param})
		} else {
			all = append(all, choices[n])
		}
	}
	return all
}

// sortParam is by what a script sorts a table: every page may have it.
const sortParam = "sort"

// queries are the parameters that pages take, by route. A page that is not among them takes none: what somebody asks for
// is never skipped, or who asks for less is shown all.
var queries = func() map[string][]param {
	window := param{name: "window", values: []string{}}
	for _, w := range windows {
		window.values = append(window.values, w.Name)
	}
	file := one("format", slices.Sorted(maps.Keys(formats))...)
	paged := []param{{name: "cursor"}, file}
	who := params("name")
	grant := []param{param{name: "scope"}.repeated()} // which the page with the form checks
	for _, name := range grantFields {
		if name != "scope" {
			grant = append(grant, param{name: name})
		}
	}
	kind := one("kind", tasks.KindToken, tasks.KindKey)
	halt := []param{{name: "tenant"}, one("all", "true")}
	return map[string][]param{
		"/find":                params("q"),
		"/jobs":                append(filtersOf(jobFilters, one("state", tasks.JobStates...)), paged...),
		"/runs":                append(filtersOf(runFilters, one("state", tasks.RunStates...)), paged...),
		"/runs/:run/instances": append([]param{one("state", tasks.ItemStates...), {name: "code"}}, paged...),
		"/approvals":           {file},
		"/failures":            append(filtersOf(tenantFilter), window, file),
		"/failures/items":      append(append(params("driver", "code", "tenant", "run"), window), paged...),
		bulkPath: append(params("tenant", "run", "label", "code", "driver", "since", "until"),
			one("action", bulkRetry, bulkCancel), one("state", tasks.RetryStates...).repeated(), one("preview", "1")),
		"/workers":                 {file},
		"/control-planes":          {file},
		"/tenants":                 {file},
		"/tenants/halt":            halt,
		"/tenants/resume":          append(slices.Clone(halt), one("own", "true")),
		"/tenants/:tenant/limits":  params(limitFields()...),
		"/fleet":                   append(filtersOf(fleetFilters, one("protected", "true")), paged...),
		"/instances/:instance/ask": params(entryFields...),
		"/callers":                 append(filtersOf(tenantFilter), file),
		"/callers/new":             append(slices.DeleteFunc(slices.Clone(grant), func(p param) bool { return p.name == kind.name }), kind),
		"/callers/ask":             grant,
		"/webhooks":                append(filtersOf(tenantFilter), file),
		"/webhooks/new":            params("tenant"),
		"/operators":               {file},
		"/operators/role":          who,
		"/operators/password":      who,
		"/operators/second":        who,
		"/operators/remove":        who,
		"/operators/sessions":      who,
		"/operators/sessions/end":  params("name", "id"),
		"/me/sessions/end":         params("id"),
		"/audit":                   append(filtersOf(auditFilters, one("action", tasks.Actions...)), paged...),
		"/login":                   params("next"),
		"/login/code":              params("next"),
		"/login/issuer":            params("next"),
		"/first-operator":          params("token"),
		"/welcome":                 params("name", "token"),
	}
}()

// othersPage reports whether a route is one of those that other people's code answers, which reads its addresses as it likes.
func othersPage(route string) bool {
	return strings.HasPrefix(route, dashboardPath) || strings.HasPrefix(route, "/debug/pprof")
}

// asks refuses an address with a parameter that the page does not take, with one twice, and with a value that it cannot
// be.
func (s *site) asks(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if looks(c.Request()) && !othersPage(c.Path()) {
			if refused := checkQuery(c.QueryParams(), queries[c.Path()]); refused != nil {
				return s.refuse(c, refused.status, refused.why)
			}
		}
		return next(c)
	}
}

func checkQuery(query map[string][]string, known []param) *refusal {
	names, repeatable := []string{sortParam}, []string(nil)
	for _, p := range known {
		names = append(names, p.name)
		if p.many {
			repeatable = append(repeatable, p.name)
		}
	}
	if refused := checkFields("parameter", query, names, repeatable); refused != nil {
		return refused
	}
	for _, p := range known {
		for _, value := range query[p.name] {
			if p.values != nil && value != "" && !slices.Contains(p.values, value) {
				return &refusal{http.StatusBadRequest, noChoice(p.name, value, p.values)}
			}
		}
	}
	return nil
}

// noChoice says that a parameter cannot be this, and what may have been meant, or what it can be.
func noChoice(name, value string, values []string) string {
	hint := tasks.DidYouMean(value, values)
	switch last := len(values) - 1; {
	case hint == "" && last == 0:
		hint = ": it can be " + values[0] + " only."
	case hint == "" && last < choicesNamed:
		hint = ": choose " + strings.Join(values[:last], ", ") + " or " + values[last] + "."
	case hint == "":
		hint = "."
	}
	return fmt.Sprintf("There is no %s %.80q%s", name, value, hint)
}

// choicesNamed is how many values a refusal names.
const choicesNamed = 12
