// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
)

// serverHint is for what OpenBao answered, or did not.
func serverHint(err error, e *bao.Error) string {
	if h, ok := ruleHints[e.Rule]; ok {
		return withTPMID(h, err) + goneHint(err)
	}
	if h := e.Hint(); h != "" {
		return h + goneHint(err)
	}
	if e.Retryable() {
		return "nothing was changed on this host; try again when OpenBao answers" + goneHint(err)
	}
	return goneHint(err)
}

// withTPMID puts this host's TPM ID where a remedy needs it.
func withTPMID(hint string, err error) string {
	var step *agent.StepError
	if errors.As(err, &step) && step.TPMID != "" {
		return strings.ReplaceAll(hint, "<TPM ID>", string(step.TPMID))
	}
	return hint
}

// goneHint is for a ticket that was spent on a login that failed.
func goneHint(err error) string {
	if errors.Is(err, agent.ErrTicketGone) {
		return ". The ticket was opened and is gone: ask the operator for another"
	}
	return ""
}

// ruleHints are the remedies for a host's operator. What exactly was wrong is in
// OpenBao's log: the host is not told.
var ruleHints = map[attest.Rule]string{
	attest.RuleHostUnknown: "enrol this host: bao write auth/tpm/host/<name> tpm_ids=<TPM ID> roles=<role>; or, where the role takes tickets," +
		" ask the operator for one and give it with --ticket-file",
	attest.RulePending: "an operator has to approve this host: bao read auth/tpm/pending/<TPM ID> shows what is known of it," +
		" bao write auth/tpm/pending/<TPM ID>/approve name=<host> roles=<role> lets it in; then try again",
	attest.RuleHostDisabled: "an operator disabled or quarantined this host, or gave up its TPM: bao read auth/tpm/host/<name> and" +
		" bao read auth/tpm/tombstone/<TPM ID> say which",
	attest.RuleTicket: "the ticket is not one for this TPM (<TPM ID>) and role, has expired, or was used by another TPM; if nobody of yours used it," +
		" that is an alarm for the operator",
	attest.RuleNameTaken: "the host name of the ticket was given to another host meanwhile; ask the operator for a ticket with another name",
	attest.RuleBootPolicy: "this machine booted into a state that OpenBao does not accept; an operator sees what moved with bao read auth/tpm/verdict/<host>," +
		" and accepts it, if it was meant, in the host's pcr_digests or the role's baseline",
	attest.RulePCRDigest: "the PCR values that were sent are not the quoted ones; check what sits between this program and the TPM",
	attest.RuleEventLog: "the event log does not explain what the TPM measured: event_log in [tpm] must be the log of this boot, whole;" +
		" bao read auth/tpm/verdict/<host> says where they part",
	attest.RuleEventLogNeeded: "OpenBao wants the event log with each login; its log says why",
	attest.RuleClone: "the TPM's counters went back, as if two machines had one TPM. After TPM2_Clear or work on the board:" +
		" bao write -f auth/tpm/host/<name>/accept-reset. Otherwise find the other machine",
	attest.RuleKey: "the role wants keys that are proven to be in the TPM (require_resident): key = \"tpm\" for every certificate of this host, as far as what" +
		" reads them can use such keys; omen-agent status says which cannot",
	attest.RuleRole:     "the role in agent.toml does not exist, or the host record does not list it under roles",
	attest.RuleAudience: "add the address, namespace and mount that this host dials to audiences in auth/tpm/config, spelled as docs/protocol.md says",
	attest.RuleEKCertificate: "OpenBao does not trust this TPM's endorsement key: add the issuer of its certificate to the roots in auth/tpm/config" +
		" (omen-agent identity --output json shows the certificate), or name what is between them with ek_intermediates in [tpm];" +
		" a key without certificate must be listed for a host with allow_uncertified_ek",
	attest.RuleEKWeak:    "this TPM's endorsement key is not of a kind that is trusted; choose another with ek in [tpm]",
	attest.RuleEKAK:      "the attestation key is not in the TPM of the endorsement key; check what sits between this program and the TPM",
	attest.RuleTPMTaken:  "this TPM or its key belongs to another host record; an operator has to settle which",
	attest.RuleSyntax:    "agent and auth method speak different versions of the protocol; bring both to the same version",
	attest.RuleSize:      "agent and auth method speak different versions of the protocol; bring both to the same version",
	attest.RuleFreshness: "the challenge was over or used; look at the load of OpenBao and the speed of this TPM, then try again",
	attest.RuleChallenge: "OpenBao changed its leader or reloaded the plugin in between; try again",
	attest.RuleState:     "the role or host record was changed in between; try again",
	attest.RuleInternal:  "the auth method failed; OpenBao's log says why",
}

func tpmHint(err error) string {
	switch {
	case errors.Is(err, host.ErrAbsent):
		return "check device in [tpm]: /dev/tpmrm0 needs a TPM 2.0 that the firmware has enabled"
	case errors.Is(err, host.ErrBusy):
		return "another program holds the TPM, or its slots; use /dev/tpmrm0, or stop the other program. What a program left in a TPM that nobody" +
			" manages, tpm2_flushcontext -t (objects) and -l (sessions) take out"
	case errors.Is(err, host.ErrDenied):
		return "run as root, or as a user who may open the device"
	case errors.Is(err, host.ErrNoAnswer):
		return "the TPM hangs, or went away in the midst of a command; try again. If it stays so, a power cycle of the machine may be needed"
	case errors.Is(err, host.ErrNoCertificate):
		return noCertificateHint
	case errors.Is(err, host.ErrAnotherKey):
		return "the certificate is not of this TPM: correct ek_certificate in [tpm], or ask the vendor for the certificate of the key that" +
			" omen-agent identity shows with ek_certificate = \"none\""
	case errors.Is(err, host.ErrPCRMoved):
		return "some program extends the PCRs of the role all the time: let the role ask for others"
	case errors.Is(err, host.ErrEventLog):
		return "mount securityfs, or, where this firmware gives no event log, say so: event_log = \"none\" in [tpm]"
	default:
		return storageHint(err)
	}
}

// storageHint is for keys that the TPM makes, keeps or gives back.
func storageHint(err error) string {
	switch {
	case errors.Is(err, host.ErrAuth):
		return "somebody gave this hierarchy of the TPM a password: name the file that holds it with owner_auth_file or endorsement_auth_file in [tpm]." +
			" The owner's is not needed where the standard P-256 storage root key is persistent at 0x81000001"
	case errors.Is(err, host.ErrState):
		return "if the change was meant, omen-agent renew asks OpenBao and makes new keys for this state; before the next planned one, omen-agent announce"
	case errors.Is(err, host.ErrStorage):
		return "the TPM was cleared, or is another one: what it kept under the former storage root is lost. omen-agent renew makes new keys." +
			" If nobody did that, find out what sits between this program and the TPM"
	case errors.Is(err, host.ErrNoRecord):
		return "the state folder of this host is gone or bent; omen-agent renew makes new keys and a new record"
	default:
		return ""
	}
}

// noCertificateHint names the way without a certificate, and its price.
const noCertificateHint = "this TPM has no certificate of that endorsement key; try another with ek in [tpm]. Where the vendor delivers it elsewhere," +
	" name its file: ek_certificate = \"PATH\". Where there is none at all: ek_certificate = \"none\"; then nobody vouches that the key is in a TPM" +
	" and not in a program, and OpenBao takes it only where an operator lists its TPM ID with allow_uncertified_ek"
