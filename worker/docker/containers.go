package docker

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// object is a JSON object of which most fields are only passed on.
type object map[string]json.RawMessage

// get reads a field into a value. One that is not there, is null or something else, leaves it alone.
func (o object) get(name string, into any) {
	if value := o[name]; string(value) != "null" {
		_ = json.Unmarshal(value, into)
	}
}

// set writes a field. The value is one that JSON can have.
func (o object) set(name string, value any) { o[name], _ = json.Marshal(value) } //nolint:errchkjson // see above

// container is what the engine tells of a container.
type container struct {
	ID      string
	Name    string
	Image   string // its ID
	Created time.Time
	State   struct {
		Status     string
		Running    bool
		Restarting bool
		ExitCode   int
		StartedAt  string
		Health     *struct{ Status string }
	}
	Config          object
	HostConfig      object
	Mounts          []mount
	NetworkSettings struct{ Networks map[string]object }
}

// mount is a folder of the host, or a volume, in a container.
type mount struct {
	Type        string
	Name        string // of a volume
	Source      string // on the host
	Destination string // in the container
	RW          bool
}

func (c *container) label(name string) string {
	var labels map[string]string
	c.Config.get("Labels", &labels)
	return labels[name]
}

// started says whether a container has ever been started.
func (c *container) started() bool { return c.State.Status != "created" }

func (c *container) networkMode() (mode string) {
	c.HostConfig.get("NetworkMode", &mode)
	return mode
}

// autoRemove says whether the container is removed when it stops (docker run --rm).
func (c *container) autoRemove() (yes bool) {
	c.HostConfig.get("AutoRemove", &yes)
	return yes
}

// short is a container's ID as people know it.
func short(id string) string { return id[:min(len(id), 12)] }

// listed is a container in a list.
type listed struct {
	ID         string
	Names      []string // with a slash before each; more slashes are in names that links give
	Labels     map[string]string
	State      string
	HostConfig struct{ NetworkMode string }
	Mounts     []mount
}

func (l listed) started() bool { return l.State != "created" }

func (l listed) name() string {
	for _, name := range l.Names {
		if own := strings.TrimPrefix(name, "/"); !strings.Contains(own, "/") {
			return own
		}
	}
	return ""
}

type filters map[string][]string

// maxContainers is how many containers an engine can have here. An answer may be short and long at
// the same time: [{},{},{}.
const maxContainers = 10000

// list returns the containers that fit, those that do not run included, the newest first.
func (e engine) list(ctx context.Context, f filters) (all []listed, err error) {
	text, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	c := call{what: "the list of containers", path: "/containers/json", query: url.Values{"all": {"1"}, "filters": {string(text)}}}
	response, err := e.send(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if all, err = decodeList(io.LimitReader(response.Body, maxAnswer)); err != nil {
		return nil, notUnderstood(c.what, response, err)
	}
	return all, nil
}

func decodeList(answer io.Reader) (all []listed, err error) {
	d := json.NewDecoder(answer)
	start, err := d.Token()
	if err != nil || start == nil { // null is an empty list
		return nil, err
	}
	if start != json.Delim('[') {
		return nil, errors.New("it is no list")
	}
	for d.More() {
		var next listed
		if err := d.Decode(&next); err != nil {
			return nil, err
		}
		if all = append(all, next); len(all) > maxContainers {
			return nil, fmt.Errorf("it has more than %d containers", maxContainers)
		}
	}
	_, err = d.Token()
	return all, err
}

func (e engine) inspect(ctx context.Context, id string) (*container, error) {
	what := "the look at container " + short(id)
	var c container
	if err := e.call(ctx, call{what: what, path: "/containers/" + id + "/json"}, &c); err != nil {
		return nil, err
	}
	if c.ID != id || c.Config == nil || c.HostConfig == nil {
		return nil, &engineError{call: what, status: http.StatusOK, err: errors.New("the answer is about something else")}
	}
	c.Name = strings.TrimPrefix(c.Name, "/")
	return &c, nil
}

// image is what the engine tells of an image.
type image struct {
	ID     string
	Config object
}

func (e engine) inspectImage(ctx context.Context, name string) (i image, err error) {
	err = e.call(ctx, call{what: "the look at image " + name, path: "/images/" + name + "/json"}, &i)
	return i, err
}

func (e engine) create(ctx context.Context, name string, body object) (id string, err error) {
	var said struct{ ID string }
	c := call{what: "the creation of container " + name, method: http.MethodPost, path: "/containers/create", query: url.Values{"name": {name}}, body: body}
	err = e.call(ctx, c, &said)
	return said.ID, err
}

func (e engine) connectNetwork(ctx context.Context, network, id string, endpoint object) error {
	body := map[string]any{"Container": id, "EndpointConfig": endpoint}
	return e.call(ctx, call{what: "the connection with network " + network, method: http.MethodPost, path: "/networks/" + network + "/connect", body: body}, nil)
}

// act is a call that only says what is to be done with a container.
func (e engine) act(ctx context.Context, what, method, id, path string, query url.Values) error {
	return e.call(ctx, call{what: what + " of container " + short(id), method: method, path: "/containers/" + id + path, query: query}, nil)
}

// start starts a container; one that runs is left alone.
func (e engine) start(ctx context.Context, id string) error {
	return e.act(ctx, "the start", http.MethodPost, id, "/start", nil)
}

// stop ends a container, by force after the time that it has itself or 10 s.
func (e engine) stop(ctx context.Context, id string) error {
	return e.act(ctx, "the end", http.MethodPost, id, "/stop", nil)
}

func (e engine) rename(ctx context.Context, id, name string) error {
	return e.act(ctx, "the renaming", http.MethodPost, id, "/rename", url.Values{"name": {name}})
}

// remove removes a container that does not run, with the volumes that have no name. A running one
// is never removed by force: somebody has just started it.
func (e engine) remove(ctx context.Context, id string) error {
	return e.act(ctx, "the removal", http.MethodDelete, id, "", url.Values{"v": {"1"}})
}

// wait waits until a container does not run, and returns its exit status.
func (e engine) wait(ctx context.Context, id string) (status int, err error) {
	var said struct{ StatusCode *int }
	what := "the wait for container " + short(id)
	if err := e.call(ctx, call{what: what, method: http.MethodPost, path: "/containers/" + id + "/wait"}, &said); err != nil {
		return 0, err
	}
	if said.StatusCode == nil {
		return 0, &engineError{call: what, status: http.StatusOK, err: errors.New("the answer has no exit status")}
	}
	return *said.StatusCode, nil
}

// output returns the last lines that a container wrote.
func (e engine) output(ctx context.Context, id string) string {
	query := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {"5"}}
	response, err := e.send(ctx, call{what: "the output of container " + short(id), path: "/containers/" + id + "/logs", query: query}) //nolint:bodyclose // output closes it
	if err != nil {
		return ""
	}
	return output(response)
}

