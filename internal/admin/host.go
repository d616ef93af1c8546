package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// sameSite guards a loopback listener against DNS rebinding: a page of another site whose name was made to point to
// 127.0.0.1 is let in by the browser, and still sends its own name as Host. On a loopback address only loopback names
// pass; on any other address the operator's names are not known and all pass.
func sameSite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if local != nil && isLoopback(local) && !isLoopbackHost(r.Host) {
			http.Error(w, "this address answers to localhost only: open it as http://"+local.String(),
				http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// isLoopbackHost accepts "localhost", names under it (RFC 6761, section 6.3), and loopback addresses, with any port.
func isLoopbackHost(host string) bool {
	name := host
	if withoutPort, _, err := net.SplitHostPort(host); err == nil {
		name = withoutPort
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
