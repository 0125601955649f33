package ops

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

const (
	// maxImport is the most that a form with a list may have, maxList the list itself. It comes back in base64.
	maxImport = 12 << 20
	maxList   = 8 << 20
	// namedOfEffect is how many instances of each effect a preview names.
	namedOfEffect = 20
)

// importPage is what a list would do, or the form for one.
type importPage struct {
	page
	Plan     tasks.FleetPlan
	Listed   int // instances
	Repeats  int
	Shared   bool
	Unserved []string
	List     string // the list in base64
	// RemoveFrom is the tenant whose instances are removed that the list does not name, Removed are these; empty: none is.
	RemoveFrom string
	Removed    []string
}

// FirstRemoved are those that the page names.
func (p importPage) FirstRemoved() []string { return p.Removed[:min(len(p.Removed), namedOfEffect)] }

// RemovedSum differs for other instances to remove.
func (p importPage) RemovedSum() string { return tasks.ListHash(p.Removed) }

// Does reports whether something would be done.
func (p importPage) Does() bool { return p.Plan.Changes() || len(p.Removed) > 0 }

// Changed is how many instances become others.
func (p importPage) Changed() (n int) {
	n = p.Listed + len(p.Removed)
	for _, part := range p.Plan.Parts {
		if part.Effect == tasks.EffectNone {
			n -= part.Count
		}
	}
	return n
}

