// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/svid"
)

// empty is the one request there is: a message of no bytes.
var empty = []byte{0, 0, 0, 0, 0}

// An answer is what became of one call.
type answer struct {
	http            int
	status, message string
	body            []byte
}

// call is one call without a library of gRPC, by this process.
func (c *counter) call(path string, body []byte, change ...func(*http.Request)) answer {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return answer{message: err.Error()}
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("workload.spiffe.io", "true")
	for _, act := range change {
		act(r)
	}
	w, err := transport.RoundTrip(r)
	if err != nil {
		return answer{message: err.Error()}
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	a := answer{w.StatusCode, w.Trailer.Get("Grpc-Status"), w.Trailer.Get("Grpc-Message"), text}
	if err != nil {
		a.message = err.Error()
	}
	return a
}

func with(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// TestRequestsThatAreNone: what is no request of this API is refused, whatever its size.
func TestRequestsThatAreNone(t *testing.T) {
	c := openFor(t, newShop(t), 0)
	large := append([]byte{0, 0, 0, 0x10, 1}, make([]byte, 4097)...)
	for name, row := range map[string]struct {
		path   string
		body   []byte
		change func(*http.Request)
		want   string
	}{
		"header false":         {fetchSVID, empty, with("workload.spiffe.io", "false"), "200 3"},
		"header twice":         {fetchSVID, empty, with("workload.spiffe.io", "true", "true"), "200 3"},
		"header in capitals":   {fetchSVID, empty, with("workload.spiffe.io", "TRUE"), "200 3"},
		"no header":            {fetchSVID, empty, with("workload.spiffe.io"), "200 3"},
		"no request":           {fetchSVID, nil, nil, "200 3"},
		"half a request":       {fetchSVID, []byte{0, 0, 0, 0, 7, 1}, nil, "200 3"},
		"a lie about its size": {fetchSVID, []byte{0, 0xff, 0xff, 0xff, 0xff, 1}, nil, "200 8"},
		"a large one":          {fetchSVID, large, nil, "200 8"},
		"compressed":           {fetchSVID, []byte{1, 0, 0, 0, 0}, nil, "200 12"},
		"another call":         {service + "FetchJWTBundles", empty, nil, "200 12"},
		"another service":      {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", empty, nil, "200 12"},
		"the path of a file":   {"/../../etc/passwd", empty, nil, "200 12"},
		"not gRPC":             {fetchSVID, empty, with("Content-Type", "application/json"), "415 "},
		"not posted":           {fetchSVID, nil, func(r *http.Request) { r.Method = http.MethodGet }, "415 "},
	} {
		t.Run(name, func(t *testing.T) {
			if row.change == nil {
				row.change = func(*http.Request) {}
			}
			got := c.call(row.path, row.body, row.change)
			if said := fmt.Sprintf("%d %s", got.http, got.status); said != row.want || bytes.Contains(got.body, []byte("spiffe://")) {
				t.Errorf("%s: %+v", said, got)
			}
		})
	}
	if out := c.ask(0, svid.Fetch); !strings.HasSuffix(out, "code OK\n") {
		t.Errorf("after all that: %q", out)
	}
}

// TestConnectionsAreBounded: who is not listed cannot keep out who is, and who is listed
// cannot keep out another.
func TestConnectionsAreBounded(t *testing.T) {
	s := newShop(t)
	c := openFor(t, s, listed)
	held := c.hold(mostOfOthers)
	c.wantRefused()
	if out := c.ask(listed, svid.Fetch); !strings.HasSuffix(out, "code OK\n") {
		t.Errorf("a listed user: %q", out)
	}
	for _, one := range held {
		one.Close()
	}
	await(t, "a place", func() bool { return c.ask(0, svid.Fetch) == "code PermissionDenied\n" })

	c = openFor(t, s, listed, 0)
	c.hold(mostOfUser)
	c.wantRefused()
	if out := c.ask(listed, svid.Fetch); !strings.HasSuffix(out, "code OK\n") {
		t.Errorf("another listed user: %q", out)
	}
}

// hold opens connections and says nothing.
func (c *counter) hold(n int) (held []net.Conn) {
	c.t.Helper()
	for range n {
		one, err := net.Dial("unix", c.socket)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { one.Close() })
		held = append(held, one)
	}
	return held
}

// wantRefused wants one more connection to be closed at once.
func (c *counter) wantRefused() {
	c.t.Helper()
	one := c.hold(1)[0]
	if err := one.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	begin := time.Now()
	if n, err := one.Read(make([]byte, 1)); err == nil || time.Since(begin) > patience/2 {
		c.t.Errorf("read %d after %s: %v", n, time.Since(begin), err)
	}
}

// TestSocket: it is there while it is served, for everybody to connect, in the place of
// one whose process was killed, and of nothing else.
func TestSocket(t *testing.T) {
	s := newShop(t)
	c := openFor(t, s, 0)
	info, err := os.Lstat(c.socket)
	if err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("%v, %v", info, err)
	}
	settings := Settings{Socket: c.socket, SVID: s.get, Allowed: allow(0)}
	if _, err := listen(settings); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	c.stop()
	if _, err := os.Lstat(c.socket); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}

	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	killed.SetUnlinkOnClose(false)
	killed.Close()
	l, err := listen(settings)
	if err != nil {
		t.Fatalf("after one that was killed: %v", err)
	}
	l.Close()

	if err := os.WriteFile(c.socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(settings); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	open := filepath.Join(folder(t), "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	settings.Socket = filepath.Join(open, "workload.sock")
	if _, err := listen(settings); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("in a folder of others: %v", err)
	}
}

// TestSettingsThatChange: other settings count at once, and none closes the socket; what
// cannot be served is told with its remedy and is in nobody's way.
func TestSettingsThatChange(t *testing.T) {
	s := newShop(t)
	text := &logged{}
	e := NewEndpoint(slog.New(slog.NewTextHandler(text, nil)))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	first, second := filepath.Join(folder(t), "a.sock"), filepath.Join(folder(t), "b.sock")
	there := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	use := func(socket string) { e.Use(&Settings{Socket: socket, SVID: s.get, Allowed: allow(0)}) }

	use(first)
	await(t, "the first socket", func() bool { return there(first) })
	use(second)
	await(t, "the second socket", func() bool { return there(second) && !there(first) })
	e.Use(nil)
	await(t, "no socket", func() bool { return !there(second) })
	if err := os.Chmod(filepath.Dir(first), 0o777); err != nil {
		t.Fatal(err)
	}
	use(first)
	await(t, "the trouble", func() bool {
		return strings.Contains(text.String(), "workload API is not served") && strings.Contains(text.String(), `remedy="chown root:`)
	})
	use(second)
	await(t, "the second socket again", func() bool { return there(second) })
	stop()
	<-ended
	if there(second) {
		t.Error("the socket is left")
	}
}
