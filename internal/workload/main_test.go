// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/test/svid"
)

func TestMain(m *testing.M) {
	code, done := svid.Play()
	if !done {
		code = m.Run()
	}
	os.Exit(code)
}

const domain = "spiffe://funlab.casa"

// shop is what is handed out, and the CA that it comes from.
type shop struct {
	t     *testing.T
	root  *x509.Certificate
	key   *ecdsa.PrivateKey
	mutex sync.Mutex
	svid  *SVID
	err   error
	asked int
	serial
}

type serial int64

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "book"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	s.renew(time.Hour)
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// renew hands out another certificate from now on.
func (s *shop) renew(life time.Duration) serial {
	s.t.Helper()
	key := newKey(s.t)
	s.serial++
	id, _ := url.Parse(domain + "/web")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x1000 + int64(s.serial)), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life), URIs: []*url.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err1 := x509.CreateCertificate(rand.Reader, template, s.root, key.Public(), s.key)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2); err != nil {
		s.t.Fatal(err)
	}
	given := &SVID{
		ID: id.String(), Domain: domain, Chain: [][]byte{der}, Bundle: [][]byte{s.root.Raw}, NotAfter: template.NotAfter,
		Key: func() []byte { return bytes.Clone(private) },
	}
	s.set(given, nil)
	return 0x1000 + s.serial
}

func (s *shop) set(given *SVID, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.svid, s.err = given, err
}

func (s *shop) get() (*SVID, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.asked++
	return s.svid, s.err
}

// times is how often it was asked.
func (s *shop) times() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.asked
}

// counter is an open shop.
type counter struct {
	t      *testing.T
	socket string
	log    *logged
	stop   func()
}

// logged is a log that may be read while it is written.
type logged struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// openFor serves a shop to some users.
func openFor(t *testing.T, s *shop, users ...uint32) *counter {
	t.Helper()
	c := &counter{t: t, socket: filepath.Join(folder(t), "workload.sock"), log: &logged{}}
	e := NewEndpoint(slog.New(slog.NewTextHandler(c.log, nil)))
	e.Use(&Settings{Socket: c.socket, SVID: s.get, Allowed: allow(users...)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	c.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(c.stop)
	await(t, "the socket", func() bool { return strings.Contains(c.log.String(), "workload API served") })
	return c
}

func allow(users ...uint32) func(uint32) bool {
	return func(uid uint32) bool {
		for _, u := range users {
			if u == uid {
				return true
			}
		}
		return false
	}
}

// folder is one of root's that everybody may pass.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "omen-workload-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// client is a process of a user that plays a part.
func (c *counter) client(ctx context.Context, uid uint32, part string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{svid.PlayVariable + "=" + part, "SPIFFE_ENDPOINT_SOCKET=unix://" + c.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// ask runs a part to its end, and gives what it printed.
func (c *counter) ask(uid uint32, part string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := c.client(ctx, uid, part)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	_ = cmd.Run() // its status is printed
	c.t.Logf("%s as %d: %s%s", part, uid, out.String(), complaint.String())
	return out.String()
}

// A workload is a process that watches.
type workloadProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func (c *counter) start(uid uint32) *workloadProcess {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute) // its lines are waited for
	c.t.Cleanup(cancel)
	cmd := c.client(ctx, uid, svid.Watch)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &workloadProcess{t: c.t, cmd: cmd, lines: bufio.NewScanner(out)}
}

// wants waits for the next line, which is of this certificate.
func (w *workloadProcess) wants(s serial) {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("the workload ended: %v", w.lines.Err())
	}
	if want := fmt.Sprintf("svid %s/web %x talked to %x", domain, int64(s), int64(s)); w.lines.Text() != want {
		w.t.Errorf("%q, not %q", w.lines.Text(), want)
	}
}
