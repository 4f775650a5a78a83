// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/tpm"
)

// tpmLook is what the TPM says of itself, or why it says nothing.
type tpmLook struct {
	properties *tpm.Properties
	condition  *tpm.Condition
	err        error
}

// asked opens the TPM, asks it for its properties, and closes it.
func (p *patient) asked(ctx context.Context) tpmLook {
	return p.tpm.get(func() (look tpmLook) {
		look.err = p.withTPM(ctx, func(opened *tpm.TPM) (err error) {
			if look.properties, err = opened.Properties(ctx); err == nil {
				look.condition, err = opened.Condition(ctx)
			}
			return err
		})
		return look
	})
}

// withTPM opens the TPM for the length of fn.
func (p *patient) withTPM(ctx context.Context, fn func(*tpm.TPM) error) error {
	c := p.agent.TPM()
	opened, err := tpm.Open(ctx, tpm.Config{Device: c.Device, OwnerAuth: c.OwnerAuth, EndorsementAuth: c.EndorsementAuth})
	if err != nil {
		return err
	}
	return errors.Join(fn(opened), opened.Close())
}

func tpmChecks() []Check {
	needs := []string{"tpm-device"}
	return []Check{
		{
			Name: "tpm-device", Area: AreaTPM, run: checkDevice,
			Asks:   "the TPM that `device` in `[tpm]` names is there, may be opened, and answers",
			Remedy: "check device in [tpm]: /dev/tpmrm0 needs a TPM 2.0 that the firmware has enabled",
		},
		{
			Name: "tpm-access", Area: AreaTPM, run: checkAccess,
			Asks:   "who may open the TPM: whoever may is this host to OpenBao",
			Remedy: "chmod o-rw the device, and keep users and network-facing services out of its group",
		},
		{
			Name: "tpm-holder", Area: AreaTPM, run: checkHolders,
			Asks:   "who has the TPM open now, besides its resource manager",
			Remedy: "use /dev/tpmrm0 in both programs, or stop the other one",
		},
		{
			Name: "tpm-firmware", Area: AreaTPM, needs: needs, run: checkFirmware,
			Asks:   "vendor and firmware of the TPM; an Infineon firmware that makes weak RSA keys (ROCA, CVE-2017-15361)",
			Remedy: "update the TPM's firmware by its vendor's way, clear it, and enrol the host anew; until then choose another endorsement key with ek in [tpm]",
		},
		{
			Name: "tpm-software", Area: AreaTPM, needs: needs, run: checkSoftware,
			Asks:   "the TPM is a chip or in the firmware, and not a program",
			Remedy: "for tests only. A role takes it with ek_classes=virtual; whoever is root where the program runs can copy this host",
		},
		{
			Name: "tpm-lockout", Area: AreaTPM, needs: needs, run: checkLockout,
			Asks:   "nobody has failed to authorise: the counter of the dictionary-attack protection. Keys of omen-agent are not under it",
			Remedy: "find the program that fails (systemd-cryptenroll, a PIN, tpm2-tools); tpm2_dictionarylockout --clear-lockout ends it, or waiting does",
		},
		{
			Name: "tpm-authorisation", Area: AreaTPM, needs: needs, run: checkAuthorisation,
			Asks:   "hierarchies with an authorisation value have its file in `[tpm]`",
			Remedy: "name the file that holds it with owner_auth_file or endorsement_auth_file in [tpm]",
		},
		{
			Name: "tpm-handles", Area: AreaTPM, needs: needs, run: checkHandles,
			Asks:   "room for an object, a session and a persistent key",
			Remedy: "what programs left in a TPM that nobody manages, tpm2_flushcontext -t (objects) and -l (sessions) take out; of persistent keys tpm2_evictcontrol. /dev/tpmrm0 needs neither",
		},
		{
			Name: "tpm-pcr-banks", Area: AreaTPM, needs: needs, run: checkBanks,
			Asks:   "the PCR bank of `[seal]`, and sha256, are active",
			Remedy: "switch the bank on in the firmware's set-up (or tpm2_pcrallocate, then a reboot); or name another in [seal] and in the role",
		},
		{
			Name: "tpm-measurements", Area: AreaTPM, needs: needs, run: checkMeasurements,
			Asks:   "the firmware has measured something into PCRs 0 to 7",
			Remedy: "switch on measured boot in the firmware's set-up (TPM, UEFI, no legacy boot); what nobody measures no policy can judge",
		},
		{
			Name: "tpm-event-log", Area: AreaTPM, needs: needs, run: checkEventLog,
			Asks:   "the event log is there, not empty, well-formed, and explains the PCRs",
			Remedy: "mount securityfs, or, where this firmware gives no event log, say so: event_log = \"none\" in [tpm]",
		},
	}
}

