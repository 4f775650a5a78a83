// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

var tpmBreaks = map[string]func(*testing.T){
	"tpm-device": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-device")
		h.tpm["device"] = quoted("unix:" + h.path("none"))
		h.bad("tpm-device", Problem, "no TPM there")
		h.tpm["device"] = quoted(h.sim.Device())
		must(t, h.sim.Freeze())
		d := h.doctor()
		d.Only = []string{"tpm-device"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results, err := d.Examine(ctx)
		must(t, err)
		must(t, h.sim.Thaw())
		if results[len(results)-1].Status != Problem {
			t.Errorf("a TPM that hangs: %+v", results)
		}
	},
	"tpm-access": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-access")
		for at := filepath.Dir(h.sim.Socket()); at != "/tmp"; at = filepath.Dir(at) {
			must(t, os.Chmod(at, 0o755))
		}
		must(t, os.Chown(h.sim.Socket(), 0, 4713))
		must(t, os.Chmod(h.sim.Socket(), 0o666))
		h.place("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ntss:x:4714:4713::/:/bin/false\n", 0o644)
		h.bad("tpm-access", Warning, "group tss (members: keylime, webserver, tss): everybody on this host may use it")
	},
	"tpm-holder": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-holder")
		lock := h.sim.Socket() + ".lock"
		must(t, os.WriteFile(lock, nil, 0o600))
		command := exec.Command("tail", "-f", lock)
		must(t, command.Start())
		defer func() { _, _ = command.Process.Kill(), command.Wait() }()
		deadline := time.Now().Add(10 * time.Second)
		for len(holders(lock)) == 0 && time.Now().Before(deadline) {
			runtime.Gosched() // until it has opened the file
		}
		h.bad("tpm-holder", Warning, "(tail)")
	},
	"tpm-firmware": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-firmware")
		h.tpm["device"] = quoted(says(t, h.sim, map[tpm2.TPMPT]uint32{tpm2.TPMPTManufacturer: 0x49465800, tpm2.TPMPTFirmwareVersion1: 7<<16 | 61}))
		h.bad("tpm-firmware", Problem, "IFX")
		h.tpm["device"] = quoted(says(t, h.sim, map[tpm2.TPMPT]uint32{tpm2.TPMPTManufacturer: 0x49465800, tpm2.TPMPTFirmwareVersion1: 7<<16 | 62}))
		h.good("tpm-firmware")
	},
	"tpm-software": func(t *testing.T) {
		h := newHost(t)
		h.bad("tpm-software", Warning, "is a program")
		h.tpm["device"] = quoted(says(t, h.sim, map[tpm2.TPMPT]uint32{tpm2.TPMPTManufacturer: 0x49465800, tpm2.TPMPTVendorString1: 0x534c4239, tpm2.TPMPTVendorString2: 0x36373000}))
		h.good("tpm-software")
	},
	"tpm-lockout": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-lockout")
		must(t, h.sim.LockOut())
		h.bad("tpm-lockout", Warning, "locked out")
	},
	"tpm-authorisation": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-authorisation")
		must(t, h.sim.SetAuth(tpm2.TPMRHOwner, "secret"))
		h.bad("tpm-authorisation", Warning, "owner_auth_file is not set")
		h.place("owner", "secret", 0o600)
		h.tpm["owner_auth_file"] = quoted(h.path("owner"))
		h.good("tpm-authorisation")
		must(t, h.sim.SetAuth(tpm2.TPMRHEndorsement, "secret"))
		h.bad("tpm-authorisation", Problem, "cannot prove itself")
	},
	"tpm-handles": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-handles")
		handles, err := h.sim.Occupy(3)
		must(t, err)
		h.bad("tpm-handles", Problem, "room for 0 objects")
		must(t, h.sim.Flush(handles...))
	},
	"tpm-pcr-banks": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-pcr-banks")
		h.more = "[seal]\npcr_bank = \"sha384\"\n"
		h.good("tpm-pcr-banks") // nothing is sealed
		h.certificate("tenant", "profile = \"keylime-tenant\"\ncommon_name = \"tenant.keylime.test\"\nkey = \"sealed\"")
		h.bad("tpm-pcr-banks", Problem, "keys are to be sealed to sha384")
	},
	"tpm-measurements": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-measurements")
		must(t, h.sim.Reboot())
		h.bad("tpm-measurements", Warning, "all zero")
	},
	"tpm-event-log": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-event-log")
		must(t, h.sim.Extend(4, tpm2.TPMAlgSHA256, make([]byte, 32)))
		h.bad("tpm-event-log", Problem, "PCR 4")
		h.place("event-log", "no log", 0o600)
		h.bad("tpm-event-log", Problem, "no event log of bank sha256")
		h.place("event-log", "", 0o600)
		h.bad("tpm-event-log", Problem, "is empty")
		must(t, os.Remove(h.path("event-log")))
		h.bad("tpm-event-log", Problem, "no such file")
		h.tpm["event_log"] = `"none"`
		h.bad("tpm-event-log", Warning, "none")
	},
}

