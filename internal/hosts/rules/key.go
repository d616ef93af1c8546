package rules

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// known is every key: its name in the set, and how its value is read.
var known = map[string]struct {
	key   keys
	parse func(r *Rule, value string) error
}{
	"rate":    {keyRate, parseRate},
	"burst":   {keyBurst, parseBurst},
	"conns":   {keyConns, parseConns},
	"delay":   {keyDelay, parseDelay},
	"agent":   {keyAgent, parseAgent},
	"robots":  {keyRobots, parseRobots},
	"blocked": {keyBlocked, parseBlocked},
}

// parseKey adds one key=value to l.
func (l *line) parseKey(token string) error {
	name, value, hasValue := strings.Cut(token, "=")
	k, ok := known[name]
	switch {
	case !ok:
		return fmt.Errorf("%s: not a key: known are rate=, burst=, conns=, delay=, agent=, robots= and blocked", clip(token))
	case !hasValue && k.key == keyBlocked:
		value = "yes"
	case !hasValue:
		return fmt.Errorf("%s: the value is missing: write %s=VALUE without blanks", clip(token), name)
	}
	value, err := unquote(value)
	if err == nil {
		err = k.parse(&l.rule, value)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", clip(token), err)
	}
	if l.named&k.key != 0 {
		return fmt.Errorf("%s: %s stands twice in this line: write it once", clip(token), name)
	}
	l.named |= k.key
	return nil
}

var errQuote = errors.New(`a quote goes around a whole value: write key="value", and \" for a quote within`)

// unquote takes quotes off a value. Within them \" is a quote and \\ a backslash.
func unquote(v string) (string, error) {
	if !strings.HasPrefix(v, `"`) {
		if strings.Contains(v, `"`) {
			return "", errQuote
		}
		return v, nil
	}
	var b strings.Builder
	for i := 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == '"' && i == len(v)-1:
			return b.String(), nil
		case c == '"':
			return "", errQuote
		case c == '\\' && i+1 < len(v) && (v[i+1] == '"' || v[i+1] == '\\'):
			i++
			b.WriteByte(v[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errQuote
}

func parseRate(r *Rule, value string) error {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(v) || v != 0 && (v < MinRate || v > MaxRate) {
		return fmt.Errorf("a rate is requests per second, %s to %d, or 0 for no limit", strconv.FormatFloat(MinRate, 'f', -1, 64), int(MaxRate))
	}
	v = math.Abs(v) // "-0"
	r.Rate = &v
	return nil
}

func parseBurst(r *Rule, value string) error {
	v, err := strconv.Atoi(value)
	if err != nil || v < 1 || v > MaxCount {
		return fmt.Errorf("a burst is a whole number, 1 to %d", MaxCount)
	}
	r.Burst = &v
	return nil
}

func parseConns(r *Rule, value string) error {
	v, err := strconv.Atoi(value)
	if err != nil || v < 0 || v > MaxCount {
		return fmt.Errorf("conns is a whole number up to %d, 0 for no limit", MaxCount)
	}
	r.Conns = &v
	return nil
}

func parseDelay(r *Rule, value string) error {
	v, err := time.ParseDuration(value)
	if err != nil || v < 0 || v > MaxDelay {
		return fmt.Errorf("a delay is a time with its unit up to %.0fh, such as 500ms, 2s or 1m30s, or 0 for none", MaxDelay.Hours())
	}
	r.Delay = v
	return nil
}

func parseAgent(r *Rule, value string) error {
	if !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value {
		return errors.New(`an agent is what the User-Agent header says, without control characters and without blanks around it, or "" for the job's own`)
	}
	r.Agent = value
	return nil
}

func parseRobots(r *Rule, value string) error {
	if value != Obey && value != Ignore {
		return errors.New("write robots=obey or robots=ignore")
	}
	r.Robots = value
	return nil
}

func parseBlocked(r *Rule, value string) error {
	if value != "yes" && value != "no" {
		return errors.New("write blocked alone, or blocked=no to except a host from a wider rule")
	}
	r.Blocked = value == "yes"
	return nil
}

// write appends what l names to b, in the one spelling that String uses.
func (l line) write(b *strings.Builder) {
	r := l.rule
	if l.named&keyRate != 0 {
		b.WriteString(" rate=" + strconv.FormatFloat(*r.Rate, 'g', -1, 64))
	}
	if l.named&keyBurst != 0 {
		b.WriteString(" burst=" + strconv.Itoa(*r.Burst))
	}
	if l.named&keyConns != 0 {
		b.WriteString(" conns=" + strconv.Itoa(*r.Conns))
	}
	if l.named&keyDelay != 0 {
		b.WriteString(" delay=" + r.Delay.String())
	}
	if l.named&keyAgent != 0 {
		b.WriteString(` agent="` + quoter.Replace(r.Agent) + `"`)
	}
	if l.named&keyRobots != 0 {
		b.WriteString(" robots=" + r.Robots)
	}
	switch {
	case l.named&keyBlocked == 0:
	case r.Blocked:
		b.WriteString(" blocked")
	default:
		b.WriteString(" blocked=no")
	}
}

// quoter writes what may not stand in quotes as it is.
var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
