package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// relay lets the asynq servers of a process share its subscription. asynq has each of them
// subscribe by itself to hear which tasks are cancelled on the dashboard, on a connection of
// its own. A relay gives it one that ends in this process, and answers as Redis does.
type relay struct {
	shared *subscription
	client *redis.Client // of the relay
}

func newRelay(shared *subscription) *relay {
	r := &relay{shared: shared}
	r.client = redis.NewClient(&redis.Options{
		Dialer: r.dial, Protocol: protocol, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return r
}

func (r *relay) dial(context.Context, string, string) (net.Conn, error) {
	theirs, ours := net.Pipe()
	go (&relayed{Conn: ours}).serve(r.shared)
	return theirs, nil
}

// relayed is the relay's end of a connection.
type relayed struct {
	net.Conn
	mu sync.Mutex // for writing
}

// relayPatience is how long a reader may take; one that takes longer connects anew.
const relayPatience = time.Second

func (c *relayed) write(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.SetWriteDeadline(time.Now().Add(relayPatience))
	if err == nil {
		_, err = io.WriteString(c, text)
	}
	if err != nil {
		_ = c.Close()
	}
}

// serve answers what go-redis sends for a subscription, until the connection is closed.
func (c *relayed) serve(shared *subscription) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for {
		command, err := readCommand(in)
		if err != nil {
			return
		}
		switch name := strings.ToLower(command[0]); {
		case name == "ping":
			c.write("+PONG\r\n")
		case name == "subscribe" && len(command) == 2:
			channel := command[1]
			c.write("*3\r\n" + bulk("subscribe") + bulk(channel) + ":1\r\n")
			defer shared.listen(channel, func(payload string) {
				c.write("*3\r\n" + bulk("message") + bulk(channel) + bulk(payload))
			})()
		default: // go-redis begins with a greeting that not every Redis knows
			c.write("-ERR unknown command\r\n")
		}
	}
}

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// readCommand reads an array of bulk strings, which is how Redis's clients send commands.
func readCommand(in *bufio.Reader) ([]string, error) {
	parts, err := readLength(in, '*')
	if err != nil || parts == 0 {
		return nil, errors.Join(errNoCommand, err)
	}
	command := make([]string, parts)
	for i := range command {
		length, err := readLength(in, '$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, length+len("\r\n"))
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		command[i] = string(text[:length])
	}
	return command, nil
}

var errNoCommand = errors.New("not a command")

func readLength(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, errNoCommand
	}
	n, err := strconv.ParseUint(strings.TrimSpace(line[1:]), 10, 16)
	return int(n), err
}