// says is the device with other properties, as another vendor's.
func says(t *testing.T, sim *tpmsim.TPM, properties map[tpm2.TPMPT]uint32) (device string) {
	t.Helper()
	return sim.Interpose(t, func(command []byte) []byte {
		if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCGetCapability {
			return nil
		}
		response, err := sim.Send(command)
		if err != nil {
			return nil
		}
		// A list of TPMS_TAGGED_PROPERTY: header, moreData, capability, count.
		for at := 10 + 1 + 4 + 4; at+8 <= len(response); at += 8 {
			if value, changed := properties[tpm2.TPMPT(binary.BigEndian.Uint32(response[at:]))]; changed {
				binary.BigEndian.PutUint32(response[at+4:], value)
			}
		}
		return response
	})
}

var keyBreaks = map[string]func(*testing.T){
	"tpm-ek-certificate": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-ek-certificate")
		h.tpm["ek"] = `"p256"` // swtpm certifies none of this kind
		h.bad("tpm-ek-certificate", Problem, "no certificate in the TPM")
		h.tpm["ek"] = `"rsa2048"`
		h.tpm["ek_certificate"] = `"none"`
		h.bad("tpm-ek-certificate", Warning, "nobody vouches")
		delete(h.tpm, "ek_certificate")
		must(t, h.sim.DefineNV(0x1c00002, tpm2.TPMANV{OwnerRead: true, AuthRead: true}, ekOf(t, h.sim, time.Now().Add(-time.Hour))))
		h.bad("tpm-ek-certificate", Problem, "expired")
		must(t, h.sim.DefineNV(0x1c00002, tpm2.TPMANV{OwnerRead: true, AuthRead: true}, []byte("no certificate")))
		h.bad("tpm-ek-certificate", Problem, "not a certificate")
	},
	"tpm-attestation-key": func(t *testing.T) {
		h := newHost(t)
		h.good("tpm-attestation-key")
		_, err := h.sim.Persist(tpm2.TPMRHOwner, attest.AKHandle, tpm2.ECCSRKTemplate)
		must(t, err)
		h.bad("tpm-attestation-key", Warning, "another program's key")
	},
	"tpm-storage-root": func(t *testing.T) {
		h := newHost(t)
		public, err := h.sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm.RootTemplate())
		must(t, err)
		record := binary.BigEndian.AppendUint32(nil, uint32(tpm.SRKHandle))
		record = append(record, append(make([]byte, 2+32), public...)...)
		h.place("var/lib/omen-agent/state/srk.pub", string(record), 0o600)
		h.good("tpm-storage-root")
		must(t, h.sim.Clear())
		h.bad("tpm-storage-root", Problem, "another key than the one on record")
	},
}

// ekOf is a certificate of the device's RSA endorsement key that ends then.
func ekOf(t *testing.T, sim *tpmsim.TPM, end time.Time) []byte {
	t.Helper()
	public, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(sim)
	must(t, err)
	contents, err := public.OutPublic.Contents()
	must(t, err)
	key, err := tpm2.Pub(*contents)
	must(t, err)
	signer := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "vendor"}, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{tcgEK},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, signer)
	must(t, err)
	return der
}
