// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// place is where in the conversation a line is cut.
type place string

const (
	inHello      place = "in the handshake"      // no request is there yet
	inRequest    place = "in the request"        // half of it has come
	beforeAnswer place = "before the answer"     // OpenBao has done it, and nobody hears
	inAnswer     place = "in the answer"         // half of it has gone
	afterAnswer  place = "after it was answered" // the next request finds no line
)

// A cut is where a line is cut, and how.
type cut struct {
	request string // of which path; see asks
	number  int    // the first, second… of them
	place   place
	silent  bool // nobody is told: packets are lost. Else connections are reset
	lasts   bool // until mend. Else the next connection finds the line whole
}

// asks reports that a path is of a kind of request.
func (c cut) asks(path string) bool { return strings.Contains(path, "/"+c.request) }

// A line is a host's way to OpenBao, with an address of its own: it ends TLS with
// OpenBao's own certificate, so that it knows every request.
type line struct {
	ip    string
	lab   *lab
	serve *http.Server
	to    *http.Transport

	mu       sync.Mutex
	listener net.Listener
	armed    *cut
	met      int           // requests of the kind of armed
	answered bool          // the one that armed is about, by OpenBao
	idle     bool          // nothing else is to be said
	struck   chan struct{} // closed when the cut has come
	mended   chan struct{} // closed when it is over
	paths    []string      // that were asked for
	fault    error         // of the test's own
}

type connectionKey struct{}

func newLine(t *testing.T, l *lab, ip string) *line {
	t.Helper()
	n := &line{ip: ip, lab: l, to: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.roots, MinVersion: tls.VersionTLS13}}}
	n.serve = &http.Server{
		Handler: n, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c)
		},
		ConnState: n.connectionIs,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{l.pair},
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, n.greeted(hello.Conn) },
		},
	}
	must(t, n.plug())
	must(t, n.listen())
	t.Cleanup(func() {
		_ = n.serve.Close()
		n.to.CloseIdleConnections()
		n.mu.Lock()
		defer n.mu.Unlock()
		must(t, n.fault)
	})
	return n
}

// listen takes connections; the port is the one that everybody dials.
func (n *line) listen() error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", n.ip+":8200")
	if err != nil {
		return err
	}
	n.listener = listener
	go func() { _ = n.serve.ServeTLS(heard{listener, n}, "", "") }()
	return nil
}

// heard is a listener whose connections tell the line what was written.
type heard struct {
	net.Listener
	line *line
}

// Accept implements net.Listener.
func (h heard) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &written{c.(*net.TCPConn), h.line}, nil
}

type written struct {
	*net.TCPConn
	line *line
}

// Write implements net.Conn. HTTP/2 says that a connection is idle, and then writes what
// it had to say.
func (w *written) Write(b []byte) (int, error) {
	count, err := w.TCPConn.Write(b)
	w.line.mu.Lock()
	due := w.line.armed != nil && w.line.idle && !w.line.over()
	w.line.mu.Unlock()
	if due {
		w.line.strike(w)
	}
	return count, err
}

// plug gives the line's address to this machine; pull takes it away: what is sent there
// is lost, as with a cable.
func (n *line) plug() error { return ip("address", "replace", n.ip+"/32", "dev", "lo") }

func (n *line) pull() error {
	return errors.Join(ip("address", "del", n.ip+"/32", "dev", "lo"), ip("route", "add", n.ip+"/32", "dev", "lo"))
}

func ip(args ...string) error {
	output, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return errors.New("ip " + strings.Join(args, " ") + ": " + string(output))
	}
	return nil
}

// arm prepares a cut.
func (n *line) arm(c cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed, n.met, n.answered, n.idle, n.paths = &c, 0, false, false, nil
	n.struck, n.mended = make(chan struct{}), make(chan struct{})
}

// mend undoes a cut that lasts.
func (n *line) mend(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.armed.silent {
		must(t, errors.Join(ip("route", "del", n.ip+"/32", "dev", "lo"), n.plug()))
	} else {
		must(t, n.listen())
	}
	n.armed = nil
	close(n.mended)
}

// strike cuts the line.
func (n *line) strike(connection net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.armed
	if !c.lasts {
		n.armed = nil
	}
	switch {
	case c.silent:
		n.fault = errors.Join(n.fault, n.pull())
	case c.lasts:
		n.fault = errors.Join(n.fault, n.listener.Close())
	}
	if !c.silent {
		reset(connection, c.place != afterAnswer)
	}
	close(n.struck)
}

// reset ends a connection as a machine does that knows nothing of it. What was written
// before is heard all the same where it is not lost.
func reset(connection net.Conn, lost bool) {
	if c, ok := connection.(*tls.Conn); ok {
		connection = c.NetConn()
	}
	tcp := connection.(*written).TCPConn
	if lost {
		_ = tcp.SetLinger(0)
	}
	_ = tcp.Close()
}

// greeted hears of a client's first message.
func (n *line) greeted(connection net.Conn) error {
	n.mu.Lock()
	due := n.armed != nil && n.armed.place == inHello && !n.over()
	n.mu.Unlock()
	if due {
		n.strike(connection)
		return errors.New("cut")
	}
	return nil
}

// over reports that the cut has come.
func (n *line) over() bool {
	select {
	case <-n.struck:
		return true
	default:
		return false
	}
}

// connectionIs hears that everything on a connection is answered.
func (n *line) connectionIs(_ net.Conn, state http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.idle = n.idle || n.answered && state == http.StateIdle
}

// due gives the place of a cut that this request is to be cut at.
func (n *line) due(path string) place {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paths = append(n.paths, path)
	if n.armed == nil || n.over() || !n.armed.asks(path) {
		return ""
	}
	if n.met++; n.met != n.armed.number {
		return ""
	}
	n.answered = n.armed.place == afterAnswer
	return n.armed.place
}

// asked counts the requests of a kind.
func (n *line) asked(kind string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, path := range n.paths {
		if (cut{request: kind}).asks(path) {
			count++
		}
	}
	return count
}

// ServeHTTP passes a request on, as far as no cut is due.
func (n *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := n.due(r.URL.Path)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if at == inRequest || err != nil {
		n.cutHere(r)
	}
	answer, text, err := n.pass(r, body)
	if at == beforeAnswer || err != nil {
		n.cutHere(r)
	}
	for key, values := range answer.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.StatusCode)
	if at == inAnswer {
		_, _ = w.Write(text[:len(text)/2])
		_ = http.NewResponseController(w).Flush()
		n.cutHere(r)
	}
	_, _ = w.Write(text)
}

// cutHere cuts the line, if a cut is due, and ends the request without an answer.
func (n *line) cutHere(r *http.Request) {
	n.mu.Lock()
	due, mended := n.armed != nil && !n.over(), n.mended
	n.mu.Unlock()
	if due {
		n.strike(r.Context().Value(connectionKey{}).(net.Conn))
		<-mended // a silent line does not end anything
	}
	panic(http.ErrAbortHandler)
}

// pass asks OpenBao, also when the client has gone.
func (n *line) pass(r *http.Request, body []byte) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, r.Method, "https://"+world.SpireIP+":8200"+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	out.Header = r.Header.Clone()
	answer, err := n.to.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer, text, err
}
