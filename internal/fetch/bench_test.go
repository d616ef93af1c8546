package fetch

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

// BenchmarkDo fetches pages of 2 KiB from an origin in the same process, so the
// figures hold the server's share as well: compare fetcher with bare, which is
// an http.Client doing the same.
func BenchmarkDo(b *testing.B) {
	o := fetchtest.NewOrigin(fetchtest.CountsOnly())
	b.Cleanup(o.Close)
	f := newFetcher(b, Options{})
	bare := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}}
	b.Cleanup(bare.CloseIdleConnections)
	page := o.URL("/page/x")
	ctx := context.Background()

	b.Run("bare", func(b *testing.B) {
		bench(b, func() (io.ReadCloser, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
			if err != nil {
				return nil, err
			}
			req.Header = http.Header{"User-Agent": {"bench"}, "Accept": acceptAny, "Accept-Encoding": {"identity"}}
			res, err := bare.Do(req)
			if err != nil {
				return nil, err
			}
			return res.Body, nil
		})
	})
	for _, coding := range []string{"identity", "gzip", "deflate", "br", "zstd"} {
		url := page
		if coding != "identity" {
			url = o.URL("/" + coding + "-ready")
			serveEncoded(o, "/"+coding+"-ready", coding, fetchtest.Encode(coding, fetchtest.Page("/page/x", 0)))
		}
		b.Run("fetcher/"+coding, func(b *testing.B) {
			bench(b, func() (io.ReadCloser, error) {
				res, err := f.Do(ctx, &Request{URL: url})
				if err != nil {
					return nil, err
				}
				return res.Body, nil
			})
		})
	}
}

func bench(b *testing.B, do func() (io.ReadCloser, error)) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			body, err := do()
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				b.Error(err)
			}
			body.Close()
		}
	})
}