func checkDevice(ctx context.Context, p *patient) []Result {
	look := p.asked(ctx)
	if look.err != nil {
		return problem(p.device(), p.hint(look.err), "%v", look.err)
	}
	return ok(p.device(), "answers")
}

func (p *patient) device() string { return p.agent.TPM().Device }

func checkFirmware(ctx context.Context, p *patient) []Result {
	properties := p.asked(ctx).properties
	seen := fmt.Sprintf("%s %s, firmware %s", properties.Manufacturer, properties.Vendor, properties.Firmware)
	if isROCA(properties) {
		return problem("", "", "%s: it makes RSA keys that can be broken", seen)
	}
	return ok("", "%s", strings.Join(strings.Fields(seen), " "))
}

// isROCA knows the firmware of Infineon's TPM 2.0 with the weak RSA library: 5.0 to
// 5.61 and 7.0 to 7.61 (vendor's notice for CVE-2017-15361).
func isROCA(properties *tpm.Properties) bool {
	var major, minor int
	if _, err := fmt.Sscanf(properties.Firmware, "%d.%d.", &major, &minor); err != nil {
		return false
	}
	return properties.Manufacturer == "IFX" && (major == 5 || major == 7) && minor < 62
}

func checkSoftware(ctx context.Context, p *patient) []Result {
	properties := p.asked(ctx).properties
	if isSoftware(properties) {
		maker := strings.Join(strings.Fields(properties.Manufacturer+" "+properties.Vendor), " ")
		return warning("", "", "%s is a program, or a virtual machine's", maker)
	}
	return ok("", "made by %s", properties.Manufacturer)
}

// isSoftware knows libtpms and IBM's and Microsoft's simulators by what they say. One
// that wants to lie can: what counts is the certificate, which OpenBao judges.
func isSoftware(properties *tpm.Properties) bool {
	vendor := strings.ReplaceAll(properties.Vendor, " ", "")
	return properties.Manufacturer == "IBM" || strings.Contains(vendor, "SWTPM") || strings.Contains(vendor, "xCGfTPM") || strings.Contains(vendor, "Simul")
}

func checkLockout(ctx context.Context, p *patient) []Result {
	c := p.asked(ctx).condition
	seen := fmt.Sprintf("%d of %d failed tries; one is forgotten in %s", c.FailedTries, c.MaxTries, c.Recovery)
	switch {
	case c.LockedOut:
		return warning("", "", "locked out: %s", seen)
	case c.FailedTries > 0:
		return warning("", "", "%s", seen)
	}
	return ok("", "%s", seen)
}

func checkAuthorisation(ctx context.Context, p *patient) []Result {
	c, t := p.asked(ctx).condition, p.config.TPM
	switch {
	case c.EndorsementAuth && t.EndorsementAuthFile == "":
		return problem("", "", "the endorsement hierarchy has an authorisation value, and endorsement_auth_file is not set: this host cannot prove itself")
	case c.OwnerAuth && t.OwnerAuthFile == "":
		return warning("", "", "the owner hierarchy has an authorisation value, and owner_auth_file is not set: the attestation key is made anew each time, and keys may not be sealed")
	}
	return ok("", "owner %s, endorsement %s", authWord(c.OwnerAuth), authWord(c.EndorsementAuth))
}

func authWord(set bool) string {
	if set {
		return "with a file"
	}
	return "without a value"
}

func checkHandles(ctx context.Context, p *patient) []Result {
	c := p.asked(ctx).condition
	seen := fmt.Sprintf("room for %d objects, %d sessions, %d persistent keys", c.FreeObjects, c.FreeSessions, c.FreePersistent)
	managed := strings.HasPrefix(p.device(), "/dev/tpmrm")
	switch {
	case !managed && (c.FreeObjects == 0 || c.FreeSessions == 0):
		return problem("", "", "%s", seen)
	case !managed && c.FreeObjects == 1, c.FreePersistent == 0:
		return warning("", "", "%s", seen)
	}
	return ok("", "%s", seen)
}

func checkBanks(ctx context.Context, p *patient) []Result {
	banks := p.asked(ctx).condition.Banks
	seen := "active: " + strings.Join(banks, ", ")
	if seal := p.config.Seal; seal.Policy == "pcr" && !slices.Contains(banks, seal.Bank) && p.seals() {
		return problem("", "", "%s; keys are to be sealed to %s", seen, seal.Bank)
	}
	if !slices.Contains(banks, "sha256") {
		return warning("", "", "%s; roles ask for sha256 unless they say otherwise", seen)
	}
	return ok("", "%s", seen)
}

// seals reports that a certificate has, or may have, a sealed key.
func (p *patient) seals() bool {
	return slices.ContainsFunc(p.config.Certificates, func(c config.Certificate) bool { return c.Key == "sealed" || c.Key == "auto" })
}
