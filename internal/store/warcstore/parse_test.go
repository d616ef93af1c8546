package warcstore

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		rest, dir string
		want      Options
		says      string
	}{
		"a folder alone":          {rest: "/data/x", dir: "/data/x", want: Options{Worker: "w"}},
		"every parameter":         {rest: "d?compress=zstd&decoded=true&merge-size=5", dir: "d", want: Options{Worker: "w", Compress: "zstd", Decoded: true, MergeSize: 5}},
		"a folder with a mark":    {rest: "what?now?", dir: "what?now", want: Options{Worker: "w"}},
		"an unknown parameter":    {rest: "d?x=1", says: `unknown parameter "x": known are compress=gzip|zstd`},
		"an unknown compression":  {rest: "d?compress=br", says: "compress=br cannot be: write compress=gzip"},
		"a parameter given twice": {rest: "d?decoded=1&decoded=0", says: `parameter "decoded" is given twice`},
		"a size that is none":     {rest: "d?merge-size=1GB", says: "merge-size=1GB"},
		"what is no query":        {rest: "d?a=%zz", says: "no parameters"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			dir, o, err := Parse(tt.rest, Options{Worker: "w"})
			if tt.says != "" {
				wantSays(t, "Parse", err, tt.says)
				return
			}
			if diff := cmp.Diff(tt.want, o); diff != "" || err != nil || dir != tt.dir {
				t.Errorf("Parse = %q, %v, and options that differ (-want +got):\n%s", dir, err, diff)
			}
		})
	}
}
