package notify

import (
	"encoding/json"
	"fmt"
	"strings"

	"batchreset/tasks"
	"batchreset/worker"
)

// Format is the form of what receivers are sent.
type Format string

// The formats.
const (
	Slack   Format = "slack"   // also Mattermost's, and Discord's below /slack
	Teams   Format = "teams"   // an adaptive card, for a workflow of Microsoft Teams
	Webhook Format = "webhook" // signed, as tenants' webhooks are: for everything else, such as a gateway to e-mail
)

// Formats are all of them.
var Formats = []Format{Slack, Teams, Webhook}

const (
	// maxLines is how much one message of people says; the site has the rest.
	maxLines = 20
	// maxText bounds a line of a message, in bytes: reasons are from people.
	maxText = 500

	// TopicAlerts is the type of the events that are sent in the format Webhook.
	TopicAlerts tasks.Topic = "operator.alerts"
	// TopicTest is of a test.
	TopicTest tasks.Topic = "operator.test"
)

// change is one thing that a receiver is told.
type change struct {
	tasks.AlertState
	What tasks.AlertChange
	URL  string // of the page that shows more, or empty
	key  string
}

// line says it in one line.
func (c change) line() string {
	text := worker.Printable(c.Text, maxText)
	switch c.What {
	case tasks.AlertEnded:
		return "Over: " + text
	case tasks.AlertLasts:
		return "Still, since " + c.Since.UTC().Format("2006-01-02 15:04Z") + ": " + text
	}
	return text
}

// body is what is sent about some changes.
func (f Format) body(changes []change, at tasks.Time) []byte {
	switch f {
	case Slack:
		return encode(map[string]string{"text": slackText(changes)})
	case Teams:
		return encode(teamsCard(changes))
	}
	return tasks.NoticeBody(TopicAlerts, at, map[string]any{"alerts": sentAlerts(changes)})
}

// test is what is sent to see whether it arrives.
func (f Format) test(at tasks.Time) []byte {
	const text = "This is a test. Operators will be told here of what needs them"
	if f == Webhook {
		return tasks.NoticeBody(TopicTest, at, map[string]string{"text": text})
	}
	return f.body([]change{{AlertState: tasks.AlertState{Alert: tasks.Alert{Text: text}}, What: tasks.AlertBegan}}, at)
}

// sentAlert is a change in the format Webhook. Its id is the same when it is sent again.
type sentAlert struct {
	ID     string            `json:"id"`
	Change tasks.AlertChange `json:"change"`
	Kind   tasks.AlertKind   `json:"kind"`
	About  string            `json:"about,omitempty"`
	Tenant string            `json:"tenant,omitempty"`
	Text   string            `json:"text"`
	Since  tasks.Time        `json:"since"`
	URL    string            `json:"url,omitempty"`
}

func sentAlerts(changes []change) []sentAlert {
	all := make([]sentAlert, len(changes))
	for i, c := range changes {
		all[i] = sentAlert{c.ID() + "-" + string(c.What), c.What, c.Kind, c.About, c.Tenant, worker.Printable(c.Text, maxText), c.Since, c.URL}
	}
	return all
}

// first are the changes that people are told in a message, and a sentence on the others.
func first(changes []change) (shown []change, more string) {
	shown = changes[:min(len(changes), maxLines)]
	if n := len(changes) - len(shown); n > 0 {
		more = fmt.Sprintf("And %d more: see the operators' site.", n)
	}
	return shown, more
}

// noLink keeps text of people from being a link with a text of its own, where a receiver reads Markdown: Teams, Mattermost and
// Discord do.
const (
	linkMiddle = "]("
	noLink     = "]\u200b("
)

// harmless keeps text of people from calling everybody of a channel, and from being a link.
var harmless = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b", linkMiddle, noLink)

func slackText(changes []change) string {
	shown, more := first(changes)
	lines := []string{"*batchreset*"}
	for _, c := range shown {
		line := "• " + harmless.Replace(c.line())
		if c.URL != "" {
			line += " " + c.URL
		}
		lines = append(lines, line)
	}
	if more != "" {
		lines = append(lines, more)
	}
	return strings.Join(lines, "\n")
}

// teamsCard is a message with an adaptive card.
func teamsCard(changes []change) any {
	shown, more := first(changes)
	block := func(text string, bold bool) map[string]any {
		b := map[string]any{"type": "TextBlock", "text": text, "wrap": true}
		if bold {
			b["weight"] = "Bolder"
		}
		return b
	}
	body := []any{block("batchreset", true)}
	for _, c := range shown {
		text := strings.ReplaceAll(c.line(), linkMiddle, noLink)
		if c.URL != "" {
			text += " [Open](" + c.URL + ")"
		}
		body = append(body, block(text, false))
	}
	if more != "" {
		body = append(body, block(more, false))
	}
	return map[string]any{
		"type": "message",
		"attachments": []any{map[string]any{
			"contentType": "application/vnd.microsoft.card.adaptive",
			"content": map[string]any{
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "body": body,
			},
		}},
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts always encode
	}
	return b
}
