// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/install/internal/testtpm"
	"funlab.casa/omen/test/testca"
)

// handed checks a handout against what was installed.
func (h *host) handed(item Item) {
	h.t.Helper()
	got, err := h.installer.Handout("web")
	if err != nil {
		h.t.Fatal(err)
	}
	chain := chainOf(h.t, item)
	if len(got.Chain) != len(chain) || string(got.Chain[0]) != string(chain[0].Raw) || !got.Leaf.Equal(chain[0]) {
		h.t.Errorf("chain of %d, serial %x", len(got.Chain), got.Leaf.SerialNumber)
	}
	if string(got.Key) != string(item.Key) {
		h.t.Error("another key")
	}
	root, _ := pem.Decode(h.ca.RootPEM)
	if len(got.Roots) != 1 || string(got.Roots[0]) != string(root.Bytes) {
		h.t.Errorf("%d roots", len(got.Roots))
	}
}

// TestHandout: keys in files and sealed ones go out with their certificate, of the set
// that is current.
func TestHandout(t *testing.T) {
	h := newHost(t)
	h.installer.Open = unseal
	if _, err := h.installer.Handout("web"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("nothing installed: %v", err)
	}
	first := h.web()
	h.must(h.renew(first))
	h.handed(first)
	if _, err := h.installer.Handout("other"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("another: %v", err)
	}
	second := seal(h.web())
	h.must(h.renew(second))
	h.handed(second)
	h.reboot()
	if _, err := h.installer.Handout("web"); !errors.Is(err, ErrNoPlainKey) {
		t.Errorf("sealed: %v", err)
	}
}

// TestHandoutOfWhatIsNotProven: nothing goes out between switch and proof, nor of a set
// that somebody else has changed, that has expired, or whose key is in the TPM.
func TestHandoutOfWhatIsNotProven(t *testing.T) {
	h := newHost(t)
	first := h.web()
	h.must(h.renew(first))
	change, err := h.installer.Install(t.Context(), []Item{h.web()})
	h.must(err)
	if _, err := h.installer.Handout("web"); !errors.Is(err, ErrUnproven) {
		t.Errorf("not proven: %v", err)
	}
	h.must(change.RollBack(t.Context()))
	h.must(change.Close())
	h.handed(first)

	bundle := h.path(webSet + "/ca.crt")
	kept := h.read(webSet + "/ca.crt")
	h.must(os.WriteFile(bundle, append([]byte(kept), testca.New(t, "other").RootPEM...), 0o644))
	if _, err := h.installer.Handout("web"); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("changed: %v", err)
	}
	h.must(os.WriteFile(bundle, []byte(kept), 0o644))
	h.handed(first)

	short := h.web()
	short.Chain, short.Key = h.ca.Issue(t, testca.Want{Name: "web.test", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotAfter: time.Now().Add(2 * time.Second)})
	h.must(h.renew(short))
	end := chainOf(t, short)[0].NotAfter
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		_, err := h.installer.Handout("web")
		if time.Now().After(end) && err != nil && strings.Contains(err.Error(), "expired") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("expired: %v", err)
		}
	}
}

func TestHandoutOfAKeyInTheTPM(t *testing.T) {
	h, c := newHost(t), testtpm.Start(t)
	h.installer.Sign = c.Sign
	h.must(h.renew(h.inTPM(h.web(), c)))
	if _, err := h.installer.Handout("web"); !errors.Is(err, ErrKeyInTPM) {
		t.Errorf("%v", err)
	}
}

func TestValidAt(t *testing.T) {
	now := time.Now()
	leaf := &x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Hour)}
	for ahead, want := range map[time.Duration]bool{-time.Second: false, 0: true, time.Hour: true, time.Hour + time.Second: false} {
		if err := validAt(leaf, now.Add(ahead)); (err == nil) != want {
			t.Errorf("after %s: %v", ahead, err)
		}
	}
}
