package api

import (
	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// ticketParameter is the query parameter of a ticket: in a browser, an EventSource can send
// no header. Queries are neither logged nor traced here.
const ticketParameter = "ticket"

// ticket gives whoever may read a job a ticket for its events.
func (s *server) ticket(c echo.Context) error {
	job, err := s.find(c, s.store.Version)
	if err != nil {
		return err
	}
	ticket, err := s.store.NewTicket(c.Request().Context(), tokenOf(c), job.ID)
	if err != nil {
		return err
	}
	return ok(c, ticket)
}

// tokenOfTicket is the token with which the ticket of a request was made. The request may do what
// that token allows.
func (s *server) tokenOfTicket(c echo.Context) (tasks.Token, error) {
	if c.Request().Header.Get("X-Auth-Token") != "" { // of which tenant?
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "the request has a ticket and an X-Auth-Token; send only one of them")
	}
	return s.store.TicketToken(c.Request().Context(), c.QueryParam(ticketParameter), c.Param("job"))
}
