package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// clientIP is the address a request came from; the zero Addr if unknown.
type clientIP = netip.Addr

// clientIP returns the peer's address or, when the peer is a trusted proxy,
// the nearest address in X-Forwarded-For that is not one. What stands further
// left there could be anyone's invention.
func (s *server) clientIP(r *http.Request) clientIP {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return clientIP{}
	}
	ip := peer.Addr().Unmap().WithZone("")
	if len(s.proxies) == 0 || !s.isProxy(ip) {
		return ip
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return ip
		}
		if ip = hop.Unmap().WithZone(""); !s.isProxy(ip) {
			return ip
		}
	}
	return ip
}

func (s *server) isProxy(ip clientIP) bool {
	for _, p := range s.proxies {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