// exec runs a program in a container and returns what it wrote.
func (e engine) exec(ctx context.Context, id string, program ...string) (string, error) {
	what := "the call of " + program[0] + " in container " + short(id)
	var said struct{ ID string }
	body := map[string]any{"Cmd": program, "AttachStdout": true, "AttachStderr": true}
	if err := e.call(ctx, call{what: what, method: http.MethodPost, path: "/containers/" + id + "/exec", body: body}, &said); err != nil {
		return "", err
	}
	response, err := e.send(ctx, call{what: what, method: http.MethodPost, path: "/exec/" + said.ID + "/start", body: map[string]any{}}) //nolint:bodyclose // output closes it
	if err != nil {
		return "", err
	}
	return output(response), nil
}

// output joins the frames in which the engine sends what a program writes: 4 bytes that say where
// it wrote, 4 bytes of length, the text. What is cut off or too long is left out.
func output(response *http.Response) string {
	defer func() { _ = response.Body.Close() }()
	var text strings.Builder
	body := io.LimitReader(response.Body, maxOutput)
	for header := make([]byte, 8); ; {
		if _, err := io.ReadFull(body, header); err != nil {
			return strings.TrimSpace(text.String())
		}
		_, _ = io.CopyN(&text, body, int64(binary.BigEndian.Uint32(header[4:])))
	}
}

// folder asks for a folder in a container, which need not run.
func (e engine) folder(ctx context.Context, method, id, folder string) (*http.Response, error) {
	what := "the look at " + folder + " in container " + short(id)
	return e.send(ctx, call{what: what, method: method, path: "/containers/" + id + "/archive", query: url.Values{"path": {folder}}})
}

// inside returns the name of something in a folder of a container, or nothing if it is empty.
func (e engine) inside(ctx context.Context, id, folder string) (name string, err error) {
	response, err := e.folder(ctx, http.MethodGet, id, folder)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	name, err = firstIn(response.Body)
	if err != nil {
		return "", notUnderstood("the look at "+folder, response, err)
	}
	return name, nil
}

// tarEnd is the length of the zeros after which an archive has certainly ended. An engine that
// fails half-way just stops.
const tarEnd = 1024

// firstIn returns the name of the first thing in a folder, of which this is the archive.
func firstIn(archive io.Reader) (string, error) {
	counted := &counter{Reader: archive}
	entries := tar.NewReader(counted)
	folder, err := entries.Next()
	if err != nil {
		return "", err
	}
	if folder.Typeflag != tar.TypeDir {
		return "", errors.New("it is not a folder")
	}
	before := counted.bytes
	entry, err := entries.Next()
	switch {
	case err == nil:
		return entry.Name, nil
	case errors.Is(err, io.EOF) && counted.bytes-before >= tarEnd:
		return "", nil
	}
	return "", fmt.Errorf("it is cut off: %w", err)
}

// counter counts what is read.
type counter struct {
	io.Reader

	bytes int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes += n
	return n, err
}

// changed returns when something was last added to a folder in a container, or taken out of it.
func (e engine) changed(ctx context.Context, id, folder string) (time.Time, error) {
	response, err := e.folder(ctx, http.MethodHead, id, folder)
	if err != nil {
		return time.Time{}, err
	}
	_ = response.Body.Close()
	var said struct{ MTime time.Time }
	text, err := base64.StdEncoding.DecodeString(response.Header.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err == nil && said.MTime.IsZero() {
		err = errors.New("it has no time")
	}
	if err != nil {
		return time.Time{}, notUnderstood("the look at "+folder, response, err)
	}
	return said.MTime, nil
}
