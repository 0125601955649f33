package execdriver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/cmd/harness"
)

// adbServer starts a server of the real adb, as the first call of adb does, and returns what its
// clients need in their environment. It ends with the test.
func adbServer(t *testing.T) (env []string) {
	t.Helper()
	program, err := exec.LookPath("adb")
	if err != nil {
		t.Fatal("this test needs Android's adb: run .ci/setup, or apt-get install adb")
	}
	addr, err := harness.FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir() // where it makes its key
	env = []string{"ANDROID_ADB_SERVER_PORT=" + port, "HOME=" + home, "TMPDIR=" + home, "ADB_MDNS=0"}
	p, err := harness.Start(context.WithoutCancel(t.Context()), harness.Command{
		Name: "adb", Args: []string{program, "nodaemon", "server"}, Env: env, Log: home + "/log",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.WaitReady(t.Context(), 30*time.Second, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		t.Fatalf("%v: %s", err, read(t, home+"/log"))
	}
	return env
}

// adbd is a phone as adb finds it on the network: the daemon of Android, without encryption, and
// what its shell knows. It is not Android.
type adbd struct {
	t    *testing.T
	addr string
	all  sync.WaitGroup

	// wipe is what it does when it is told to wipe itself: wipes, lies, locked, or gone, which
	// does not come back. told is called before.
	wipe string
	told func()
	mute bool // says nothing at all
	deny bool // trusts no key

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	boot     int
	since    time.Time // of the boot
	files    map[string]bool
	wipes    int
	closed   bool
}

// takesToBoot is how long it can be reached and has not booted yet.
const takesToBoot = 300 * time.Millisecond

// newADBD starts a phone that booted a while ago.
func newADBD(t *testing.T, change func(*adbd)) *adbd {
	t.Helper()
	d := &adbd{t: t, wipe: "wipes", told: func() {}, conns: map[net.Conn]bool{}, boot: 1, since: time.Now().Add(-1000 * time.Second), files: map[string]bool{"/data/local/tmp/photo": true}}
	if change != nil {
		change(d)
	}
	d.listen("127.0.0.1:0")
	t.Cleanup(func() {
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.leave()
		d.all.Wait()
	})
	return d
}

func (d *adbd) listen(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	l, err := net.Listen("tcp", addr) //nolint:noctx // closed with the test
	if err != nil {
		d.t.Error(err)
		return
	}
	d.listener, d.addr = l, l.Addr().String()
	d.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns[c] = true
			d.mu.Unlock()
			d.all.Go(func() {
				d.serve(c)
				_ = c.Close()
			})
		}
	})
}

// leave cuts every connection, and lets nobody in.
func (d *adbd) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.listener.Close()
	for c := range d.conns {
		_ = c.Close()
	}
	clear(d.conns)
}

func (d *adbd) wiped() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wipes
}

func (d *adbd) has(file string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[file]
}

// message is one of adb's protocol.
type message struct {
	command    string
	arg0, arg1 uint32
	data       []byte
}

func receive(r io.Reader) (m message, err error) {
	var header [24]byte
	if _, err = io.ReadFull(r, header[:]); err != nil {
		return m, err
	}
	field := func(n int) uint32 { return binary.LittleEndian.Uint32(header[4*n:]) }
	m = message{string(header[:4]), field(1), field(2), make([]byte, min(field(3), 1<<20))}
	_, err = io.ReadFull(r, m.data)
	return m, err
}

func (m message) send(w io.Writer) error {
	sum := uint32(0)
	for _, b := range m.data {
		sum += uint32(b)
	}
	out := []byte(m.command)
	for _, field := range []uint32{m.arg0, m.arg1, uint32(len(m.data)), sum, ^binary.LittleEndian.Uint32([]byte(m.command))} {
		out = binary.LittleEndian.AppendUint32(out, field)
	}
	_, err := w.Write(append(out, m.data...))
	return err
}

const (
	adbVersion = 0x01000000
	adbMaxData = 256 << 10
	authToken  = 1
)

