package telemetry

import (
	"net/http"
	"net/http/pprof"
)

// Profiles answers the requests of "go tool pprof" below /debug/pprof/. Whoever
// reaches it can read the server's memory: it belongs on an address of its own
// that nobody but the machine's own users reach. (That package pprof adds itself
// to http.DefaultServeMux too does no harm: nobody here serves that.)
func Profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
