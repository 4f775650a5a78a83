// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/test/testca"
)

// host is a root directory with users, Keylime's main files and programs. Its
// services are stand-ins on ports of their own.
type host struct {
	t         *testing.T
	root      string
	ca        *testca.CA
	clients   *testca.CA // of client certificates; nil: ca
	installer *Installer
	ports     map[string]int
	programs  map[string]string
	extra     map[string][]string // arguments for a stand-in, by profile
}

const serviceUID = 4711

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sudo make test")
	}
	root, err := os.MkdirTemp("/dev/shm", "omen-host-") // fsync costs nothing there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return newHostIn(t, root)
}

func newHostIn(t *testing.T, root string) *host {
	t.Helper()
	h := &host{t: t, root: root, ca: testca.New(t, "book"), ports: map[string]int{}, programs: map[string]string{}, extra: map[string][]string{}}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nkeylime:x:4711:4712::/var/lib/keylime:/bin/false\n", 0o644)
	h.write("etc/group", "keylime:x:4712:\ntss:x:4713:keylime\n", 0o644)
	h.mkdir("var/lib")
	for _, component := range []string{"verifier", "registrar", "tenant"} {
		h.write("etc/keylime/"+component+".conf", "["+component+"]\nserver_cert = default\n", 0o440)
		h.chown("etc/keylime/"+component+".conf", serviceUID)
	}
	cell.Loopback(t)
	h.installer = &Installer{Root: root, Outage: 10 * time.Second}
	t.Cleanup(h.stopAll)
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.root, name) }

func (h *host) mkdir(name string) {
	h.t.Helper()
	if err := os.MkdirAll(h.path(name), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	h.mkdir(filepath.Dir(name))
	if err := os.WriteFile(h.path(name), []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(h.path(name), mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h *host) chown(name string, uid int) {
	h.t.Helper()
	if err := os.Lchown(h.path(name), uid, uid); err != nil {
		h.t.Fatal(err)
	}
}

// program puts the stand-in where the service user can run it, by link.
func (h *host) program(name string) string {
	h.t.Helper()
	if h.programs[name] != "" {
		return h.programs[name]
	}
	shared := h.path("opt/standin")
	if _, err := os.Stat(shared); err != nil {
		h.mkdir("opt")
		copyExecutable(h.t, shared)
	}
	if err := os.Link(shared, h.path("opt/"+name)); err != nil {
		h.t.Fatal(err)
	}
	h.programs[name] = h.path("opt/" + name)
	return h.programs[name]
}

func copyExecutable(t *testing.T, to string) {
	t.Helper()
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(target, source); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
}

// lastPort is the last port given to a service; the tests have a network of
// their own.
var lastPort atomic.Int32

func (h *host) port(profile string) int {
	if h.ports[profile] == 0 {
		h.ports[profile] = 10000 + int(lastPort.Add(1))
	}
	return h.ports[profile]
}

// certs is the set as the stand-ins see it: the link's text is a path inside
// the root.
const certs = "var/lib/omen-agent/keylime/current"

// item is a freshly issued certificate for a profile, with its service.
func (h *host) item(name, profile string) Item {
	h.t.Helper()
	known, found := keylime.Find(profile)
	if !found {
		h.t.Fatalf("no profile %s", profile)
	}
	want := testca.Want{Name: name + ".keylime.test", IPs: []string{"127.0.0.1"}, Usages: []x509.ExtKeyUsage{known.Usage}}
	ca := h.ca
	if known.Usage == x509.ExtKeyUsageClientAuth && h.clients != nil {
		ca = h.clients
	}
	chain, key := ca.Issue(h.t, want)
	item := Item{Name: name, Profile: profile, Chain: chain, Key: key, CA: ca.RootPEM, AgentVersion: "0.2.9"}
	if known.Program != "" {
		item.Service = h.service(name, known)
	}
	return item
}

func (h *host) service(name string, profile keylime.Profile) Service {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port(profile.Name)))
	start := []string{
		h.program(profile.Program), "-listen", address, "-ca", h.path(certs + "/" + profile.Bundle()),
		"-cert", h.path(certs + "/" + name + ".crt"), "-key", h.path(certs + "/" + name + ".key"),
	}
	if profile.RunsAs {
		start = append(start, "-demand")
	}
	return Service{
		Start: append(start, h.extra[profile.Name]...), Probe: address,
		PIDFile: "/run/" + profile.Program + ".pid", Log: "/var/log/" + profile.Program + ".log",
	}
}

// renew does what the agent does.
func (h *host) renew(items ...Item) error {
	h.t.Helper()
	h.mkdir("var/log")
	ctx := h.t.Context()
	change, err := h.installer.Install(ctx, items)
	if err != nil {
		return err
	}
	defer func() {
		if err := change.Close(); err != nil {
			h.t.Error(err)
		}
	}()
	err = change.Reload(ctx)
	if err == nil {
		err = change.Probe(ctx)
	}
	if err != nil {
		if back := change.RollBack(ctx); back != nil {
			return joined{err, back}
		}
	}
	return err
}

// joined keeps both errors apart for tests.
type joined struct{ cause, back error }

func (j joined) Error() string   { return j.cause.Error() + "; " + j.back.Error() }
func (j joined) Unwrap() []error { return []error{j.cause, j.back} }

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// servedSerial is what a service shows to anybody.
func (h *host) servedSerial(profile string) string {
	h.t.Helper()
	var seen string
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: "test", RootCAs: x509.NewCertPool(),
		VerifyPeerCertificate: nil,
	}
	conn, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port(profile))), config)
	if err == nil {
		conn.Close()
		h.t.Fatal("verified without a root")
	}
	var failed *tls.CertificateVerificationError
	if ok := asError(err, &failed); ok {
		seen = probe.Serial(failed.UnverifiedCertificates[0])
	}
	return seen
}

func (h *host) installedSerial(name string) string {
	h.t.Helper()
	current, err := h.installer.Current()
	h.must(err)
	for _, certificate := range current.Certificates {
		if certificate.Name == name {
			return certificate.Serial
		}
	}
	return ""
}

// stopAll ends the stand-ins by the numbers in their pid files.
func (h *host) stopAll() {
	files, err := filepath.Glob(h.path("run/*.pid"))
	h.must(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		h.must(err)
		if pid, err := strconv.Atoi(string(text[:len(text)-1])); err == nil && pid > 1 {
			// It may have ended by itself.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// mode describes a file: permissions and owner.
func (h *host) mode(name string) (os.FileMode, int) {
	h.t.Helper()
	info, err := os.Lstat(h.path(name))
	h.must(err)
	return info.Mode().Perm(), int(info.Sys().(*syscall.Stat_t).Uid)
}

// snapshot is every path below a folder with its content or target.
func (h *host) snapshot(name string) map[string]string {
	h.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(h.path(name), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case entry.Type()&os.ModeSymlink != 0:
			found[path], err = os.Readlink(path)
		case entry.Type().IsRegular():
			var text []byte
			text, err = os.ReadFile(path)
			found[path] = string(text)
		default:
			found[path] = ""
		}
		return err
	})
	h.must(err)
	return found
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
