package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds one readiness check, so that a probe gets its answer
// before the orchestrator's own limit.
const readyTimeout = 2 * time.Second

// Ops is the operations address of a daemon: /health says that the process is
// alive, /ready that it does its work, /metrics serves Registry, and
// /debug/pprof the runtime's profiles.
type Ops struct {
	Listen   string // host:port; port 0 takes a free one, which is logged
	Registry *prometheus.Registry
	Ready    func(context.Context) error // nil: ready when alive
	Log      *slog.Logger

	// Controls are what a POST to /<name> does; each gives the state that it
	// has brought about. They are for clients on this machine, wherever Listen
	// is: there is no password.
	Controls map[string]func() (state string)
}

// Run serves until ctx ends, and returns after the last answer is written.
func (o *Ops) Run(ctx context.Context) error {
	return Serve(ctx, "operations", o.Listen, o.Handler(), o.Log)
}

// Handler serves the paths.
func (o *Ops) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusOK, "alive", nil)
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if o.Ready != nil {
			if err := o.Ready(ctx); err != nil {
				writeStatus(w, http.StatusServiceUnavailable, "not ready", err)
				return
			}
		}
		writeStatus(w, http.StatusOK, "ready", nil)
	})
	if o.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{Registry: o.Registry}))
	}
	for name, control := range o.Controls {
		mux.Handle("POST /"+name, http.NewCrossOriginProtection().Handler(o.local(name, control)))
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// local is control for clients on this machine. A page that a browser on it
// shows is none: that is the cross-origin protection's to see to.
func (o *Ops) local(name string, control func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !client.Addr().Unmap().IsLoopback() {
			writeStatus(w, http.StatusForbidden, "refused", fmt.Errorf("only from this machine, not from %s: use the loopback address or a forwarded port", r.RemoteAddr))
			return
		}
		state := control()
		o.Log.InfoContext(r.Context(), "controlled", slog.String("by", "/"+name), slog.String("state", state))
		writeStatus(w, http.StatusOK, state, nil)
	})
}

func writeStatus(w http.ResponseWriter, code int, status string, err error) {
	body := map[string]string{"status": status}
	if err != nil {
		body["error"] = err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the reader has gone: nobody to tell
}

// Serve serves handler on address until ctx ends, logs the address it got
// under name, and then gives open requests ten seconds to finish. Slow clients
// are cut off; a handler that streams lifts the write deadline itself.
func Serve(ctx context.Context, name, address string, handler http.Handler, log *slog.Logger) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	log.InfoContext(ctx, "listening", slog.String("server", name), slog.String("address", listener.Addr().String()))
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second, // a profile runs for 30 s by default
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil {
			_ = server.Close() // Shutdown's error says it already
		}
		stopped <- err
	})
	err = server.Serve(listener)
	if stop() { // Serve failed by itself: the AfterFunc never ran
		return fmt.Errorf("serve %s on %s: %w", name, address, err)
	}
	if err := <-stopped; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}
