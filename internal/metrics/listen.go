// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the listener: who asks is on this host, and may be anybody there.
const (
	headerLimit = 8 << 10
	patience    = 5 * time.Second
	idle        = 30 * time.Second
	atOnce      = 8 // connections
)

// Listen serves GET /metrics at a loopback address until ctx ends. It returns when
// it listens; what goes wrong later is logged.
func (m *Metrics) Listen(ctx context.Context, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsLoopback() {
		return fmt.Errorf("listen for metrics: %q is no address on the loopback", address)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	server := &http.Server{
		Handler: m, ReadTimeout: patience, ReadHeaderTimeout: patience, WriteTimeout: patience, IdleTimeout: idle,
		MaxHeaderBytes: headerLimit, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		if err := server.Serve(netutil.LimitListener(listener, atOnce)); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("metrics are not served any more", "error", err)
		}
	}()
	return nil
}

// ServeHTTP answers GET /metrics, and nothing else.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !ofLoopback(r.Host):
		http.Error(w, "not this host", http.StatusMisdirectedRequest)
		return
	case r.URL.Path != "/metrics":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	}
	text, err := m.Text()
	if err != nil {
		m.log.Error("metrics cannot be shown", "error", err)
		http.Error(w, "no metrics", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(format))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(text) // who asked may have gone
}

// ofLoopback: a name that leads here is somebody's page in a browser on this host.
func ofLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
