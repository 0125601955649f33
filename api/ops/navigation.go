package ops

import (
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// navGroup is a group of links to pages.
type navGroup struct {
	Name  string
	Links []navLink
}

// navLink leads to a page, for those who have a right.
type navLink struct {
	Path  string // relative to the first page; empty: that one
	Name  string
	right tasks.Right
}

// navigation is the menu of the site, in the order in which it is shown.
var navigation = []navGroup{
	{"Work", []navLink{
		{"", "Overview", tasks.RightLook},
		{"runs", "Runs", tasks.RightLook},
		{"approvals", "Approvals", tasks.RightLook},
		{"jobs", "Jobs", tasks.RightLook},
		{"failures", "Failures", tasks.RightLook},
		{"bulk", "Many at a time", tasks.RightAct},
	}},
	{"Machinery", []navLink{
		{"workers", "Workers", tasks.RightLook},
		{"control-planes", "Control planes", tasks.RightLook},
		{"asynq", "Queues", tasks.RightLook},
	}},
	{"Who", []navLink{
		{"tenants", "Tenants", tasks.RightLook},
		{"fleet", "Fleet", tasks.RightLook},
		{"callers", "Callers", tasks.RightLook},
		{"webhooks", "Webhooks", tasks.RightLook},
		{"operators", "Operators", tasks.RightLook},
	}},
	{"Records", []navLink{
		{"audit", "Audit trail", tasks.RightLook},
		{"metrics", "Metrics", tasks.RightLook},
		{"debug/pprof/", "Profiles", tasks.RightAct},
	}},
}

// Menu is the part of the navigation that who looks may use.
func (p page) Menu() (menu []navGroup) {
	for _, group := range navigation {
		shown := navGroup{Name: group.Name}
		for _, link := range group.Links {
			if p.may(link.right) {
				shown.Links = append(shown.Links, link)
			}
		}
		if shown.Links != nil {
			menu = append(menu, shown)
		}
	}
	return menu
}

// Current reports whether a link leads to the page, or to the list that it is a part of.
func (p page) Current(link navLink) bool { return link.Path == p.Section }

// section is the part of the site that a request is about, as the navigation calls it.
func section(c echo.Context) string {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(c.Path(), "/"), "/"); first {
	case "instances":
		return "fleet"
	default:
		return first
	}
}
