package cph

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Config says which project's phones are reset, and how. The names are those of a drivers file.
type Config struct {
	// Endpoint is where the API is, such as https://cph.cn-north-4.myhuaweicloud.com.
	Endpoint string `yaml:"endpoint"`
	// ProjectID is the project, of that region, that the phones belong to.
	ProjectID string `yaml:"project_id"`

	// AccessKeyFile and SecretKeyFile are files that hold an access key and its secret, with
	// which every request is signed. They are read once.
	AccessKeyFile string `yaml:"access_key_file"`
	SecretKeyFile string `yaml:"secret_key_file"`

	// The other way in is a token of a user of IAM, for the project.
	IAMEndpoint     string `yaml:"iam_endpoint"`
	IAMDomain       string `yaml:"iam_domain"` // the name of the account
	IAMUser         string `yaml:"iam_user"`
	IAMPasswordFile string `yaml:"iam_password_file"`

	// ImageID is the image that phones get with the reset; empty: they keep theirs.
	ImageID string `yaml:"image_id"`
	// Property is a JSON object, as text, that every phone gets with the reset, such as
	// {"sys.prop.writephonenum":"13666666666"}. It is passed on as it is.
	Property string `yaml:"property"`
	// PollInterval is how often a reset is asked about. Up to half of it is added at random.
	// 0 means 10 s.
	PollInterval time.Duration `yaml:"poll_interval"`
}

const usualPollInterval = 10 * time.Second

// plainID is what project, image, phone and job IDs look like: they become parts of URLs.
var plainID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// check fills in what is left out and says what is wrong, beginning with the key's name.
func (cfg *Config) check() error {
	if err := checkEndpoint(cfg.Endpoint); err != nil {
		return fmt.Errorf("endpoint %w", err)
	}
	if !plainID.MatchString(cfg.ProjectID) {
		return errors.New("project_id must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if cfg.ImageID != "" && !plainID.MatchString(cfg.ImageID) {
		return errors.New("image_id must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if p := jsontext.Value(cfg.Property); cfg.Property != "" && (!p.IsValid() || p.Kind() != '{') {
		return errors.New(`property must be a JSON object in a string, such as '{"name":"value"}'`)
	}
	if cfg.PollInterval < 0 {
		return errors.New("poll_interval must not be negative")
	}
	cfg.PollInterval = cmp.Or(cfg.PollInterval, usualPollInterval)
	return nil
}

// checkEndpoint refuses what would send secrets in the clear.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must be a URL such as https://cph.cn-north-4.myhuaweicloud.com")
	case u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("must be a scheme and a host only")
	case u.Scheme == "http" && !net.ParseIP(u.Hostname()).IsLoopback():
		return errors.New("must be https; http is only for a loopback address such as 127.0.0.1")
	}
	return nil
}

// credentials are the way in that the settings describe: exactly one of the two. The transport is
// for what it asks itself.
func (cfg *Config) credentials(t *http.Transport) (authorizer, error) {
	keys := cfg.AccessKeyFile != "" || cfg.SecretKeyFile != ""
	iam := cfg.IAMEndpoint != "" || cfg.IAMDomain != "" || cfg.IAMUser != "" || cfg.IAMPasswordFile != ""
	switch {
	case keys && iam:
		return nil, errors.New("access_key_file and iam_endpoint are two ways in: set one")
	case iam:
		return newTokens(cfg, t)
	}
	return newSigner(cfg)
}

// readSecret reads a file that holds one line.
func readSecret(key, name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%s is missing", key)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	secret := strings.TrimSpace(string(text))
	if strings.HasPrefix(secret, "\ufeff") {
		return "", fmt.Errorf("%s: %s begins with a byte order mark: save it as plain UTF-8", key, name)
	}
	if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%s: %s must hold one line of text", key, name)
	}
	return secret, nil
}
