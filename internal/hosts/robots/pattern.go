package robots

import "strings"

// pattern is the path of a rule, cut at its "*". It matches what begins with prefix, goes on with each of the middle pieces in
// their order, and, where it is anchored, ends with suffix.
type pattern struct {
	prefix string
	// stars says that anything may stand between the pieces; without it the pattern is prefix alone.
	stars  bool
	middle []string
	suffix string
	// anchored says that the pattern ended with "$": the target ends where the pattern does.
	anchored bool
	// split says that the pattern is to be compared with subject.split, and not with subject.path.
	split bool
	// weight is the number of octets of the whole pattern, special characters included.
	weight int
	allow  bool
}

// compile makes a rule ready for matching. "*" is any octets, also none; "$" is the end of the target where it ends the pattern,
// and itself anywhere else (RFC 9309 2.2.3).
func compile(r rule) pattern {
	path, anchored := strings.CutSuffix(r.path, "$")
	path = normalize(path, true)
	split := splitQuery(path)
	p := pattern{anchored: anchored, allow: r.allow, weight: len(split)}
	if anchored {
		p.weight++
	}
	// The target's first "?" is where the pattern's is, provided that no "*" can reach over it. Then both can be compared in the
	// form that takes "https://" and "https%3A%2F%2F" for the same in a query; with a "*" before it only the octets can.
	if star, query := strings.IndexByte(path, '*'), strings.IndexByte(path, '?'); star < 0 || 0 <= query && query < star {
		p.split, path = true, split
	}
	p.cut(path)
	return p
}

// cut takes the path apart at its "*".
func (p *pattern) cut(path string) {
	p.prefix, path, p.stars = strings.Cut(path, "*")
	if !p.stars {
		return
	}
	if p.anchored {
		last := strings.LastIndexByte(path, '*') + 1
		path, p.suffix = path[:last], path[last:]
	}
	for piece := range strings.SplitSeq(path, "*") {
		if piece != "" {
			p.middle = append(p.middle, piece)
		}
	}
}

// never reports that no target can match, for they all begin with "/".
func (p *pattern) never() bool {
	if p.prefix == "" {
		return !p.stars
	}
	return p.prefix[0] != '/'
}

// plain reports that the pattern is a mere prefix.
func (p *pattern) plain() bool { return !p.stars && !p.anchored }

// matches reports whether the pattern fits t. Each piece is taken at its first place after the one before, which leaves the most
// room for those that follow: nothing is ever tried twice, so the time is that of one reading of t.
func (p *pattern) matches(t subject) bool {
	target := t.path
	if p.split {
		target = t.split
	}
	rest, ok := strings.CutPrefix(target, p.prefix)
	if !ok {
		return false
	}
	if !p.stars {
		return !p.anchored || rest == ""
	}
	for _, piece := range p.middle {
		at := strings.Index(rest, piece)
		if at < 0 {
			return false
		}
		rest = rest[at+len(piece):]
	}
	return !p.anchored || strings.HasSuffix(rest, p.suffix)
}
