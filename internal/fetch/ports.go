package fetch

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Ports are the ports that may be asked. The zero value allows all but those on which other protocols are spoken: what
// we send there could be taken for a command by a server that skips what it does not understand.
type Ports struct {
	allowed []portRange // nil = the zero value
}

type portRange struct{ from, to uint16 }

// foreign are the ports of other protocols (Fetch standard, section 2.9 "Port blocking"), sorted.
var foreign = []uint16{
	1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
	113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548,
	554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566,
	6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}

// ParsePorts reads what --ports takes: ports and ranges of them ("80", "8000-8999"), and "all" for every port. Nothing
// but empty texts gives the zero value. The error names the text that is neither.
func ParsePorts(texts []string) (Ports, error) {
	var p Ports
	for _, text := range texts {
		text = strings.TrimSpace(text)
		switch {
		case text == "":
			continue
		case strings.EqualFold(text, "all"):
			p.allowed = append(p.allowed, portRange{1, 65535})
			continue
		}
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		from, ok1 := parsePort(first)
		to, ok2 := parsePort(last)
		if !ok1 || !ok2 || to < from {
			return Ports{}, fmt.Errorf("%q: want a port like 8080, a range like 8000-8999, or all", text)
		}
		p.allowed = append(p.allowed, portRange{from, to})
	}
	return p, nil
}

func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	return uint16(n), err == nil && n > 0
}

// allows reports whether a port may be asked.
func (p Ports) allows(port uint16) bool {
	if p.allowed == nil {
		_, found := slices.BinarySearch(foreign, port)
		return !found
	}
	return slices.ContainsFunc(p.allowed, func(r portRange) bool { return port >= r.from && port <= r.to })
}

// allowAddr reports whether the port of "host:port" may be asked.
func (p Ports) allowAddr(addr string) bool {
	_, port, err := splitAddr(addr)
	return err == nil && p.allows(port)
}

// check judges the port that a URL names, before anything is dialled: behind a proxy it would be the proxy that dials.
func (p Ports) check(u *url.URL) error {
	port := uint16(80)
	if u.Scheme == "https" {
		port = 443
	}
	if text := u.Port(); text != "" {
		port, _ = parsePort(text) // parseTarget has looked at it
	}
	if p.allows(port) {
		return nil
	}
	return fail(AddressRefused, "request", "port %d of %s is not asked: allow it with --ports", port, u.Hostname())
}