// serve speaks with one adb server. Each shell is answered at once, with all that it has to say.
func (d *adbd) serve(c net.Conn) {
	const own = 1 // the ID of every stream: its output is sent before the next one is looked at
	for {
		m, err := receive(c)
		if err != nil {
			return
		}
		var answers []message
		switch {
		case d.mute:
		case d.deny && (m.command == "CNXN" || m.command == "AUTH"):
			answers = []message{{"AUTH", authToken, 0, make([]byte, 20)}}
			if m.arg0 == 3 { // its public key: now a person would be asked
				answers = nil
			}
		case m.command == "CNXN":
			answers = []message{{"CNXN", adbVersion, adbMaxData, []byte("device::ro.product.name=fake;features=shell_v2")}}
		case m.command == "OPEN":
			service, command, _ := strings.Cut(strings.TrimRight(string(m.data), "\x00"), ":") // shell,v2,TERM=xterm,raw:getprop
			if !strings.HasPrefix(service, "shell,v2,") {
				answers = []message{{"CLSE", 0, m.arg0, nil}}
				break
			}
			out, status, stays := d.shell(command)
			if !stays {
				return
			}
			answers = []message{{"OKAY", own, m.arg0, nil}, {"WRTE", own, m.arg0, append(out, 3, 1, 0, 0, 0, status)}, {"CLSE", own, m.arg0, nil}}
		case m.command == "WRTE":
			answers = []message{{"OKAY", own, m.arg0, nil}}
		}
		for _, answer := range answers {
			if answer.send(c) != nil {
				return
			}
		}
	}
}

// packet is one of the shell protocol: 1 is standard output, 2 is standard error.
func packet(stream byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{stream}, uint32(len(text))), text...)
}

var filePath = regexp.MustCompile(`/data/local/tmp/[\w.]+`)

// shell runs a command, and says whether the phone is there still.
func (d *adbd) shell(command string) (out []byte, status byte, stays bool) {
	if command == "cmd testharness enable" {
		return d.enable()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	file := filePath.FindString(command)
	switch command {
	case "getprop sys.boot_completed":
		if time.Since(d.since) < takesToBoot {
			return packet(1, "\n"), 0, true
		}
		return packet(1, "1\n"), 0, true
	case "cat /proc/sys/kernel/random/boot_id /proc/uptime":
		return packet(1, fmt.Sprintf("boot-%d\n%.2f 9.00\n", d.boot, time.Since(d.since).Seconds())), 0, true
	case "if [ -e " + file + " ]; then echo old; else echo new; fi":
		return packet(1, map[bool]string{true: "old\n", false: "new\n"}[d.files[file]]), 0, true
	case "echo > " + file + " && sync":
		d.files[file] = true
		return nil, 0, true
	case "rm " + file:
		delete(d.files, file)
		return nil, 0, true
	}
	return packet(2, "sh: "+command+": not found\n"), 127, true
}

func (d *adbd) enable() (out []byte, status byte, stays bool) {
	d.told()
	switch d.wipe {
	case "locked":
		return packet(2, "Test Harness Mode cannot be enabled if there is a lock screen\n"), 2, true
	case "lies": // and time goes by
		d.pass(1000 * time.Second)
		return nil, 0, true
	case "hears nothing":
		return nil, 0, true
	}
	d.mu.Lock()
	clear(d.files)
	d.wipes++
	d.boot++
	d.mu.Unlock()
	d.all.Go(func() {
		d.leave()
		if d.wipe == "gone" {
			return
		}
		if !harness.Pause(d.t.Context(), 300*time.Millisecond) { // which it takes to wipe itself
			return
		}
		d.mu.Lock()
		d.since = time.Now()
		d.mu.Unlock()
		d.listen(d.addr)
	})
	return nil, 0, false
}

// pass has the present boot be older.
func (d *adbd) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = d.since.Add(-by)
}

// newPhone is the example for adb with the real adb.
func newPhone(t *testing.T, env []string) *bench {
	t.Helper()
	b := newBench(t, Config{Look: true}, nil, "adb_testharness.py")
	b.command = append([]string{"env", "PATH=" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1"}, append(env, b.command[len(b.command)-1])...)
	return b
}
