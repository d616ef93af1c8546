package demosite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// largeSize is the least size of a large body, decoded: 3 MiB.
const largeSize = 3 << 20

// largeBody is the one large document of the site, plain and compressed. All hosts share it.
type largeBody struct {
	plain, gzip []byte
}

func newLargeBody() (*largeBody, error) {
	plain := readings()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("compress large page: %w", err)
	}
	if _, err := z.Write(plain); err != nil {
		return nil, fmt.Errorf("compress large page: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress large page: %w", err)
	}
	return &largeBody{plain: plain, gzip: b.Bytes()}, nil
}

// readings is a table of made-up measurements, one a minute. (Built without fmt, which would take most of Start.)
func readings() []byte {
	random := rand.New(rand.NewPCG(1, 1))
	b := bytes.NewBufferString("minute,station,wind_m_s,wave_m,visibility_km\n")
	var row []byte
	for minute := 0; b.Len() < largeSize; minute++ {
		row = strconv.AppendInt(row[:0], int64(minute), 10)
		row = append(row, ',')
		row = append(row, stations[random.IntN(len(stations))]...)
		for _, most := range []float64{24, 6, 40} {
			row = append(row, ',')
			row = strconv.AppendFloat(row, most*random.Float64(), 'f', 1, 64)
		}
		b.Write(append(row, '\n'))
	}
	return b.Bytes()
}

func (l *largeBody) servePlain(w http.ResponseWriter, _ *http.Request) { l.write(w, l.plain) }

// serveGzip serves the compressed form to whoever accepts it (RFC 9110 section 12.5.3).
func (l *largeBody) serveGzip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		l.write(w, l.plain)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	l.write(w, l.gzip)
}

func (l *largeBody) write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the reader may be gone, which is its own affair
}
