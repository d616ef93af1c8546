package worker

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/icholy/digest"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// challenges are those that origins asked with (RFC 7616, section 3.3). They are answered in advance from then on, so that
// only the first request of a worker to an origin takes two exchanges, and those after which a nonce is no longer taken.
type challenges struct {
	mu    sync.Mutex
	known map[challengeKey]*challenge
}

type challengeKey struct {
	job    tasks.JobID // two jobs may have two accounts
	origin string
}

// challenge counts how often its nonce was used: each use has a number of its own (section 3.4, nc).
type challenge struct {
	digest.Challenge
	used int
}

// maxChallenges is how many are remembered.
const maxChallenges = 10_000

// next returns the challenge of an origin and the number of its use, nil where none is known.
func (c *challenges) next(key challengeKey) (*digest.Challenge, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.known[key]
	if known == nil {
		return nil, 0
	}
	known.used++
	return &known.Challenge, known.used
}

// learn takes a challenge that came as the answer to the nonce refused, "" = to none. Where another request has learnt one
// meanwhile, that one stays: with as many nonces as there are requests none would be used twice.
func (c *challenges) learn(key challengeKey, refused string, fresh *digest.Challenge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.known[key]; known != nil && known.Nonce != refused {
		return
	}
	if c.known == nil || len(c.known) >= maxChallenges {
		c.known = map[challengeKey]*challenge{}
	}
	c.known[key] = &challenge{Challenge: *fresh}
}

func (a *attempt) challengeKey(target string) challengeKey {
	u, _ := canon.Parse(target)
	return challengeKey{job: a.batch.Job, origin: u.Scheme + "://" + u.Host}
}

// digest answers the challenge of the exchange's origin, "" where none is known yet.
func (a *attempt) digest(r *fetch.Request) (string, error) {
	known, use := a.credentials.challenges.next(a.challengeKey(r.URL))
	if known == nil {
		return "", nil
	}
	user, password, err := a.login("--digest", a.spec.Digest)
	if err != nil {
		return "", err
	}
	target, err := fetch.Target(r.URL)
	if err != nil {
		return "", err
	}
	answer, err := digest.Digest(known, digest.Options{
		Method: r.Method, URI: target, Count: use, Username: user, Password: password,
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil },
	})
	if err != nil {
		return "", &fetch.Error{Class: fetch.Auth, Op: "--digest", Err: &tokenError{lasting: true, err: err}}
	}
	a.worn.nonce = known.Nonce
	return answer.String(), nil
}

// maxRounds bounds how often one URL is asked again for a challenge: an answer in advance is refused, the one after it
// comes too late, and so on.
const maxRounds = 3

// learnChallenge takes the challenge of a 401. It reports whether to answer it is worth another exchange: not when the
// answer to a fresh challenge was refused, unless for nothing but its age.
func (a *attempt) learnChallenge(target string, answer http.Header) bool {
	fresh, err := digest.FindChallenge(answer)
	if err != nil || a.worn.rounds >= maxRounds {
		return false
	}
	for i := range fresh.QOP {
		fresh.QOP[i] = strings.TrimSpace(fresh.QOP[i])
	}
	if a.worn.rounds > 0 && a.worn.nonce != "" && !fresh.Stale {
		return false
	}
	a.credentials.challenges.learn(a.challengeKey(target), a.worn.nonce, fresh)
	return true
}
