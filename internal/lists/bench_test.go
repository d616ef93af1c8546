package lists

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// BenchmarkNext reads lines of 70 bytes; one operation is one line.
func BenchmarkNext(b *testing.B) {
	var urls, objects bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&urls, "https://www.example.com/articles/2024/05/a-title-of-some-kind?id=%05d\n", i)
		fmt.Fprintf(&objects, `{"url":"https://www.example.com/articles/2024/05?id=%05d","meta":{"row":%d}}`+"\n", i, i)
	}
	rows, typed := bytes.NewBufferString("id,year\n"), new(bytes.Buffer)
	for i := range 100_000 {
		fmt.Fprintf(rows, "%05d,2024\n", i)
		fmt.Fprintf(typed, `{"id":%d,"year":2024}`+"\n", i)
	}
	byRow := byTemplate(b, "https://www.example.com/articles/{year}/05/a-title-of-some-kind{?id}")
	for _, bb := range []struct {
		name string
		data []byte
		rows *Blueprint
	}{
		{"plain", urls.Bytes(), nil}, {"gzip", gzipped(b, urls.String()), nil}, {"zstd", zstandard(b, urls.String()), nil}, {"json", objects.Bytes(), nil},
		{"csv rows", rows.Bytes(), byRow}, {"json rows", typed.Bytes(), byRow},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			r := Open(nil, nil, Options{})
			for b.Loop() {
				_, err := r.Next()
				if err == io.EOF {
					r = Open([]string{Stdin}, bytes.NewReader(bb.data), Options{Rows: bb.rows})
				} else if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
