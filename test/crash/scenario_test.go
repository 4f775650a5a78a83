// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/test/testca"
)

// scenario is a host and one installation on it, the one that is disturbed.
type scenario struct {
	name       string
	before     int  // installations that went well before
	byHand     bool // /etc/keylime/certs is a folder that people filled
	inseparate bool // the file system has no RENAME_EXCHANGE
	lower      bool // the folder is on a lower layer of an overlay: it cannot be moved at all
	sealed     bool // keys are on a file system in memory, and sealed on the disk
	refused    bool // the new set is rolled back after its probe
	services   bool // there are services, and they restart
}

var scenarios = []scenario{
	{name: "first installation"},
	{name: "renewal", before: 2},
	{name: "adoption", byHand: true},
	{name: "adoption without exchange", byHand: true, inseparate: true},
	{name: "adoption on a lower layer", byHand: true, lower: true},
	{name: "renewal with sealed keys", before: 2, sealed: true},
	{name: "rollback", before: 2, refused: true},
	{name: "rollback of the first", refused: true},
	{name: "rollback of an adoption", byHand: true, refused: true},
	{name: "renewal with services", before: 1, services: true},
	{name: "rollback with services", before: 1, services: true, refused: true},
}

// The owner of every key.
const (
	serviceUID = 4711
	serviceGID = 4712
)

// A set is certificates that belong together.
type set struct {
	name   string
	leaves map[string]*x509.Certificate
	items  []Item            // what the installer gets
	byHand map[string]string // or, what people had put there: file name to content
}

// stage is a scenario with its certificates.
type stage struct {
	scenario
	t         *testing.T
	authority *testca.CA
	hand      *set   // what people had installed, or nil
	older     []*set // what was installed before, the last one is current
	next      *set   // what is being installed when things go wrong
	last      *set   // what is installed after that
}

// certificates maps names to profiles: a tenant needs no service.
func (s scenario) certificates() map[string]string {
	if !s.services {
		return map[string]string{"tenant": keylime.Tenant}
	}
	return map[string]string{"tenant": keylime.Tenant, "verifier": keylime.Verifier, "verifier-client": keylime.VerifierClient, "registrar": keylime.Registrar}
}

func (s scenario) stage(t *testing.T) *stage {
	t.Helper()
	g := &stage{scenario: s, t: t, authority: testca.New(t, "Book of Omens")}
	if s.byHand {
		g.hand = g.handmade()
	}
	for at := range s.before {
		g.older = append(g.older, g.fresh(fmt.Sprintf("old set %d", at+1)))
	}
	g.next, g.last = g.fresh("new set"), g.fresh("last set")
	return g
}

// fresh makes a set that is to be installed.
func (g *stage) fresh(name string) *set {
	g.t.Helper()
	s := &set{name: name, leaves: map[string]*x509.Certificate{}}
	certificates := g.certificates()
	for _, certificate := range slices.Sorted(maps.Keys(certificates)) {
		profile, _ := keylime.Find(certificates[certificate])
		leaf, key := issue(g.t, g.authority, certificate, profile.Usage)
		item := Item{
			Name: certificate, Profile: profile.Name, Chain: asPEM(leaf) + string(g.authority.IntermediatePEM), Key: key, CA: string(g.authority.RootPEM),
		}
		if g.sealed {
			item.Sealed = seal(key)
		}
		s.leaves[certificate] = leaf
		s.items = append(s.items, item)
	}
	return s
}

