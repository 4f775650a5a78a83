// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"funlab.casa/omen/internal/rundir"
)

// Settings say what is served, where and to whom.
type Settings struct {
	Socket  string
	Allowed func(uid uint32) bool // whose processes get it
	SVID    func() (*SVID, error) // as it is installed now
}

// securityHeader is what a request must have, so that who can have some program make a
// request, but not choose its headers, gets nothing (SPIFFE Workload Endpoint, 3).
const securityHeader = "Workload.spiffe.io"

// The calls that are there.
const (
	service      = "/SpiffeWorkloadAPI/"
	fetchSVID    = service + "FetchX509SVID"
	fetchBundles = service + "FetchX509Bundles"
)

// Bounds of one connection.
const (
	maxStreams = 8
	maxHeaders = 8 << 10
	maxBuffer  = 64 << 10
	pingAfter  = time.Minute // of silence
	idleAfter  = 2 * time.Minute
)

// server is one socket that is served.
type server struct {
	source source
	log    *slog.Logger
	stop   context.Context // ends streams, before the process does
	told   teller
}

// serve serves until ctx ends. The socket is there from its begin to its end.
func serve(ctx context.Context, settings Settings, log *slog.Logger) error {
	l, err := listen(settings)
	if err != nil {
		return err
	}
	s := &server{source: source{read: settings.SVID}, log: log, stop: ctx}
	web := s.web()
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(l) }()
	log.Info("workload API served", "socket", settings.Socket)
	select {
	case err := <-ended:
		return errors.Join(err, web.Close())
	case <-ctx.Done():
	}
	over, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if web.Shutdown(over) != nil { // somebody does not read
		_ = web.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen makes the socket. Everybody may connect: who it is is asked then.
func listen(settings Settings) (*listener, error) {
	folder, err := rundir.Open("/", filepath.Dir(settings.Socket))
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	if err := clearSocket(settings.Socket); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: settings.Socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(settings.Socket, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{UnixListener: l, allowed: settings.Allowed, open: map[int64]int{}}, nil
}

type peerKey struct{}

func (s *server) web() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: s, Protocols: protocols, MaxHeaderBytes: maxHeaders, ReadHeaderTimeout: patience, IdleTimeout: idleAfter,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxBuffer, MaxReceiveBufferPerStream: maxBuffer,
			SendPingTimeout: pingAfter, PingTimeout: patience, WriteByteTimeout: patience,
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, peerKey{}, c) },
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isCall(r) {
		http.Error(w, "gRPC is spoken here", http.StatusUnsupportedMediaType)
		return
	}
	w.Header().Set("Content-Type", contentType)
	end(w, s.answer(w, r))
}

// answer answers a call, in the order of what is refused: who sends the header knows
// where it is, who is listed may have it.
func (s *server) answer(w http.ResponseWriter, r *http.Request) error {
	if sent := r.Header[securityHeader]; len(sent) != 1 || sent[0] != "true" {
		return &status{invalidArgument, "the header workload.spiffe.io is missing"}
	}
	peer, known := r.Context().Value(peerKey{}).(*conn)
	if !known || !peer.allowed {
		if known {
			s.told.refused(s.log, peer.uid)
		}
		return &status{permissionDenied, "users in [workload_api] of agent.toml does not list this process's user"}
	}
	encode := map[string]func(*SVID) []byte{fetchSVID: x509SVIDResponse, fetchBundles: x509BundlesResponse}[r.URL.Path]
	if encode == nil {
		return &status{unimplemented, "only X.509-SVIDs and their bundles are served"}
	}
	if err := readRequest(w, r); err != nil {
		return err
	}
	return s.stream(w, r, encode)
}

// stream sends what is installed, and again whenever it is another, until one of both
// sides ends it. While nothing better can be had, the last one is good until it expires.
func (s *server) stream(w http.ResponseWriter, r *http.Request, encode func(*SVID) []byte) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var sent [sha256.Size]byte
	var until time.Time
	for {
		svid, err := s.source.get()
		s.told.state(s.log, err)
		switch {
		case err != nil && time.Now().After(until):
			return &status{unavailable, reason(err)}
		case err == nil:
			message := encode(svid)
			if sum := sha256.Sum256(message); sum != sent {
				if err := send(w, message); err != nil {
					return err
				}
				sent = sum
			}
			clear(message)
			until = svid.NotAfter
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-s.stop.Done():
			return &status{unavailable, "omen-agent ends"}
		case <-look.C:
		}
	}
}
