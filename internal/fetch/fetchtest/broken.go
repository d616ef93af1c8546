package fetchtest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
)

// raw takes the connection over, writes text and closes; with reset the close
// is a TCP reset.
func raw(w http.ResponseWriter, text string, reset bool) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 can always be hijacked
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		return // the client is gone
	}
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
}

const okLine = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

func announced(length, send int) string {
	return okLine + fmt.Sprintf("Content-Length: %d\r\n\r\n", length) + strings.Repeat(".", send)
}

func cut(_ *Origin, w http.ResponseWriter, r *http.Request) {
	send := number(r, "send", 10)
	if r.URL.Query().Get("announce") == "chunked" {
		raw(w, okLine+fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", send)+strings.Repeat(".", send)+"\r\n", false)
		return
	}
	raw(w, announced(number(r, "announce", 1000), send), false)
}

func reset(_ *Origin, w http.ResponseWriter, r *http.Request) {
	text := ""
	if r.URL.Query().Get("send") != "" {
		send := number(r, "send", 0)
		text = announced(send+1000, send)
	}
	raw(w, text, true)
}

func malformed(_ *Origin, w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("in") == "chunk" {
		raw(w, okLine+"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n", false)
		return
	}
	raw(w, "220 this is no web server\r\n\r\n", false)
}