// Entry is an entry of the fleet in a few words.
func (importPage) Entry(in tasks.Instance) string {
	if in.Tenant == "" {
		return "not registered"
	}
	parts := []string{in.Tenant, "driver " + in.Device().Driver}
	if in.Address != "" {
		parts = append(parts, "at "+in.Address)
	}
	if len(in.Labels) > 0 {
		parts = append(parts, tasks.LabelText(in.Labels))
	}
	if in.Generation > 1 {
		parts = append(parts, fmt.Sprintf("generation %d", in.Generation))
	}
	if in.Protected {
		text := "protected"
		if !in.Until.IsZero() {
			text += " until " + in.Until.UTC().Format("2006-01-02 15:04Z")
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func (s *site) importForm(c echo.Context) error {
	return s.show(c, http.StatusOK, "importfleet", importPage{page: s.page(c, "Import the fleet")})
}

// readParts reads a form with a list: in memory, up to maxImport, and without temporary files. Errors:
// tasks.BadRequest, tasks.TooLarge.
func readParts(r *http.Request, known ...string) (map[string]string, error) {
	if r.URL.RawQuery != "" {
		return nil, wrong("The form's address has a query.")
	}
	reader, err := r.MultipartReader()
	if err != nil {
		return nil, wrong("A form with a list has to be sent as multipart/form-data.")
	}
	fields := map[string][]string{}
	values := map[string]string{}
	for {
		var part *multipart.Part
		if part, err = reader.NextPart(); errors.Is(err, io.EOF) {
			break
		}
		var value []byte
		if err == nil {
			value, err = io.ReadAll(part)
		}
		if long, is := errors.AsType[*http.MaxBytesError](err); is {
			return nil, tasks.Errorf(tasks.TooLarge, "%s", tooLong(long.Limit))
		}
		if err != nil {
			return nil, wrong("The form could not be read.")
		}
		name := part.FormName()
		fields[name] = append(fields[name], "")
		if refused := checkFields("field", fields, known, nil); refused != nil { // before the next part is read
			return nil, wrong("%s", refused.why)
		}
		values[name] = string(value)
	}
	return values, nil
}

// listOf is the list of a form. Errors: tasks.BadRequest.
func listOf(raw string) (list tasks.FleetList, err error) {
	switch {
	case len(raw) > maxList:
		return list, wrong("The list has %d bytes, and may have %d MiB: use the command 'batchreset fleet import'.", len(raw), maxList>>20)
	case strings.TrimSpace(raw) == "":
		return list, wrong("There is no list: choose a file, or paste the list.")
	}
	if err := list.ReadCSV([]byte(raw)); err != nil {
		return list, wrong("The list: %v.", err)
	}
	if len(list.Changes) == 0 {
		return list, wrong("The list names no instance.")
	}
	return list, nil
}

// placed says where in a list the instance is that refuses a change.
func placed(list tasks.FleetList, err error) error {
	if e, ok := errors.AsType[*tasks.EntryError](err); ok {
		return wrong("The list: %s: %v.", list.Place(e.ID), e)
	}
	return err
}

// removedBy are those instances of a tenant that a list does not name. None of them may be protected. Errors:
// tasks.BadRequest; tasks.JobFinal if one is.
func (s *site) removedBy(c echo.Context, tenant string, list tasks.FleetList) (ids []string, err error) {
	if tenant == "" {
		return nil, nil
	}
	if err := tasks.CheckTenant(tenant); err != nil {
		return nil, wrong("The field remove_from: %v.", err)
	}
	var guarded []string
	for cursor := ""; ; {
		var found []tasks.Instance
		found, cursor, err = s.Store.Search(c.Request().Context(), tasks.FleetFilter{Tenant: tenant}, cursor, removedAtOnce)
		if err != nil {
			return nil, err
		}
		for _, in := range found {
			switch {
			case list.Has(in.ID):
			case in.Protected:
				guarded = append(guarded, in.ID)
			default:
				ids = append(ids, in.ID)
			}
		}
		if cursor == "" {
			break
		}
	}
	if guarded != nil {
		return nil, tasks.Errorf(tasks.JobFinal, "Tenant %s has protected instances that the list does not name (%s), among them %s. Nothing was changed: end their protection first, or list them.", tenant, number(len(guarded)), guarded[0])
	}
	return ids, nil
}

// removedAtOnce is how many instances are looked for, and removed, in one step.
const removedAtOnce = 500

// oneImport has one list in memory at a time.
func (s *site) oneImport() (end func(), err error) {
	if !s.imports.TryLock() {
		return nil, tasks.Errorf(tasks.JobFinal, "Another list is being looked at or imported by this process. Try again in a moment.")
	}
	return s.imports.Unlock, nil
}

// previewImport shows what a list would do.
func (s *site) previewImport(c echo.Context) error {
	end, err := s.oneImport()
	if err != nil {
		return err
	}
	defer end()
	form, err := readParts(c.Request(), "list", "file", "shared", "remove_from")
	if err != nil {
		return err
	}
	raw := form["file"]
	if raw == "" {
		raw = form["list"]
	} else if strings.TrimSpace(form["list"]) != "" {
		return wrong("There are two lists, a file and a pasted one: give one of them.")
	}
	list, err := listOf(raw)
	if err != nil {
		return err
	}
	p := importPage{
		page: s.page(c, "Import the fleet"), Listed: len(list.Changes), Repeats: list.Repeats, Shared: form["shared"] == "true",
		List: base64.RawURLEncoding.EncodeToString([]byte(raw)),
	}
	if p.Plan, err = s.Store.Plan(c.Request().Context(), list.Changes, p.Shared, namedOfEffect, login.Actor(c, "")); err != nil {
		return placed(list, err)
	}
	if p.Unserved, err = s.unserved(c, list.Changes); err != nil {
		return err
	}
	p.RemoveFrom = strings.TrimSpace(form["remove_from"])
	if p.Removed, err = s.removedBy(c, p.RemoveFrom, list); err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "previewimport", p)
}

// importedPage is what an import has done.
type importedPage struct {
	page
	tasks.FleetReport
	Listed  int
	Removed int
}

func (s *site) importFleet(c echo.Context) error {
	end, err := s.oneImport()
	if err != nil {
		return err
	}
	defer end()
	form, err := readParts(c.Request(), "list", "shared", "seen", "remove_from", "removed", "reason")
	if err != nil {
		return err
	}
	if err := tasks.CheckReason(form["reason"]); err != nil {
		return wrong("The reason %v.", err)
	}
	if !tasks.ValidListHash(form["seen"]) {
		return wrong("The form does not say what was looked at: begin with a preview.")
	}
	raw, err := base64.RawURLEncoding.DecodeString(form["list"])
	if err != nil {
		return wrong("The list is not as the preview gave it: begin again.")
	}
	list, err := listOf(string(raw))
	if err != nil {
		return err
	}
	removed, err := s.removedBy(c, form["remove_from"], list)
	if err != nil {
		return err
	}
	if form["remove_from"] != "" && form["removed"] != tasks.ListHash(removed) {
		return tasks.Errorf(tasks.JobFinal, "The tenant has other instances than when the list was looked at. Nothing was changed: look at it again.")
	}
	who := login.Actor(c, form["reason"])
	report, err := s.Store.ImportSeen(c.Request().Context(), list.Changes, form["shared"] == "true", form["seen"], who)
	if err != nil {
		return s.stopped(c, report, placed(list, err))
	}
	gone := 0
	for chunk := range slices.Chunk(removed, removedAtOnce) {
		missing, err := s.Store.Unregister(c.Request().Context(), chunk, who)
		if err != nil {
			return s.inDoubt(c, err, fmt.Sprintf("The list is imported. %s of %d were removed; whether others were is not known: preview the list again to see what is left.", instances(gone), len(removed)))
		}
		gone += len(chunk) - len(missing)
	}
	return s.show(c, http.StatusOK, "importedfleet", importedPage{s.page(c, "Imported"), report, len(list.Changes), gone})
}

// stopped says what an import has done that did not come to its end.
func (s *site) stopped(c echo.Context, done tasks.FleetReport, err error) error {
	if done == (tasks.FleetReport{}) {
		if _, refused := errors.AsType[*tasks.Error](err); refused {
			return err
		}
	}
	what := fmt.Sprintf("What is known to be done: %d new, %d moved, %d with another driver or address, %d with a protection that began, %d with one that ended. Preview the list again to see what is left.",
		done.New, done.Moved, done.Readdressed, done.Protected, done.Unprotected)
	if e, refused := errors.AsType[*tasks.Error](err); refused {
		return tasks.Errorf(e.Code, "%s The import has stopped. %s", e.Message, what)
	}
	return s.inDoubt(c, err, "The import has stopped. "+what)
}

// sortedKeys are the names of a set.
func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
