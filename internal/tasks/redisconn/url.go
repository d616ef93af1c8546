package redisconn

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// The schemes that Open knows.
const (
	schemePlain    = "redis"
	schemeTLS      = "rediss"
	schemeSentinel = "redis-sentinel"
)

// target is a parsed Redis URL.
type target struct {
	scheme                         string
	addrs                          []string // HOST:PORT; several for sentinels only
	user, password                 string   // of the Redis servers
	sentinelUser, sentinelPassword string
	master                         string // sentinel only
	db                             int
}

// parse takes a Redis URL apart. It does so by hand because net/url quotes the whole URL, password and all, in its
// errors, and refuses the comma-separated hosts of sentinel URLs.
func parse(rawURL string) (target, error) {
	t, err := parseParts(rawURL)
	if err != nil {
		return target{}, fmt.Errorf("redis URL %q: %w", Redact(rawURL), err)
	}
	return t, nil
}

func parseParts(rawURL string) (target, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	if !found {
		return target{}, errors.New("no scheme: write redis://HOST:PORT/DB")
	}
	t := target{scheme: strings.ToLower(scheme)}
	authority, path, query, err := splitRest(rest)
	if err != nil {
		return target{}, err
	}
	userinfo, hosts := splitUserinfo(authority)
	user, password, err := credentials(userinfo)
	if err != nil {
		return target{}, err
	}
	switch t.scheme {
	case schemePlain, schemeTLS:
		t.user, t.password = user, password
		err = t.single(hosts, path, query)
	case schemeSentinel:
		t.sentinelUser, t.sentinelPassword = user, password
		err = t.sentinels(hosts, path, query)
	default:
		err = errors.New("unknown scheme: use redis://, rediss:// or redis-sentinel://")
	}
	return t, err
}

func (t *target) single(hosts, path string, query url.Values) error {
	if strings.Contains(hosts, ",") {
		return errors.New("several hosts: only redis-sentinel:// takes a list")
	}
	for name := range query {
		return fmt.Errorf("unknown parameter %q", name)
	}
	addr, err := hostPort(hosts, "6379")
	if err != nil {
		return err
	}
	t.addrs = []string{addr}
	t.db, err = database(strings.Trim(path, "/"))
	return err
}

func (t *target) sentinels(hosts, path string, query url.Values) error {
	for name := range query {
		switch name {
		case "master", "db", "username", "password":
		default:
			return fmt.Errorf("unknown parameter %q: sentinel URLs take master, db, username, password", name)
		}
	}
	if t.master = query.Get("master"); t.master == "" {
		return errors.New("no master name: add ?master=NAME")
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := hostPort(host, "26379")
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, addr)
	}
	number := query.Get("db")
	if number == "" {
		number = strings.Trim(path, "/")
	}
	t.user, t.password = query.Get("username"), query.Get("password")
	var err error
	t.db, err = database(number)
	return err
}

var errEncode = errors.New("a user name or password holds one of / ? # @: percent-encode it (%2F %3F %23 %40)")

// splitRest cuts what follows "://" into authority, path and query. An "@" where none can stand means that a password
// was cut in two; it is refused before any part of it can reach an error.
func splitRest(rest string) (authority, path string, query url.Values, err error) {
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	tail, fragment, _ := strings.Cut(tail, "#")
	path, rawQuery, _ := strings.Cut(tail, "?")
	if strings.Contains(tail, "@") || strings.Contains(fragment, "@") {
		return "", "", nil, errEncode
	}
	if query, err = url.ParseQuery(rawQuery); err != nil {
		return "", "", nil, errors.New("parameters: bad percent-encoding")
	}
	return authority, path, query, nil
}

func splitUserinfo(authority string) (userinfo, hosts string) {
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		return authority[:i], authority[i+1:]
	}
	return "", authority
}

func credentials(userinfo string) (user, password string, err error) {
	user, password, _ = strings.Cut(userinfo, ":")
	if user, err = url.PathUnescape(user); err != nil {
		return "", "", errors.New("user name: bad percent-encoding")
	}
	if password, err = url.PathUnescape(password); err != nil {
		return "", "", errors.New("password: bad percent-encoding (write % as %25)")
	}
	return user, password, nil
}

func hostPort(host, defaultPort string) (string, error) {
	if host == "" {
		return "", errors.New("no host")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		// What fails for want of a port passes with one; anything else is no host.
		if name, port, err = net.SplitHostPort(host + ":" + defaultPort); err != nil {
			return "", fmt.Errorf("host %q: not HOST:PORT", host)
		}
	}
	if port == "" {
		port = defaultPort
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("port %q: not a number from 1 to 65535", port)
	}
	if name == "" {
		return "", errors.New("no host")
	}
	return net.JoinHostPort(name, port), nil
}

func database(number string) (int, error) {
	if number == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("database %q: not a number", number)
	}
	return n, nil
}

// Redact returns a Redis URL fit for logs and errors: the same with every password as "***". Of a URL in which it
// cannot tell where a password ends it shows the scheme alone.
func Redact(rawURL string) string {
	prefix, rest := "", rawURL
	if scheme, after, found := strings.Cut(rawURL, "://"); found {
		prefix, rest = scheme+"://", after
	}
	authority, path, query, err := splitRest(rest)
	if err != nil {
		return prefix + "***"
	}
	userinfo, hosts := splitUserinfo(authority)
	if user, _, hasPassword := strings.Cut(userinfo, ":"); hasPassword {
		hosts = user + ":***@" + hosts
	} else if userinfo != "" {
		hosts = userinfo + "@" + hosts
	}
	for name := range query {
		switch name {
		case "master", "db", "username":
		default:
			query[name] = []string{"***"}
		}
	}
	if len(query) == 0 {
		return prefix + hosts + path
	}
	return prefix + hosts + path + "?" + strings.ReplaceAll(query.Encode(), "%2A%2A%2A", "***")
}
