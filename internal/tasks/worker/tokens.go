package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// tokens are those that token endpoints gave to this worker for client credentials (RFC 6749, section 4.4). One is asked
// for by one request at a time, however many wait for it, and again before it expires.
type tokens struct {
	fetcher *fetch.Fetcher
	secrets *secrets.Source

	mu    sync.Mutex
	known map[tokenKey]*token
}

type tokenKey struct {
	tasks.OAuth
	secret [sha256.Size]byte // a secret that was changed makes another token
}

// token is in one pair of hands at a time.
type token struct {
	hands   chan struct{}
	config  clientcredentials.Config
	value   string
	renew   time.Time // from then on a new one is asked for
	failed  *tokenError
	trouble time.Time // since when
}

const (
	// maxTokens is how many are remembered.
	maxTokens = 1000
	// renewBefore is how long before its end a token is renewed, but never more than a tenth of its life: the clocks of
	// two machines differ, and a request takes a while to arrive.
	renewBefore = 30 * time.Second
	// unlimited is the life of a token that names none (RFC 6749, section 5.1: expires_in is recommended only).
	unlimited = time.Hour
	// The token endpoint is left alone for so long after a failure. All requests that come meanwhile share it.
	troubleLasts, refusalLasts = time.Second, 30 * time.Second
	// tokenTimeout and tokenBody bound an exchange with a token endpoint.
	tokenTimeout, tokenBody = 30 * time.Second, 1 << 20
)

// tokenError says why there is no token.
type tokenError struct {
	lasting bool // to ask again would bring the same
	err     error
}

// Error is the cause.
func (e *tokenError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *tokenError) Unwrap() error { return e.err }

// bearerToken is the field with the job's token.
func (a *attempt) bearerToken(ctx context.Context) (string, error) {
	secret, err := a.resolve("--client-secret", a.spec.OAuth.ClientSecret)
	if err != nil {
		return "", err
	}
	if a.worn.token, err = a.credentials.tokens.get(ctx, a.spec.OAuth, secret, ""); err != nil {
		return "", err
	}
	return "Bearer " + a.worn.token, nil
}

// anotherToken asks for another token than the one that was just refused.
func (a *attempt) anotherToken(ctx context.Context) bool {
	secret, err := a.resolve("--client-secret", a.spec.OAuth.ClientSecret)
	if err != nil {
		return false
	}
	_, err = a.credentials.tokens.get(ctx, a.spec.OAuth, secret, a.worn.token)
	return err == nil
}

// get returns a token other than refused. The error is a *fetch.Error of class Auth or Canceled.
func (t *tokens) get(ctx context.Context, o *tasks.OAuth, secret, refused string) (string, error) {
	k := t.of(o, secret)
	select {
	case k.hands <- struct{}{}:
		defer func() { <-k.hands }()
	case <-ctx.Done():
		return "", &fetch.Error{Class: fetch.Canceled, Op: "token", Err: ctx.Err()}
	}
	now := time.Now()
	if k.value != "" && k.value != refused && now.Before(k.renew) {
		return k.value, nil
	}
	if k.failed != nil && now.Sub(k.trouble) < k.failed.pause() {
		return "", k.failed.told()
	}
	if err := t.ask(ctx, k); err != nil {
		return "", err
	}
	return k.value, nil
}

func (e *tokenError) pause() time.Duration {
	if e.lasting {
		return refusalLasts
	}
	return troubleLasts
}

func (e *tokenError) told() error { return &fetch.Error{Class: fetch.Auth, Op: "token", Err: e} }

func (t *tokens) of(o *tasks.OAuth, secret string) *token {
	key := tokenKey{OAuth: *o, secret: sha256.Sum256([]byte(secret))}
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.known[key]; k != nil {
		return k
	}
	k := &token{hands: make(chan struct{}, 1), config: clientcredentials.Config{ClientID: o.ClientID, ClientSecret: secret,
		TokenURL: o.TokenURL, Scopes: strings.Fields(o.Scope)}}
	if o.Audience != "" {
		k.config.EndpointParams = url.Values{"audience": {o.Audience}}
	}
	if t.known == nil || len(t.known) >= maxTokens {
		t.known = map[tokenKey]*token{}
	}
	t.known[key] = k
	return k
}

// ask gets a token from its endpoint. k is in our hands.
func (t *tokens) ask(ctx context.Context, k *token) error {
	k.value = ""
	client := &http.Client{Transport: tokenTransport{t.fetcher}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the client's secret goes where the job says, and nowhere else
	}}
	asked := time.Now()
	got, err := k.config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	switch {
	case err != nil && ctx.Err() != nil:
		return &fetch.Error{Class: fetch.Canceled, Op: "token", Err: ctx.Err()}
	case err != nil:
		k.failed, k.trouble = t.explain(k.config.TokenURL, err), asked
		return k.failed.told()
	}
	life := unlimited
	if !got.Expiry.IsZero() {
		life = got.Expiry.Sub(asked)
	}
	k.value, k.failed, k.renew = got.AccessToken, nil, asked.Add(life-min(renewBefore, life/10))
	t.secrets.Remember(k.value)
	return nil
}

// explain says why there is no token, and whether that will be so again. What the endpoint wrote is not repeated but for
// its error code (RFC 6749, section 5.2): some quote what they were sent.
func (t *tokens) explain(endpoint string, err error) *tokenError {
	host := "token endpoint"
	if u, parseErr := url.Parse(endpoint); parseErr == nil {
		host += " " + u.Host
	}
	if answered, ok := errors.AsType[*oauth2.RetrieveError](err); ok && answered.Response != nil {
		status := answered.Response.StatusCode
		text := fmt.Sprintf("%s: it answered %d", host, status)
		if code := answered.ErrorCode; code != "" && len(code) < 60 {
			text += " " + t.secrets.Redact(code)
		}
		return &tokenError{err: errors.New(text), lasting: status < 500 && status != 408 && status != 425 && status != 429}
	}
	if broken, ok := errors.AsType[*fetch.Error](err); ok {
		return &tokenError{err: fmt.Errorf("%s: %w", host, broken), lasting: !retried[string(broken.Class)]}
	}
	return &tokenError{err: fmt.Errorf("%s: its answer holds no token", host), lasting: true}
}

// tokenTransport makes the exchanges with token endpoints as all others are made: behind the guard of addresses, and with
// limits. It always looks at the server's certificate, whatever a job says of its own hosts.
type tokenTransport struct{ fetcher *fetch.Fetcher }

// RoundTrip makes one exchange.
func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(io.LimitReader(req.Body, tokenBody)); err != nil {
			return nil, err
		}
	}
	resp, err := t.fetcher.Do(req.Context(), &fetch.Request{Method: req.Method, URL: req.URL.String(), Header: req.Header,
		Body: body, Timeout: tokenTimeout, MaxTime: tokenTimeout, MaxBody: tokenBody})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &http.Response{Status: http.StatusText(resp.Status), StatusCode: resp.Status, Proto: resp.Protocol, ProtoMajor: 1,
		ProtoMinor: 1, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)), Request: req}, nil
}
