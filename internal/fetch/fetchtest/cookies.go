package fetchtest

import (
	"io"
	"net/http"
)

// cookies sets what ?set= names, as often as it stands there, and says which cookies came.
func cookies(_ *Origin, w http.ResponseWriter, r *http.Request) {
	for _, line := range r.URL.Query()["set"] {
		w.Header().Add("Set-Cookie", line)
	}
	_, _ = io.WriteString(w, "cookies: "+r.Header.Get("Cookie")+"\n")
}
