// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

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
	var sick *problemsError
	if errors.As(err, &sick) {
		return areaCodes[sick.first.Area]
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

// hint gives the remedy for an error, or "".
func hint(err error) string {
	var faulty *config.Error
	var server *bao.Error
	var judged *issuer.JudgementError
	switch {
	case errors.As(err, &faulty):
		return faulty.Hint
	case errors.As(err, new(*problemsError)):
		return "" // each problem has its own
	case errors.Is(err, errUsage):
		return "omen-agent --help shows commands and flags"
	case errors.As(err, &server):
		return serverHint(err, server)
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
