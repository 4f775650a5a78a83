// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/keylime"
)

// What stands at /etc/keylime/certs.
const (
	nothing  = "nothing"
	byLink   = "link"
	byFolder = "folder"
)

// finding is what the judge sees on a host.
type finding struct {
	stands string // nothing, byLink or byFolder
	set    *set   // the set that services read, nil with nothing
	part   bool   // a folder of people from which files are missing
	drops  int    // drop-ins of ours
}

func (f finding) String() string {
	if f.set == nil {
		return f.stands
	}
	return f.stands + " to " + f.set.name
}

// open resolves a path as a process on the host would, links and all.
func (h *host) open(name string, flags uint64) (*os.File, error) {
	root, err := unix.Open(h.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return openIn(root, name, flags)
}

func openIn(root int, name string, flags uint64) (*os.File, error) {
	for {
		fd, err := unix.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue // a rename ran beside
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

func (h *host) read(name string) ([]byte, unix.Stat_t, error) {
	var stat unix.Stat_t
	file, err := h.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, stat, err
	}
	defer file.Close()
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, stat, err
	}
	text, err := io.ReadAll(file)
	return text, stat, err
}

// judge looks at a host as its services would when they start now. Whatever is
// there must be whole: an error says what is not.
func (h *host) judge(p *parser) (finding, error) {
	f, err := h.look(keylime.CertsDir)
	if err != nil {
		return f, err
	}
	f.drops, err = h.judgeDropIns(p, f)
	return f, err
}

// look finds and judges the set at a path.
func (h *host) look(name string) (finding, error) {
	info, err := os.Lstat(filepath.Join(h.root, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding{stands: nothing}, nil
	case err != nil:
		return finding{}, err
	case info.IsDir():
		return h.judgeFolder(name)
	case info.Mode()&fs.ModeSymlink == 0:
		return finding{}, fmt.Errorf("%s is neither folder nor link", name)
	}
	found, err := h.judgeSet(name)
	return finding{stands: byLink, set: found}, err
}

// judgeFolder wants what people had put there, bytes and all. Files may be
// missing: who allows that says so.
func (h *host) judgeFolder(name string) (finding, error) {
	f := finding{stands: byFolder, set: h.hand}
	if h.hand == nil {
		return f, fmt.Errorf("%s became a folder", name)
	}
	missing, err := h.judgeHand(name)
	f.part = missing > 0
	return f, err
}

func (h *host) judgeHand(name string) (missing int, err error) {
	entries, err := os.ReadDir(filepath.Join(h.root, name))
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		text, _, err := h.read(path.Join(name, entry.Name()))
		if want, known := h.hand.byHand[entry.Name()]; err != nil || !known || want != string(text) {
			return 0, errors.Join(fmt.Errorf("%s/%s is not what people had put there", name, entry.Name()), err)
		}
	}
	return len(h.hand.byHand) - len(entries), nil
}

// judgeSet names the one set whose leaves are all in a generation, and judges
// the generation as the services' users will.
func (h *host) judgeSet(name string) (*set, error) {
	for _, s := range h.known() {
		for certificate, leaf := range s.leaves {
			text, _, err := h.read(path.Join(name, certificate+".crt"))
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(string(text), asPEM(leaf)) {
				continue
			}
			if s.byHand == nil {
				return s, h.judgeWhole(name, s)
			}
			if missing, err := h.judgeHandGeneration(name); err != nil || missing > 0 {
				return s, errors.Join(fmt.Errorf("%s: %d files of the set made by hand are missing", name, missing), err)
			}
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s holds a certificate of no set", name)
}

// judgeHandGeneration is judgeHand of a folder that is reached by a link.
func (h *host) judgeHandGeneration(name string) (missing int, err error) {
	for file, want := range h.hand.byHand {
		text, _, err := h.read(path.Join(name, file))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil || string(text) != want {
			return 0, errors.Join(fmt.Errorf("%s/%s is not what people had put there", name, file), err)
		}
	}
	return missing, nil
}

func (h *host) judgeWhole(name string, s *set) error {
	bundle, stat, err := h.read(path.Join(name, keylime.BundleFile))
	if err != nil {
		return err
	}
	if err := wants(stat, keylime.BundleFile, 0o644, 0, 0); err != nil {
		return err
	}
	roots, between, err := pools(string(bundle))
	if err != nil {
		return err
	}
	for _, certificate := range slices.Sorted(maps.Keys(s.leaves)) {
		if err := h.judgePair(path.Join(name, certificate), s.leaves[certificate], x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: s.leaves[certificate].ExtKeyUsage}); err != nil {
			return fmt.Errorf("%s of %s: %w", certificate, s.name, err)
		}
	}
	if h.hand == nil {
		return h.judgeWay(name)
	}
	if text, _, err := h.read(path.Join(name, notOurs)); err != nil || string(text) != h.hand.byHand[notOurs] {
		return errors.Join(fmt.Errorf("%s, which somebody's configuration may name, is not there any more", notOurs), err)
	}
	return h.judgeWay(name)
}

// judgeWay wants folders on the way that a service user can pass.
func (h *host) judgeWay(name string) error {
	for _, folder := range []string{"/var/lib/omen-agent", "/var/lib/omen-agent/keylime", name} {
		dir, err := h.open(folder, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		info, err := dir.Stat()
		dir.Close()
		if err != nil || info.Mode().Perm() != 0o711 {
			return errors.Join(fmt.Errorf("%s: mode %o", folder, info.Mode().Perm()), err)
		}
	}
	return nil
}

// judgePair judges a certificate, its key, and what the key comes back from.
func (h *host) judgePair(name string, leaf *x509.Certificate, options x509.VerifyOptions) error {
	chain, stat, err := h.read(name + ".crt")
	if err != nil {
		return err
	}
	if err := wants(stat, "certificate", 0o644, 0, 0); err != nil {
		return err
	}
	key, stat, err := h.read(name + ".key")
	if err != nil {
		return err
	}
	if err := wants(stat, "key", 0o600, serviceUID, serviceGID); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return err
	}
	if !pair.Leaf.Equal(leaf) {
		return errors.New("certificate of another set")
	}
	if _, err := pair.Leaf.Verify(options); err != nil {
		return err
	}
	if !h.sealed {
		return nil
	}
	text, stat, err := h.read(name + ".sealed")
	if err != nil {
		return err
	}
	if string(text) != seal(string(key)) {
		return errors.New("another key is sealed")
	}
	return wants(stat, "sealed key", 0o400, serviceUID, serviceGID)
}

func wants(stat unix.Stat_t, what string, mode uint32, uid, gid int) error {
	if stat.Mode&0o7777 != mode || int(stat.Uid) != uid || int(stat.Gid) != gid {
		return fmt.Errorf("%s: mode %o of %d:%d, want %o of %d:%d", what, stat.Mode&0o7777, stat.Uid, stat.Gid, mode, uid, gid)
	}
	return nil
}

// judgeDropIns has Keylime's parser read each component's files, and wants every
// file that they name.
func (h *host) judgeDropIns(p *parser, f finding) (int, error) {
	count := 0
	for _, component := range h.components() {
		settings, err := p.settings(h.root, component)
		if err != nil {
			return count, err
		}
		dir, ours := settings["tls_dir"]
		if !ours {
			continue
		}
		count++
		if f.stands != byLink {
			return count, fmt.Errorf("%s is configured, and %s stands at its folder", component, f.stands)
		}
		for key, names := range settings {
			if strings.HasSuffix(key, "_cert") && names[0] == "default" {
				continue // of the main file
			}
			if !strings.HasSuffix(key, "_cert") && !strings.HasSuffix(key, "_key") && !strings.HasSuffix(key, "_ca") {
				continue
			}
			for _, name := range names {
				if _, _, err := h.read(path.Join(dir[0], name)); err != nil {
					return count, fmt.Errorf("%s: %s: %w", component, key, err)
				}
			}
		}
	}
	return count, nil
}

func (h *host) components() []string {
	if h.services {
		return []string{"registrar", "tenant", "verifier"}
	}
	return []string{"tenant"}
}
