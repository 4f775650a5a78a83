// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/test/world"
)

// A fake is a server in OpenBao's place: on spire, with OpenBao's own
// certificate, at another port.
type fake struct {
	address string // https://spire.funlab.casa:PORT

	mu    sync.Mutex
	asked []string // paths, in order
}

// serve starts a fake that ends with the test.
func (l *lab) serve(ctx context.Context, t *testing.T, answer http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.URL.Path)
		f.mu.Unlock()
		answer(w, r)
	}))
	must(t, server.Listener.Close())
	listener := check((&net.ListenConfig{}).Listen(ctx, "tcp", world.SpireIP+":0"))(t)
	server.Listener = listener
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{l.baoPair(t)}}
	server.StartTLS()
	t.Cleanup(server.Close)
	f.address = fmt.Sprintf("https://spire.funlab.casa:%d", listener.Addr().(*net.TCPAddr).Port)
	return f
}

func (l *lab) baoPair(t *testing.T) tls.Certificate {
	t.Helper()
	certificate := check(l.Spire.ReadFile("/etc/openbao/tls.crt"))(t)
	key := check(l.Spire.ReadFile("/etc/openbao/tls.key"))(t)
	return check(tls.X509KeyPair(certificate, key))(t)
}

// requests are the paths that were asked for.
func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// forward hands everything but the sign calls on to OpenBao.
func (l *lab) forward(t *testing.T, sign http.HandlerFunc) http.HandlerFunc {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(check(l.Spire.ReadFile(world.BaoCAFile))(t))
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: world.SpireIP + ":8200"})
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	return func(w http.ResponseWriter, r *http.Request) {
		if isSign(r.URL.Path) {
			sign(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}
}

func isSign(path string) bool { return strings.Contains(path, "/sign/") }

func failing(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, `{"errors":["internal error"]}`, http.StatusInternalServerError)
}

func garbage(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>Welcome!</html>")) }

// tooLong is JSON without an end.
func tooLong(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(`{"data":{"certificate":"`))
	for range 1024 {
		_, _ = w.Write([]byte(strings.Repeat("A", 4096)))
	}
}

// empty is a reply without what was asked for.
func empty(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data":{}}`)) }

// toward points elsewhere, as a standby does.
func toward(f *fake) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, f.address+r.URL.Path, http.StatusTemporaryRedirect)
	}
}

// TestGarbage: what OpenBao would never say ends a renewal at once.
func TestGarbage(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "garbage", world.Verifier)
	renew(ctx, t, m.Host, 0)
	const hint = "check that this address is OpenBao"
	for _, row := range []struct {
		badInput
		answer http.HandlerFunc
	}{
		{badInput{name: "page to the challenge", code: 4, step: "challenge", says: "garbage", hint: hint}, garbage},
		{badInput{name: "endless answer", code: 4, step: "challenge", says: "an answer longer than", hint: hint}, tooLong},
		{badInput{name: "empty answer", code: 4, step: "challenge", says: "garbage", hint: hint}, empty},
		{badInput{name: "page to the request for a certificate", code: 6, step: "sign verifier", says: "garbage", hint: hint}, l.forward(t, garbage)},
		{badInput{name: "no certificate in the reply", code: 6, step: "sign verifier", says: "no certificate in the answer", hint: hint}, l.forward(t, empty)},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := l.serve(ctx, t, row.answer)
			l.audiences(ctx, t, world.BaoAudience, f.address+"||auth/tpm")
			m.changeConfig(t, world.BaoAddress, f.address)
			row.play(ctx, t, m)
			if len(f.requests()) == 0 {
				t.Error("the server was not asked at all")
			}
		})
	}
}

// A slow row is a server that may come back: omen-agent asks it for 30 seconds.
type slow struct {
	badInput
	machine *machine
	files   listing
	leaf    *x509.Certificate
	result  world.Result
}

func (s *slow) begin(ctx context.Context, t *testing.T, group *errgroup.Group) {
	t.Helper()
	s.files, s.leaf = installed(t, s.machine.Host), s.machine.served(ctx, t)
	group.Go(func() (err error) {
		s.result, err = s.machine.Run(ctx, "/usr/bin/omen-agent", "renew")
		return err
	})
}

