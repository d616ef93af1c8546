package coding_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/coding"
	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

func TestALayerWithinIsLimitedToo(t *testing.T) {
	zeros := fetchtest.Encode("gzip", make([]byte, 8<<20))
	nested := bytes.NewReader(fetchtest.Encode("gzip", zeros))
	s, err := coding.NewReader([]string{"gzip, gzip"}, nested, coding.Limits{Bytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, s)
	if !errors.Is(err, coding.ErrTooLarge) || n > 4<<10 {
		t.Errorf("%d bytes and %v, want at most the limit", n, err)
	}
	s.Release()
}

func TestDeflateSniffIsNotFooledByARawStream(t *testing.T) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.HuffmanOnly)
	w.Write([]byte("hello"))
	w.Close()
	s, err := coding.NewReader([]string{"deflate"}, &b, coding.Limits{Bytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