// handmade is the layout of a set-up by hand: both usages, the CA without its
// root, everything root's, and a file that is not ours.
func (g *stage) handmade() *set {
	g.t.Helper()
	leaf, key := issue(g.t, g.authority, "tenant", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	return &set{name: "handmade set", leaves: map[string]*x509.Certificate{"tenant": leaf}, byHand: map[string]string{
		"tenant.crt": asPEM(leaf), "tenant.key": key, "ca.crt": string(g.authority.IntermediatePEM), notOurs: string(g.authority.RootPEM),
	}}
}

// notOurs is the name of a file that people had put beside Keylime's.
const notOurs = "site-ca.pem"

// known are all sets that can be met.
func (g *stage) known() []*set {
	all := append(slices.Clone(g.older), g.next, g.last)
	if g.hand != nil {
		all = append(all, g.hand)
	}
	return all
}

// standing is the set that serves before the disturbed installation, or nil.
func (g *stage) standing() *set {
	if len(g.older) > 0 {
		return g.older[len(g.older)-1]
	}
	return g.hand
}

// host is a root directory in which a stage plays.
type host struct {
	*stage
	root  string
	ports map[string]int
	dark  bool // it lost its power once
}

var lastPort atomic.Int32

func (g *stage) host(root string) *host {
	return &host{stage: g, root: root, ports: map[string]int{}}
}

// bare makes the root of a host on which nothing of ours was ever installed.
func (g *stage) bare(root string) (*host, error) {
	h := g.host(root)
	files := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nkeylime:x:4711:4712::/var/lib/keylime:/bin/false\n",
		"etc/group":  "keylime:x:4712:\n",
	}
	for _, component := range []string{"verifier", "registrar", "tenant"} {
		files["etc/keylime/"+component+".conf"] = "[" + component + "]\nserver_cert = default\n"
	}
	if g.hand != nil {
		for name, text := range g.hand.byHand {
			files["etc/keylime/certs/"+name] = text
		}
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(root, name), text); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"var/lib", "var/log", "run"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func writeFile(path, text string) error {
	mode := os.FileMode(0o644)
	if strings.HasSuffix(path, ".key") {
		mode = 0o600
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}

// order is the installation of a set on this host.
func (h *host) order(s *set, act Act) Order {
	o := Order{Root: h.root, Act: act, Inseparate: h.inseparate, Items: slices.Clone(s.items)}
	for at := range o.Items {
		o.Items[at].Service = h.service(o.Items[at])
	}
	return o
}

func (h *host) service(item Item) install.Service {
	profile, _ := keylime.Find(item.Profile)
	if profile.Program == "" {
		return install.Service{}
	}
	if h.ports[item.Name] == 0 {
		h.ports[item.Name] = 10000 + int(lastPort.Add(1))
	}
	address := fmt.Sprintf("127.0.0.1:%d", h.ports[item.Name])
	current := filepath.Join(h.root, "var/lib/omen-agent/keylime/current")
	return install.Service{
		Start: []string{
			program(profile.Program), "-listen", address, "-ca", current + "/ca.crt",
			"-cert", current + "/" + item.Name + ".crt", "-key", current + "/" + item.Name + ".key",
		},
		Probe: address, PIDFile: "/run/" + profile.Program + ".pid", Log: "/var/log/" + profile.Program + ".log",
	}
}

// space is the file system in memory, and program a program on it.
func space() string              { return os.Getenv(spaceKey) }
func program(name string) string { return filepath.Join(space(), "bin", name) }

// act of the disturbed installation.
func (s scenario) act() Act {
	if s.refused {
		return Refuse
	}
	return Install
}

// prepare brings a host to where the disturbed installation begins.
func (g *stage) prepare(root string) (*host, error) {
	h, err := g.bare(root)
	if err != nil {
		return nil, err
	}
	for _, s := range g.older {
		if result := h.run(h.order(s, Install)); result.err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, result.err)
		}
	}
	return h, nil
}

// hostFrom is a copy of a prepared host. One with services is prepared anew,
// since they run.
func (g *stage) hostFrom(base, root string) (*host, error) {
	if g.services {
		return g.prepare(root)
	}
	if err := copyTree(base, root); err != nil {
		return nil, err
	}
	h := g.host(root)
	if g.lower {
		return h, h.cover()
	}
	return h, nil
}

// cover puts a writable layer over /etc: what is there already cannot be moved.
func (h *host) cover() error {
	etc, upper, work := h.root+"/etc", h.root+".upper", h.root+".work"
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	return syscall.Mount("overlay", etc, "overlay", 0, "lowerdir="+etc+",upperdir="+upper+",workdir="+work)
}

// remove ends what runs on the host and drops its files.
func (h *host) remove() error {
	var errs []error
	if h.lower {
		errs = append(errs, syscall.Unmount(h.root+"/etc", syscall.MNT_DETACH))
	}
	if h.services {
		errs = append(errs, h.stopServices())
	}
	return errors.Join(append(errs, h.removeFiles())...)
}

func (h *host) removeFiles() error {
	var errs []error
	for _, path := range []string{h.root, h.root + ".upper", h.root + ".work", h.root + ".order", h.root + ".log"} {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// stride is longer where each case starts services.
func (s scenario) stride(usual int) int {
	if s.services && usual > 1 {
		return usual * 6
	}
	return usual
}
