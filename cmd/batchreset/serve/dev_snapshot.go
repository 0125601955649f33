package serve

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2/server"
)

// snapshot is all that an embedded Redis has at one moment. Scripts are not in it: they are
// loaded again by whoever runs them.
type snapshot struct {
	Taken time.Time // by the clock of this machine
	Ended bool      // was it taken at the end of a dev that ended by itself
	Keys  []keptKey
}

// keptKey is a key with its value. Values are what the command for reading the type answers:
// GET, HGETALL, LRANGE, SMEMBERS, ZRANGE WITHSCORES; of an entry of a stream they are its ID, the number
// of its fields and values, and these.
type keptKey struct {
	Name    string
	Type    string
	Expires int64 // in milliseconds since 1970; -1 = never
	Values  []string
}

//go:embed dev_snapshot.lua
var takeSnapshot string

// take takes a snapshot. Nothing else happens in the Redis meanwhile.
func (e embedded) take() (snapshot, error) {
	c, err := e.connect()
	if err != nil {
		return snapshot{}, err
	}
	e.expiry.mu.Lock()
	defer e.expiry.mu.Unlock()
	e.expiry.pass()
	s := snapshot{Taken: e.expiry.until}
	all, err := c.do("EVAL", takeSnapshot, "0")
	if err != nil {
		return snapshot{}, err
	}
	list, _ := all.([]any)
	for _, entry := range list {
		k, err := readKey(entry)
		if err != nil {
			return snapshot{}, err
		}
		if k.Expires >= 0 { // so far it is for how long it lives
			k.Expires += s.Taken.UnixMilli()
		}
		s.Keys = append(s.Keys, k)
	}
	return s, nil
}

var errNotUnderstood = errors.New("the embedded Redis answers in another way than this version of dev knows")

// readKey reads what the script says of a key.
func readKey(entry any) (k keptKey, err error) {
	parts, is := entry.([]any)
	if !is || len(parts) != 4 {
		return k, errNotUnderstood
	}
	var named, typed, timed bool
	k.Name, named = parts[0].(string)
	k.Type, typed = parts[1].(string)
	expires, timed := parts[2].(int)
	k.Expires = int64(expires)
	values, listed := parts[3].([]any)
	if !named || !typed || !timed || !listed {
		return k, errNotUnderstood
	}
	for _, value := range values {
		switch value := value.(type) {
		case string:
			k.Values = append(k.Values, value)
		case []any: // an entry of a stream
			if err := k.addEntry(value); err != nil {
				return k, err
			}
		default:
			return k, errNotUnderstood
		}
	}
	return k, nil
}

func (k *keptKey) addEntry(entry []any) error {
	if len(entry) != 2 {
		return errNotUnderstood
	}
	id, is := entry[0].(string)
	fields, listed := entry[1].([]any)
	if !is || !listed {
		return errNotUnderstood
	}
	k.Values = append(k.Values, id, strconv.Itoa(len(fields)))
	for _, field := range fields {
		text, is := field.(string)
		if !is {
			return errNotUnderstood
		}
		k.Values = append(k.Values, text)
	}
	return nil
}

// put puts the keys of a snapshot into a Redis that has none. What has expired meanwhile stays away.
func (e embedded) put(s snapshot) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	e.expiry.mu.Lock()
	defer e.expiry.mu.Unlock()
	e.expiry.pass()
	for _, k := range s.Keys {
		lives := k.Expires - e.expiry.until.UnixMilli()
		if k.Expires >= 0 && lives <= 0 {
			continue
		}
		commands, err := k.commands()
		if err != nil {
			return err
		}
		if k.Expires >= 0 {
			commands = append(commands, []string{"PEXPIRE", k.Name, strconv.FormatInt(lives, 10)})
		}
		for _, args := range commands {
			if _, err := c.do(args...); err != nil {
				return fmt.Errorf("%s %s: %w", args[0], k.Name, err)
			}
		}
	}
	return nil
}

