package call

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
)

// contexts are what 'batchreset login' keeps, below a directory: the file current with the
// name of one, and a file for each. So two commands that write at the same time write two
// files, or one of them has the last word; none is ever seen in part. They are files, and
// not in the keyring of the system, because that is locked where scripts run.
type contexts struct {
	dir   string // as --config-dir says
	usual string // where it is unless that says anything, or empty if there is no such place
}

// contextsIn are the contexts in a directory, or in the usual one if that is empty.
func contextsIn(dir string, std *terminal.Streams) contexts {
	return contexts{dir: dir, usual: defaultConfigDir(std.Environment)}
}

func (c contexts) directory() string { return cmp.Or(c.dir, c.usual) }

// savedContext is a server and a token for it.
type savedContext struct {
	Name   string `json:"-"`
	Server string `json:"server"`
	Token  string `json:"token"`
	// CA, Cert and Key are the files of --ca-file, --cert-file and --key-file, which the server needs on every call.
	CA   string `json:"ca_file,omitempty"`
	Cert string `json:"cert_file,omitempty"`
	Key  string `json:"key_file,omitempty"`
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func checkContextName(name string) error {
	if !contextName.MatchString(name) {
		return fmt.Errorf("%.80q is not a name of a context: 1 to 64 characters of A-Z a-z 0-9 . _ -, the first one a letter or digit", name)
	}
	return nil
}

func (c *contexts) define(flags *pflag.FlagSet, std *terminal.Streams) {
	*c = contextsIn("", std)
	flags.StringVar(&c.dir, "config-dir", "", "`directory` of the contexts (default: batchreset below XDG_CONFIG_HOME or ~/.config)")
}

// defaultConfigDir is where contexts are kept unless somebody says otherwise, or empty if
// there is no such place.
func defaultConfigDir(variables map[string]string) string {
	home := filepath.Join(variables["HOME"], ".config")
	if runtime.GOOS == "windows" {
		home = variables["AppData"]
	}
	if xdg := variables["XDG_CONFIG_HOME"]; filepath.IsAbs(xdg) {
		home = xdg
	}
	if !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, "batchreset")
}

func (c contexts) path(name string) string {
	return filepath.Join(c.directory(), "contexts", name+".json")
}

func (c contexts) currentPath() string { return filepath.Join(c.directory(), "current") }

// current is the name of the context that is used where none is named, or empty.
func (c contexts) current() (string, error) {
	if c.directory() == "" {
		return "", nil
	}
	name, err := readPrivate(c.currentPath())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(name)), err
}

// use makes a context the current one.
func (c contexts) use(name string) error {
	if _, err := c.read(name); err != nil {
		return err
	}
	return writePrivate(c.currentPath(), []byte(name+"\n"))
}

func (c contexts) read(name string) (savedContext, error) {
	s := savedContext{Name: name}
	if err := checkContextName(name); err != nil {
		return s, err
	}
	b, err := readPrivate(c.path(name))
	if errors.Is(err, fs.ErrNotExist) || c.directory() == "" {
		return s, fmt.Errorf("there is no context %s (see 'batchreset context list')", name)
	} else if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Server == "" || s.Token == "" {
		return s, fmt.Errorf("%s is not a context; 'batchreset login' makes it anew", c.path(name))
	}
	return s, nil
}

func (c contexts) save(s savedContext) error {
	if c.directory() == "" {
		return errors.New("--config-dir is missing: there is no home directory to keep contexts in")
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writePrivate(c.path(s.Name), append(b, '\n'))
}

// names are those of all contexts, in order.
func (c contexts) names() ([]string, error) {
	files, err := os.ReadDir(filepath.Join(c.directory(), "contexts"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var names []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file.Name(), ".json"); ok && contextName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, err
}

// remove forgets a context, and that it was the current one.
func (c contexts) remove(name string) error {
	if err := checkContextName(name); err != nil {
		return err
	}
	err := os.Remove(c.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no context %s (see 'batchreset context list')", name)
	}
	if current, unread := c.current(); unread == nil && current == name {
		err = errors.Join(err, os.Remove(c.currentPath()))
	}
	return err
}

// readPrivate reads a file, and refuses one that others can read or change.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s can be read or changed by others (mode %04o): see who has read the token in it, then 'chmod 600 %s'", path, mode, path)
	}
	return os.ReadFile(path)
}

// writePrivate puts a file in its place as a whole, for nobody else to read.
func writePrivate(path string, content []byte) error {
	return terminal.WithCode(terminal.ExitOther, writeWhole(path, content))
}

func writeWhole(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with the mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}
