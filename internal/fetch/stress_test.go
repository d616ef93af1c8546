package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

// Many exchanges of every kind at once share connections, decoders and buffers;
// each must still get its own bytes.
func TestExchangesDoNotDisturbOneAnother(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	kinds := []func(i int) error{
		func(i int) error { return wholePage(f, o, fmt.Sprintf("/page/%d", i), 3000) },
		func(i int) error { return wholePage(f, o, "/gzip", 9000+i) },
		func(i int) error { return wholePage(f, o, "/zstd", 9000+i) },
		func(i int) error { return wholePage(f, o, "/br", 9000+i) },
		func(i int) error { return wholePage(f, o, "/deflate", 9000+i) },
		func(int) error { return partOf(f, o.URL("/gzip?size=100000")) },
		func(int) error { return partOf(f, o.URL("/large?mb=1")) },
		func(int) error { return fails(f, o.URL("/cut"), BodyCut) },
		func(int) error { return fails(f, o.URL("/reset?send=5"), Reset) },
		func(int) error { return fails(f, o.URL("/malformed"), Protocol) },
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 40 {
				if err := kinds[(i+j)%len(kinds)](i*40 + j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func wholePage(f *Fetcher, o *fetchtest.Origin, path string, size int) error {
	res, got, err := fetch(f, &Request{URL: o.URL(fmt.Sprintf("%s?size=%d", path, size))})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !bytes.Equal(got, fetchtest.Page(path, size)) {
		return fmt.Errorf("%s: %d bytes, not those of the page", res.URL, len(got))
	}
	return nil
}

func partOf(f *Fetcher, url string) error {
	res, err := f.Do(context.Background(), &Request{URL: url})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.ReadFull(res.Body, make([]byte, 1000))
	return err
}

func fails(f *Fetcher, url string, want Class) error {
	_, _, err := fetch(f, &Request{URL: url})
	if got := ClassOf(err); got != want {
		return fmt.Errorf("%s: class %s (%w), want %s", url, got, err, want)
	}
	return nil
}
