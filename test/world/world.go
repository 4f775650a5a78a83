// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"funlab.casa/omen/test/authority"
	"funlab.casa/omen/tpmsim"
)

// Domain is the domain of every host.
const Domain = "funlab.casa"

// The hosts of the story and their addresses.
const (
	Spire   = "spire"
	SpireIP = "10.10.2.62"
	Auth    = "auth"
	AuthIP  = "10.10.2.70"
)

// A World is a set of hosts on one private network, and the OpenBao of one of
// them. Its methods are called from one goroutine.
type World struct {
	Tools Tools
	Bao   *OpenBao // nil until StartOpenBao

	place        place
	dir          string // of this world, in memory
	vendor       *tpmsim.CA
	ca           *authority.Authority
	root         []byte // of the Book of Omens, PEM, once OpenBao has made it
	intermediate []byte
	clients      []byte // root of Keylime's client certificates
	hosts        []*Host
	logs         []logFile
}

type logFile struct {
	host *Host
	path string
}

// New makes an empty world. The program must be inside [Enter]'s namespaces.
func New() (*World, error) {
	inside, err := here()
	if err != nil {
		return nil, err
	}
	tools, err := FindTools()
	if err != nil {
		return nil, err
	}
	w := &World{Tools: tools, place: inside}
	if w.dir, err = os.MkdirTemp(inside.dir, "w"); err != nil {
		return nil, err
	}
	if err := os.Chmod(w.dir, 0o711); err != nil {
		return nil, err
	}
	if w.ca, err = authority.New("Fun Lab server CA"); err != nil {
		return nil, err
	}
	if w.vendor, err = tpmsim.NewCA(filepath.Join(w.dir, "vendor")); err != nil {
		return nil, err
	}
	return w, nil
}

// AddHost starts a host with a TPM of its own, the users Keylime and OpenBao
// need, the programs under test in /usr/bin, and every host's name in
// /etc/hosts.
func (w *World) AddHost(ctx context.Context, name, address string) (*Host, error) {
	if err := addAddress(address); err != nil {
		return nil, err
	}
	h, err := startHost(w.dir, name, address)
	if err != nil {
		return nil, err
	}
	w.hosts = append(w.hosts, h)
	for _, known := range w.hosts {
		if err := known.writeIdentity(w.etcHosts()); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(h.addUsers(ctx), h.installPrograms(ctx, w.Tools), h.MkdirAll("/etc/omen-agent", 0o755)); err != nil {
		return nil, fmt.Errorf("prepare host %s: %w", name, err)
	}
	if err := h.WriteFile(BaoCAFile, w.ca.PEM(), 0o644); err != nil {
		return nil, err
	}
	if w.root != nil {
		if err := w.pinOn(h); err != nil {
			return nil, err
		}
	}
	return h, w.startTPM(h)
}

// startTPM manufactures the host's TPM and switches it on.
func (w *World) startTPM(h *Host) error {
	state, err := w.vendor.Manufacture(h.Name)
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, "tpm", h.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	h.TPM, err = state.Start(tpmsim.Options{Dir: dir})
	return err
}

// Host is the host of that name, nil if there is none.
func (w *World) Host(name string) *Host {
	for _, h := range w.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Hosts are all hosts, in the order they came.
func (w *World) Hosts() []*Host { return w.hosts }

// VendorRoot and VendorIssuer are the certificates of whoever made the TPMs.
func (w *World) VendorRoot() *x509.Certificate { return w.vendor.Root() }

// VendorIssuer signs EK certificates; VendorRoot signed it.
func (w *World) VendorIssuer() *x509.Certificate { return w.vendor.Issuer() }

// RootPEM is the root of the Book of Omens, IntermediatePEM what signs leaves;
// both are empty until StartOpenBao.
func (w *World) RootPEM() []byte { return w.root }

// IntermediatePEM is the certificate of pki_int.
func (w *World) IntermediatePEM() []byte { return w.intermediate }

// ClientsPEM is the root that Keylime's client certificates come from.
func (w *World) ClientsPEM() []byte { return w.clients }

// Close ends every host and every process on it, and drops their files.
func (w *World) Close() error {
	var all error
	for _, h := range w.hosts {
		all = errors.Join(all, h.close())
	}
	w.hosts = nil
	return errors.Join(all, os.RemoveAll(w.dir))
}

// Watch names a log that Logs shows.
func (w *World) Watch(h *Host, path string) { w.logs = append(w.logs, logFile{h, path}) }

// Logs is the end of every watched log, n lines each, for a person who wants
// to know what went wrong.
func (w *World) Logs(n int) string {
	var out strings.Builder
	for _, log := range w.logs {
		text, err := log.host.ReadFile(log.path)
		if err != nil || len(text) == 0 {
			continue
		}
		fmt.Fprintf(&out, "--- %s:%s\n%s\n", log.host.Name, log.path, lastLines(string(text), n))
	}
	return out.String()
}

func (w *World) etcHosts() string {
	var out strings.Builder
	out.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range w.hosts {
		fmt.Fprintf(&out, "%s %s %s\n", h.IP, h.FQDN(), h.Name)
	}
	return out.String()
}
