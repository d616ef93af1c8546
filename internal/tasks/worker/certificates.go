package worker

import (
	"crypto/sha256"
	"crypto/tls"
	"sync"
)

// certificates are the client certificates in use: to parse one for each request would cost more than the request.
type certificates struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]*tls.Certificate // by their PEM
}

// maxCertificates is how many are remembered. A fleet with more clients than this parses some again.
const maxCertificates = 100

// get parses a pair of PEM texts. Its error tells nothing of them.
func (c *certificates) get(cert, key string) (*tls.Certificate, error) {
	id := sha256.Sum256([]byte(cert + "\x00" + key))
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.known[id]; known != nil {
		return known, nil
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return nil, err
	}
	if c.known == nil || len(c.known) >= maxCertificates {
		c.known = map[[sha256.Size]byte]*tls.Certificate{}
	}
	c.known[id] = &pair
	return &pair, nil
}
