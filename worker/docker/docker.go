package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchreset/worker"
)

// Config are the settings of a driver of this type in the drivers file.
type Config struct {
	// Host is the engine: unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST, the
	// last one with a path if the engine's socket is not /var/run/docker.sock.
	Host string `yaml:"host"`
	// TLSCAFile, TLSCertFile and TLSKeyFile are PEM files for tcp: whom the engine's certificate
	// is from, and who we are. Without them tcp may only lead to this machine.
	TLSCAFile   string `yaml:"tls_ca_file"`
	TLSCertFile string `yaml:"tls_cert_file"`
	TLSKeyFile  string `yaml:"tls_key_file"`
	// SSHKeyFile is the private key for ssh, without a passphrase, and SSHKnownHostsFile what
	// OpenSSH calls known_hosts.
	SSHKeyFile        string `yaml:"ssh_key_file"`
	SSHKnownHostsFile string `yaml:"ssh_known_hosts_file"`

	// Data are the folders in a phone that a reset empties; without any, /data. A mount at one of
	// them or below it is emptied. Another writable mount must be at one of Keep or below it, or
	// the reset is refused: nobody has said what it is.
	Data []string `yaml:"data"`
	Keep []string `yaml:"keep"`
	// WipeCommand empties the mounts, in a container that has nothing but the phone's image and
	// these mounts. Without it, Android's find does.
	WipeCommand []string `yaml:"wipe_command"`

	// Image is what the phones have after the reset, if it is not what they had, and Properties are
	// arguments name=value of the phone's command that are added or replaced. A label
	// docker.image or docker.property.NAME in the fleet goes before them.
	Image      string            `yaml:"image"`
	Properties map[string]string `yaml:"properties"`
}

// Driver resets phones that are containers of one engine.
type Driver struct {
	cfg    Config
	client *http.Client
	close  func()
	pause  time.Duration // between two looks at the same thing
}

// minMinor is the second number of the oldest version of the API that is understood, 1.41, which
// came with Docker 20.10.
const minMinor = 41

// New returns a driver. Errors begin with the key of the setting.
func New(cfg Config) (*Driver, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	dial, closer, err := dialer(cfg)
	if err != nil {
		return nil, err
	}
	return &Driver{
		cfg: cfg,
		client: &http.Client{
			// A connection for each call: none that is kept can turn out to be dead when a reset is
			// half-way, and none is left when the driver ends.
			Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		close: closer,
		pause: 500 * time.Millisecond,
	}, nil
}

// Repeatable says that a reset that was interrupted anywhere may be repeated under its key: it goes
// on where it was.
func (d *Driver) Repeatable() bool { return true }

// Close ends the connection to the host of the engine, if there is one that is shared.
func (d *Driver) Close() { d.close() }

// Check asks the engine whether it can be reached, is new enough, and lets us list containers.
func (d *Driver) Check(ctx context.Context) error {
	e, err := d.connect(ctx)
	if err != nil {
		return err
	}
	_, err = e.list(ctx, filters{"label": {labelReset}})
	return err
}

// connect asks the engine for the version of its API. What it says is used as it is: we pass on
// what it tells of a container, and an engine knows its own fields best.
func (d *Driver) connect(ctx context.Context) (engine, error) {
	e := engine{client: d.client}
	var said struct{ APIVersion string }
	if err := e.call(ctx, call{what: "the question for its version", path: "/version"}, &said); err != nil {
		return engine{}, err
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(said.APIVersion, "1."))
	if err != nil || minor < minMinor {
		return engine{}, &engineError{
			call:    "the question for its version",
			message: fmt.Sprintf("its API has version %.20q, needed is 1.%d or a newer 1.x", said.APIVersion, minMinor),
		}
	}
	e.base = "/v1." + strconv.Itoa(minor)
	return e, nil
}

// Reset puts a fresh container in the place of the phone's.
func (d *Driver) Reset(ctx context.Context, a worker.Attempt) error {
	r := &reset{cfg: d.wanted(a), a: a, pause: d.pause}
	err := r.run(ctx, d)
	if err == nil {
		return nil
	}
	r.tidy(ctx)
	return judge(ctx, err, r.sent)
}

// wanted are the settings for this phone: the fleet's labels go before those of the driver.
func (d *Driver) wanted(a worker.Attempt) Config {
	cfg := d.cfg
	cfg.Image = cmp.Or(a.Labels["docker.image"], cfg.Image)
	cfg.Properties = map[string]string{}
	maps.Copy(cfg.Properties, d.cfg.Properties)
	for label, value := range a.Labels {
		if name, ok := strings.CutPrefix(label, "docker.property."); ok {
			cfg.Properties[name] = value
		}
	}
	return cfg
}