// commands make a key.
func (k keptKey) commands() ([][]string, error) {
	switch k.Type {
	case "string":
		return [][]string{append([]string{"SET", k.Name}, k.Values...)}, nil
	case "hash":
		return [][]string{append([]string{"HSET", k.Name}, k.Values...)}, nil
	case "list":
		return [][]string{append([]string{"RPUSH", k.Name}, k.Values...)}, nil
	case "set":
		return [][]string{append([]string{"SADD", k.Name}, k.Values...)}, nil
	case "zset":
		add := []string{"ZADD", k.Name}
		for i := 0; i+1 < len(k.Values); i += 2 {
			add = append(add, k.Values[i+1], k.Values[i]) // the score comes first here
		}
		return [][]string{add}, nil
	case "stream":
		return k.entries()
	}
	return nil, fmt.Errorf("the key %s has the type %s, which this version of dev does not know", k.Name, k.Type)
}

// entries make a stream. It may have none.
func (k keptKey) entries() ([][]string, error) {
	if len(k.Values) == 0 {
		return [][]string{{"XGROUP", "CREATE", k.Name, "none", "$", "MKSTREAM"}, {"XGROUP", "DESTROY", k.Name, "none"}}, nil
	}
	var add [][]string
	for rest := k.Values; len(rest) > 0; {
		if len(rest) < 2 {
			return nil, errNotUnderstood
		}
		n, err := strconv.Atoi(rest[1])
		if err != nil || n < 0 || len(rest) < 2+n {
			return nil, errNotUnderstood
		}
		add = append(add, append([]string{"XADD", k.Name, rest[0]}, rest[2:2+n]...))
		rest = rest[2+n:]
	}
	return add, nil
}

// connection asks an embedded Redis from within this process.
type connection struct {
	peer    *server.Peer
	server  *server.Server
	answers *bytes.Buffer
}

func (e embedded) connect() (*connection, error) {
	c := &connection{server: e.Server(), answers: new(bytes.Buffer)}
	c.peer = server.NewPeer(bufio.NewWriter(c.answers))
	_, err := c.do("AUTH", e.password)
	return c, err
}

// do does a command, and returns what it answers: a string, an int, nil, or a list of these and of lists.
func (c *connection) do(args ...string) (any, error) {
	c.server.Dispatch(c.peer, args)
	c.peer.Flush()
	defer c.answers.Reset()
	return server.ParseReply(bufio.NewReader(c.answers))
}

// The first line of a file names its format; a sum of the rest follows, and the rest.
const (
	stateFormat = 1
	stateTitle  = "batchreset dev state, format "
)

// encode is a snapshot as a file has it.
func (s snapshot) encode() ([]byte, error) {
	var rest bytes.Buffer
	if err := gob.NewEncoder(&rest).Encode(s); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(rest.Bytes())
	var file bytes.Buffer
	fmt.Fprintf(&file, "%s%d\n", stateTitle, stateFormat)
	file.Write(sum[:])
	file.Write(rest.Bytes())
	return file.Bytes(), nil
}

// decodeSnapshot reads a file. Errors say what is wrong with it.
func decodeSnapshot(file []byte) (s snapshot, err error) {
	title, rest, found := bytes.Cut(file, []byte("\n"))
	format, is := bytes.CutPrefix(title, []byte(stateTitle))
	switch {
	case !is:
		return s, errors.New("is no state of dev")
	case string(format) != strconv.Itoa(stateFormat):
		return s, fmt.Errorf("has the format %.20q, and this version of batchreset knows %d", format, stateFormat)
	case !found || len(rest) < sha256.Size:
		return s, errors.New("is cut off")
	}
	sum, rest := rest[:sha256.Size], rest[sha256.Size:]
	if want := sha256.Sum256(rest); !bytes.Equal(sum, want[:]) {
		return s, errors.New("is broken: it does not have the sum that it says")
	}
	decoder := gob.NewDecoder(bytes.NewReader(rest))
	if err := decoder.Decode(&s); err != nil {
		return s, fmt.Errorf("cannot be read: %w", err)
	}
	if err := decoder.Decode(new(snapshot)); !errors.Is(err, io.EOF) {
		return s, errors.New("has more than one snapshot")
	}
	return s, nil
}
