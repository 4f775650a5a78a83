// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// Exit codes. Documentation and scripts depend on them.
const (
	exitOther       = 1
	exitUsage       = 2 // command line or configuration
	exitRefused     = 3 // the server said no
	exitUnreachable = 4 // the server could not be asked
	exitTPM         = 5
	exitIssuing     = 6
	exitInstall     = 7
	exitProbe       = 8 // after an install: and rolled back
)

func exitCode(err error) int {
	var faulty *config.Error
	if errors.Is(err, errUsage) || errors.As(err, &faulty) {
		return exitUsage
	}
	var step *agent.StepError
	if !errors.As(err, &step) {
		return exitOther
	}
	switch step.Step {
	case agent.StepTPM:
		return exitTPM
	case agent.StepChallenge, agent.StepLogin:
		return serverCode(err)
	case agent.StepKey, agent.StepSign, agent.StepCheck:
		return exitIssuing
	case agent.StepInstall:
		return exitInstall
	case agent.StepReload, agent.StepProbe:
		return exitProbe
	default:
		return exitOther
	}
}

// serverCode tells a no from no answer.
func serverCode(err error) int {
	var e *bao.Error
	if errors.As(err, &e) && (e.Kind == bao.KindRefused || e.Kind == bao.KindDenied || e.Kind == bao.KindRejected) {
		return exitRefused
	}
	return exitUnreachable
}

// errLater is the answer to a command of a later version.
var errLater = errors.New("this command comes with a later version")

// hint gives the remedy for an error, or "".
func hint(err error) string {
	var faulty *config.Error
	var server *bao.Error
	var judged *issuer.JudgementError
	switch {
	case errors.As(err, &faulty):
		return faulty.Hint
	case errors.Is(err, errLater):
		return "omen-agent --help lists what this version does"
	case errors.Is(err, errUsage):
		return "omen-agent --help shows commands and flags"
	case errors.As(err, &server):
		return serverHint(server)
	case errors.As(err, &judged):
		return "nothing was changed on this host; " + judgedHint(judged.Rule)
	case remedy.Of(err) != "":
		return remedy.Of(err)
	default:
		return tpmHint(err)
	}
}

// judgedHint is for a reply of the PKI that was not accepted.
func judgedHint(rule issuer.Rule) string {
	switch rule {
	case issuer.RuleAnchor, issuer.RuleChain:
		return "bring the root of the PKI mount that signs to the anchor file of agent.toml, by a way you trust"
	case issuer.RuleIssuerExpired:
		return "give the PKI mount a root or intermediate that is valid, and bring a new root to the anchor file"
	case issuer.RuleValidity:
		return "compare the clocks of this host and of OpenBao, and the PKI role's ttl and not_before_duration with the ttl in agent.toml"
	default:
		return "correct the PKI role or the certificate's table in agent.toml so that both ask for the same"
	}
}

func serverHint(e *bao.Error) string {
	if h, ok := ruleHints[e.Rule]; ok {
		return h
	}
	if h := e.Hint(); h != "" {
		return h
	}
	if e.Retryable() {
		return "nothing was changed on this host; try again when OpenBao answers"
	}
	return ""
}

// ruleHints are the remedies for a host's operator. What exactly was wrong is in
// OpenBao's log: the host is not told.
var ruleHints = map[attest.Rule]string{
	attest.RuleHostUnknown: "enrol this host: omen-agent identity shows its TPM ID, then bao write auth/tpm/host/<name> tpm_ids=<TPM ID> roles=<role>",
	attest.RuleBootPolicy:  "this machine booted into a state that its host record does not accept; if that was meant, add the pcr_digest that omen-agent identity shows to the host's pcr_digests",
	attest.RuleRole:        "the role in agent.toml does not exist, or the host record does not list it under roles",
	attest.RuleAudience:    "add the address, namespace and mount that this host dials to audiences in auth/tpm/config, spelled as docs/protocol.md says",
	attest.RuleEKCertificate: "OpenBao does not trust this TPM's endorsement certificate: add its issuer to ek_roots in auth/tpm/config" +
		" (omen-agent identity --output json shows the certificate)",
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
		return "another program holds the TPM; use /dev/tpmrm0, or stop the other program"
	case errors.Is(err, host.ErrDenied):
		return "run as root, or as a user who may open the device"
	case errors.Is(err, host.ErrNoAnswer):
		return "the TPM hangs; a power cycle of the machine may be needed"
	case errors.Is(err, host.ErrNoCertificate):
		return "this TPM has no certificate of that endorsement key; try another with ek in [tpm]. A TPM without any cannot log in with this version"
	case errors.Is(err, host.ErrEventLog):
		return "mount securityfs, or, where this firmware gives no event log, say so: event_log = \"none\" in [tpm]"
	default:
		return ""
	}
}
