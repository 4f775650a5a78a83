// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"context"
	"slices"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/tpm"
)

// boot are the PCRs that firmware and boot loader measure into (TCG PC Client
// Platform Firmware Profile, section 3.3.4).
func boot(bank string) attest.Selection {
	return attest.Selection{Bank: bank, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}
}

// bank is the one to look at: the strongest that roles take.
func (p *patient) bank(ctx context.Context) string {
	banks := p.asked(ctx).condition.Banks
	for _, bank := range []string{"sha256", "sha384"} {
		if slices.Contains(banks, bank) {
			return bank
		}
	}
	return ""
}

// measured are the values of the boot's PCRs, in their order.
func (p *patient) measured(ctx context.Context, bank string) (values [][]byte, err error) {
	selection := boot(bank)
	err = p.withTPM(ctx, func(opened *tpm.TPM) error {
		read, err := opened.ReadPCRs(ctx, selection.Algorithm(), selection.PCRs)
		for _, pcr := range selection.PCRs {
			values = append(values, read[pcr])
		}
		return err
	})
	return values, err
}

func checkMeasurements(ctx context.Context, p *patient) []Result {
	bank := p.bank(ctx)
	if bank == "" {
		return notApplicable("neither sha256 nor sha384 is active")
	}
	values, err := p.measured(ctx, bank)
	if err != nil {
		return p.failed("", err)
	}
	empty := func(value []byte) bool { return len(bytes.Trim(value, "\x00")) == 0 }
	if !slices.ContainsFunc(values, func(value []byte) bool { return !empty(value) }) {
		return warning("", "", "PCRs 0 to 7 of bank %s are all zero", bank)
	}
	return ok("", "PCRs of bank %s have values", bank)
}

func checkEventLog(ctx context.Context, p *patient) []Result {
	path := p.agent.TPM().EventLog
	log, err := host.ReadEventLog(path)
	switch {
	case err != nil:
		return p.failed(path, err)
	case log == nil:
		return warning("", "a role with secure_boot or boot_components refuses this host; where the firmware gives a log, take event_log out of [tpm]", "event_log = \"none\"")
	}
	bank := p.bank(ctx)
	parsed, err := eventlog.Parse(log, bank)
	if err != nil {
		return problem(path, mendLog, "%d bytes that are no event log of bank %s: %v", len(log), bank, err)
	}
	values, err := p.measured(ctx, bank)
	if err != nil {
		return p.failed("", err)
	}
	if _, err := parsed.Against(boot(bank), values); err != nil {
		return problem(path, mendLog, "it does not explain the PCRs: %v", err)
	}
	return ok(path, "%d bytes explain PCRs 0 to 7 of bank %s", len(log), bank)
}

const mendLog = "event_log in [tpm] must be the log of this boot, whole; after kexec, or with firmware that logs wrongly, a role with secure_boot or boot_components refuses this host"