func (s *slow) end(ctx context.Context, t *testing.T) {
	t.Run(s.name, func(t *testing.T) {
		s.judge(t, s.result)
		wantSame(t, s.files, installed(t, s.machine.Host))
		s.machine.wantLeaf(ctx, t, s.leaf)
	})
}

// TestServerAway: servers that do not do their work now. The rows wait for them
// at the same time, each on a host of its own; beside them daemons run that are told the
// same for ever.
func TestServerAway(t *testing.T) {
	ctx, l := shared(t)
	target := l.serve(ctx, t, failing)
	fails, redirects := l.serve(ctx, t, failing), l.serve(ctx, t, toward(target))
	late := l.serve(ctx, t, l.forward(t, toward(target)))
	l.audiences(ctx, t, world.BaoAudience, late.address+"||auth/tpm")

	row := func(host, address string, wanted badInput) *slow {
		m := l.add(ctx, t, host, world.Verifier)
		renew(ctx, t, m.Host, 0)
		if address != world.BaoAddress {
			m.changeConfig(t, world.BaoAddress, address)
		}
		return &slow{badInput: wanted, machine: m}
	}
	storms := l.beginStorms(ctx, t)
	const list = "redirects are never followed"
	running := []*slow{
		row("fails", fails.address, badInput{name: "5xx", code: 4, step: "challenge", says: "failing (HTTP 500)", hint: "try again when OpenBao answers"}),
		row("redirects", redirects.address, badInput{name: "redirect", code: 4, step: "challenge", says: "redirect (HTTP 307)", hint: list}),
		row("late", late.address, badInput{name: "redirect of the request for a certificate", code: 6, step: "sign verifier", says: "redirect (HTTP 307)", hint: list}),
	}
	sealed := row("sealed", world.BaoAddress, badInput{name: "sealed", code: 4, step: "challenge", says: "sealed (HTTP 503)", hint: "unseal that OpenBao node"})

	var group errgroup.Group
	for _, r := range running {
		r.begin(ctx, t, &group)
	}
	must(t, world.Await(ctx, func(context.Context) error { return late.wasAsked(isSign) }))
	admin := check(l.World.Bao.Admin(ctx))(t)
	must(t, admin.Sys().SealWithContext(ctx))
	t.Cleanup(func() { must(t, l.World.Bao.Start(context.WithoutCancel(ctx))) })
	sealed.begin(ctx, t, &group)
	must(t, group.Wait())
	for _, r := range append(running, sealed) {
		r.end(ctx, t)
	}
	if asked := target.requests(); len(asked) > 0 {
		t.Errorf("a redirect was followed: %v", asked)
	}

	must(t, l.World.Bao.Stop())
	stopped := &slow{machine: sealed.machine, badInput: badInput{
		name: "stopped", code: 4, step: "challenge", says: "unreachable: dial tcp 10.10.2.62:8200: connect: connection refused", hint: "check the address",
	}}
	stopped.begin(ctx, t, &group)
	must(t, group.Wait())
	stopped.end(ctx, t)
	for _, s := range storms {
		s.end(ctx, t)
	}
}

// wasAsked is nil once a path of that kind was asked for.
func (f *fake) wasAsked(kind func(path string) bool) error {
	for _, path := range f.requests() {
		if kind(path) {
			return nil
		}
	}
	return errors.New("not asked yet")
}

// TestUnknownCAIsShown: the hint has the fingerprint of what was served.
func TestUnknownCAIsShown(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "ca", world.Agent)
	unknownCA(ctx, t, m)
	result := renew(ctx, t, m.Host, 4)
	served := l.baoPair(t).Leaf
	fingerprint := strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(served.Raw)), " ", ":")
	for _, want := range []string{fingerprint, served.Issuer.String(), world.BaoCAFile} {
		if hint := line(result.Stderr, "omen-agent: hint: "); !strings.Contains(hint, want) {
			t.Errorf("the hint does not hold %q:\n%s", want, hint)
		}
	}
}
