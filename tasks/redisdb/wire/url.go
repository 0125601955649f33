package wire

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// topology is how Redis is run.
type topology int

const (
	single topology = iota
	sentinel
	cluster
)

// scheme is what the beginning of a URL says.
type scheme struct {
	topology topology
	tls      bool
	port     string // of a host without one
}

var schemes = map[string]scheme{
	"redis":           {single, false, "6379"},
	"rediss":          {single, true, "6379"},
	"redis-sentinel":  {sentinel, false, "26379"},
	"rediss-sentinel": {sentinel, true, "26379"},
	"redis-cluster":   {cluster, false, "6379"},
	"rediss-cluster":  {cluster, true, "6379"},
}

// address is what a URL of Redis says.
type address struct {
	redis.UniversalOptions
	scheme
	name  string // of the scheme
	files tlsFiles
	sni   string
	based bool // the database is set
	// didYouMean is the end of a sentence about a name that is not known.
	didYouMean func(name string, known []string) string
}

// encode is for passwords that are cut into pieces as a URL. No error repeats any of them.
const encode = "; in a password write # as %23, / as %2F, % as %25, ? as %3F and @ as %40"

// parseAddress reads SCHEME://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DATABASE][?PARAMETERS].
// net/url takes no list of hosts, and its errors repeat the password.
func parseAddress(raw string, didYouMean func(name string, known []string) string) (*address, error) {
	name, rest, found := strings.Cut(raw, "://")
	if !found || rest == "" {
		return nil, errors.New("is not a URL such as redis://localhost:6379/0")
	}
	a := &address{name: strings.ToLower(name), didYouMean: didYouMean}
	if a.scheme, found = schemes[a.name]; !found {
		return nil, unknownScheme(name)
	}
	if strings.Contains(rest, "#") {
		return nil, errors.New(`has a fragment, which a "#" begins` + encode)
	}
	authority, behind := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, behind = rest[:i], rest[i:]
	}
	if strings.Contains(behind, "@") {
		return nil, errors.New(`has an "@" behind the first "/" or "?"` + encode)
	}
	hosts := authority
	if i := strings.LastIndex(authority, "@"); i >= 0 {
		hosts = authority[i+1:]
		if err := a.setUser(authority[:i]); err != nil {
			return nil, err
		}
	}
	path, query, _ := strings.Cut(behind, "?")
	for _, set := range []func() error{
		func() error { return a.setHosts(hosts) },
		func() error { return a.setPath(path) },
		func() error { return a.setParameters(query) },
		a.complete,
	} {
		if err := set(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z][A-Za-z_+-]{0,39}$`)

func unknownScheme(name string) error {
	known := strings.Join(slices.Sorted(maps.Keys(schemes)), ", ")
	if !plainWord.MatchString(name) {
		return fmt.Errorf("has an unknown scheme; it must be one of %s", known)
	}
	return fmt.Errorf("has the scheme %q; it must be one of %s", name, known)
}

func (a *address) setUser(text string) error {
	user, password, _ := strings.Cut(text, ":")
	var badUser, badPassword error
	a.Username, badUser = url.PathUnescape(user)
	a.Password, badPassword = url.PathUnescape(password)
	if badUser != nil || badPassword != nil {
		return errors.New(`has a "%" before the host that no two hexadecimal digits follow` + encode)
	}
	if a.Username != "" && a.Password == "" {
		// go-redis would log in as nobody.
		return fmt.Errorf("has a user without a password; write %[1]s://USER:PASSWORD@HOST, or %[1]s://:PASSWORD@HOST for a password alone", a.name)
	}
	return nil
}

func (a *address) setHosts(text string) error {
	hosts := strings.Split(text, ",")
	if a.topology == single && len(hosts) > 1 {
		return fmt.Errorf("has %d hosts; %s:// takes one, redis-sentinel:// and redis-cluster:// take many", len(hosts), a.name)
	}
	for _, host := range hosts {
		addr, ok := withPort(host, a.port)
		if !ok {
			return errors.New("has no host, or one with a port that is not a number from 1 to 65535: write HOST:PORT, with brackets around an IPv6 address" + encode)
		}
		a.Addrs = append(a.Addrs, addr)
	}
	return nil
}

// withPort gives a host the default port, unless it has its own.
func withPort(host, port string) (string, bool) {
	name, own, err := net.SplitHostPort(host)
	if err != nil {
		name, own, err = net.SplitHostPort(host + ":" + port)
	}
	number, notOne := strconv.ParseUint(own, 10, 16)
	if host == "" || err != nil || notOne != nil || number == 0 {
		return "", false
	}
	if name == "" {
		name = "localhost"
	}
	return net.JoinHostPort(name, own), true
}

func (a *address) setPath(path string) error {
	if path = strings.Trim(path, "/"); path == "" {
		return nil
	}
	return a.setDatabase(path)
}

func (a *address) setDatabase(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 0:
		return fmt.Errorf("has the database %.80q; it must be a number", text)
	case a.topology == cluster && n != 0:
		return fmt.Errorf("has the database %d, and a cluster has only one", n)
	case a.based:
		return errors.New("has the database twice, behind the host and as a parameter")
	}
	a.DB, a.based = n, true
	return nil
}

// parameter is something that may follow the question mark.
type parameter struct {
	barred func(*address) string // why this URL may not have it; nil: every URL may
	set    func(*address, string) error
}

// parameters have the names that they have in redis-cli (TLS) and in go-redis.
var parameters = map[string]parameter{
	"master":            {sentinelOnly, textAt(func(a *address) *string { return &a.MasterName })},
	"sentinel_username": {sentinelOnly, textAt(func(a *address) *string { return &a.SentinelUsername })},
	"sentinel_password": {sentinelOnly, textAt(func(a *address) *string { return &a.SentinelPassword })},

	"cacert": {tlsOnly, textAt(func(a *address) *string { return &a.files.authority })},
	"cert":   {tlsOnly, textAt(func(a *address) *string { return &a.files.cert })},
	"key":    {tlsOnly, textAt(func(a *address) *string { return &a.files.key })},
	"sni":    {tlsOnly, textAt(func(a *address) *string { return &a.sni })},

	"db":                 {nil, (*address).setDatabase},
	"client_name":        {nil, textAt(func(a *address) *string { return &a.ClientName })},
	"max_retries":        {nil, (*address).setRetries},
	"pool_size":          {nil, countAt(func(a *address) *int { return &a.PoolSize })},
	"min_idle_conns":     {nil, countAt(func(a *address) *int { return &a.MinIdleConns })},
	"max_active_conns":   {nil, countAt(func(a *address) *int { return &a.MaxActiveConns })},
	"dial_timeout":       {nil, timeAt(func(a *address) *time.Duration { return &a.DialTimeout })},
	"read_timeout":       {nil, timeAt(func(a *address) *time.Duration { return &a.ReadTimeout })},
	"write_timeout":      {nil, timeAt(func(a *address) *time.Duration { return &a.WriteTimeout })},
	"pool_timeout":       {nil, timeAt(func(a *address) *time.Duration { return &a.PoolTimeout })},
	"conn_max_idle_time": {nil, timeAt(func(a *address) *time.Duration { return &a.ConnMaxIdleTime })},
	"conn_max_lifetime":  {nil, timeAt(func(a *address) *time.Duration { return &a.ConnMaxLifetime })},
}

func sentinelOnly(a *address) string {
	if a.topology == sentinel {
		return ""
	}
	return "is for redis-sentinel:// and rediss-sentinel:// only"
}

func tlsOnly(a *address) string {
	if a.tls {
		return ""
	}
	return "is about TLS, which is " + a.withTLS()
}

// withTLS is the scheme with TLS.
func (a *address) withTLS() string {
	return "rediss" + strings.TrimPrefix(strings.TrimPrefix(a.name, "rediss"), "redis") + "://"
}

func textAt(at func(*address) *string) func(*address, string) error {
	return func(a *address, value string) error {
		*at(a) = value
		return nil
	}
}

func countAt(at func(*address) *int) func(*address, string) error {
	return func(a *address, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return fmt.Errorf("must be a number from 1 on, not %.80q", value)
		}
		*at(a) = n
		return nil
	}
}

func (a *address) setRetries(value string) error {
	if value == "-1" { // none, which go-redis tells from its default
		a.MaxRetries = -1
		return nil
	}
	return countAt(func(a *address) *int { return &a.MaxRetries })(a, value)
}

func timeAt(at func(*address) *time.Duration) func(*address, string) error {
	return func(a *address, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return fmt.Errorf("must be a time such as 500ms or 3s, not %.80q", value)
		}
		*at(a) = d
		return nil
	}
}

func (a *address) setParameters(query string) error {
	if query == "" {
		return nil
	}
	given := map[string]int{}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if value == "" {
			return errors.New("has a parameter without a value; in a password write & as %26 and = as %3D")
		}
		if err := a.setParameter(name, value); err != nil {
			return err
		}
		if given[name]++; given[name] > 1 {
			return fmt.Errorf("has the parameter %q 2 times", name)
		}
	}
	return nil
}

func (a *address) setParameter(name, raw string) error {
	p, known := parameters[name]
	if !known {
		return a.unknownParameter(name)
	}
	if p.barred != nil {
		if why := p.barred(a); why != "" {
			return fmt.Errorf("has the parameter %q, which %s", name, why)
		}
	}
	if strings.Contains(raw, "+") {
		return fmt.Errorf(`has a "+" in the parameter %q, which could be a space: write %%2B for a +, %%20 for a space`, name)
	}
	value, err := url.QueryUnescape(raw)
	if err != nil {
		return fmt.Errorf(`has a parameter %q that cannot be read: write %%25 for a %%`, name)
	}
	if err := p.set(a, value); err != nil && name != "db" {
		return fmt.Errorf("has the parameter %q, which %w", name, err)
	} else if err != nil {
		return err
	}
	return nil
}

// unknownParameter names it, unless it may be a piece of a password.
func (a *address) unknownParameter(name string) error {
	if !plainWord.MatchString(name) {
		return errors.New("has an unknown parameter; in a password write & as %26 and = as %3D")
	}
	hint := a.didYouMean(name, slices.Sorted(maps.Keys(parameters)))
	if hint == "" && a.topology == sentinel {
		hint = "; in a password write & as %26"
	}
	switch strings.ToLower(name) {
	case "tls", "ssl":
		hint = "; TLS is " + a.withTLS()
	case "skip_verify", "insecure":
		hint = "; certificates are always checked: cacert=FILE names the authority, sni=NAME the name in the certificate"
	case "username", "user", "password":
		hint = fmt.Sprintf("; write %s://USER:PASSWORD@HOST", a.name)
	}
	return fmt.Errorf("has the unknown parameter %q%s", name, hint)
}

// complete checks what belongs together.
func (a *address) complete() (err error) {
	switch {
	case a.topology == sentinel && a.MasterName == "":
		return fmt.Errorf("needs the master's name: %s://HOST:26379?master=NAME", a.name)
	case a.SentinelUsername != "" && a.SentinelPassword == "":
		return errors.New(`has the parameter "sentinel_username" without "sentinel_password"`)
	}
	if a.tls {
		a.TLSConfig, err = a.files.config(a.sni)
	}
	return err
}
