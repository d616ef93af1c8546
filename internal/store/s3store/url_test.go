package s3store

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		url  string
		want Options
		text string // of String, where it differs from url
	}{
		"a bucket alone is at AWS": {url: "s3://data", want: Options{Bucket: "data", Format: "file"}},
		"a prefix":                 {url: "s3://data/a/b/", want: Options{Bucket: "data", Prefix: "a/b", Format: "file"}, text: "s3://data/a/b"},
		"a region":                 {url: "s3://data/a?region=eu-west-1", want: Options{Bucket: "data", Prefix: "a", Region: "eu-west-1", Format: "file"}},
		"plain HTTP": {url: "s3://data/a?endpoint=http://127.0.0.1:9000",
			want: Options{Bucket: "data", Prefix: "a", Endpoint: "127.0.0.1:9000", Insecure: true, Format: "file"},
			text: "s3://data/a?endpoint=http://127.0.0.1:9000"},
		"HTTPS": {url: "s3://data?endpoint=https://s3.example.test/",
			want: Options{Bucket: "data", Endpoint: "s3.example.test", Format: "file"}, text: "s3://data?endpoint=https://s3.example.test"},
		"an endpoint without scheme": {url: "s3://data?endpoint=minio:9000",
			want: Options{Bucket: "data", Endpoint: "minio:9000", Format: "file"}, text: "s3://data?endpoint=https://minio:9000"},
		"insecure": {url: "s3://data?endpoint=minio:9000&insecure=true",
			want: Options{Bucket: "data", Endpoint: "minio:9000", Insecure: true, Format: "file"}, text: "s3://data?endpoint=http://minio:9000"},
		"path style and format": {url: "s3://data?format=warc&path-style=false",
			want: Options{Bucket: "data", Format: "warc", PathStyle: "false"}},
		"WARC, with zstd and decoded copies": {url: "s3://data?compress=zstd&decoded=true&format=warc",
			want: Options{Bucket: "data", Format: "warc", Compress: "zstd", Decoded: true}},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			got, err := Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
			want := tt.text
			if want == "" {
				want = tt.url
			}
			if got.String() != want {
				t.Errorf("String() = %s, want %s", got, want)
			}
			if again, err := Parse(got.String()); err != nil || again != got {
				t.Errorf("its String parses as %+v, %v", again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ url, want string }{
		"another scheme":            {"file:/tmp", "not an s3 URL"},
		"no bucket":                 {"s3:///a", "no bucket"},
		"a bucket that cannot be":   {"s3://My_Bucket/a", "cannot be the name of a bucket"},
		"credentials":               {"s3://key:hunter2@data/a", "AWS_ACCESS_KEY_ID"},
		"credentials as parameters": {"s3://data/a?secret_key=hunter2", "AWS_ACCESS_KEY_ID"},
		"credentials in endpoint":   {"s3://data/a?endpoint=http://key:hunter2@minio:9000", "AWS_ACCESS_KEY_ID"},
		"an unknown parameter":      {"s3://data/a?endpont=x", `unknown parameter "endpont"`},
		"a parameter twice":         {"s3://data/a?region=a&region=b", "given twice"},
		"an endpoint with a path":   {"s3://data/a?endpoint=http://minio:9000/data", "has a path"},
		"an endpoint of FTP":        {"s3://data/a?endpoint=ftp://minio", "write http://"},
		"a contradiction":           {"s3://data/a?endpoint=http://minio&insecure=false", "contradicts"},
		"an unknown format":         {"s3://data/a?format=zip", "unknown format"},
		"an unknown compression":    {"s3://data/a?format=warc&compress=br", "unknown compress"},
		"compressed bodies":         {"s3://data/a?compress=zstd", "format=warc as well"},
		"decoded neither":           {"s3://data/a?format=warc&decoded=maybe", "write true or false"},
		"path style neither":        {"s3://data/a?path-style=maybe", "write true or false"},
		"dots in the prefix":        {"s3://data/a/../b", "empty parts or dots"},
		"plain HTTP to AWS":         {"s3://data/a?insecure=true", "leave insecure out"},
		"no URL":                    {"s3://key:hunter2@da ta", "no URL"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			_, err := Parse(tt.url)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse(%s) = %v, want %q in it", tt.url, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}
