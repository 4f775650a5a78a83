// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
)

func loginChecks() []Check {
	first := []string{"tpm-ek-certificate", "openbao-seal"}
	return []Check{
		{
			Name: "auth-mount", Area: AreaLogin, needs: first, patience: long, run: checkMount,
			Asks:   "the auth method answers at `auth_path`, in this namespace",
			Remedy: "bao auth list; mount it (bao auth enable -path=tpm tpm), or correct auth_path or namespace in [openbao]",
		},
		{
			Name: "plugin-version", Area: AreaLogin, needs: []string{"auth-mount"}, run: checkPlugin,
			Asks:   "the auth method speaks this agent's version of the protocol; it tells hosts no other version",
			Remedy: "bring agent and plugin to the same version: bao auth list -detailed shows the plugin's",
		},
		{
			Name: "auth-role", Area: AreaLogin, needs: []string{"auth-mount"}, run: checkRole,
			Asks:   "the role in `[openbao]` is there, and this host may use it",
			Remedy: "bao list auth/tpm/role; correct role in [openbao], or add it to the host's roles",
		},
		{
			Name: "host-known", Area: AreaLogin, needs: []string{"auth-mount"}, run: checkHost,
			Asks:   "OpenBao knows this host, and it is neither waiting, disabled nor quarantined",
			Remedy: "enrol it: docs/operations.md, The hosts",
		},
		{
			Name: "login", Area: AreaLogin, needs: first, patience: long, run: checkLogin,
			Asks:   "a whole login without anything to be signed: the verdict. The token is not kept and ends by itself",
			Remedy: "bao read auth/tpm/verdict/<host> says what OpenBao did not like",
		},
	}
}

// refusal is the rule by which a login was refused; "" where it was not.
func (l login) refusal() attest.Rule {
	var e *bao.Error
	if errors.As(l.err, &e) && e.Kind == bao.KindRefused {
		return e.Rule
	}
	return ""
}

// checkMount takes any word of the auth method for its being there.
func checkMount(ctx context.Context, p *patient) []Result {
	if p.agent.OpenBao() == nil || p.config.OpenBao.Role == "" {
		return notApplicable("[openbao] is not complete")
	}
	path := p.config.OpenBao.AuthPath
	l := p.loggedIn(ctx)
	var e *bao.Error
	switch {
	case l.err == nil || l.refusal() != "":
		return ok(path, "answers")
	case errors.As(l.err, &e):
		return p.failed(path, l.err)
	}
	return notApplicable("this host did not come so far: login says why")
}

func checkPlugin(ctx context.Context, p *patient) []Result {
	switch rule := p.loggedIn(ctx).refusal(); rule {
	case attest.RuleSyntax, attest.RuleSize:
		return problem("", "", "the auth method does not take what this agent says (%s)", rule)
	}
	return ok("", "protocol version %d", attest.Version)
}

func checkRole(ctx context.Context, p *patient) []Result {
	role := p.config.OpenBao.Role
	if l := p.loggedIn(ctx); l.refusal() == attest.RuleRole {
		return problem(role, p.hint(l.err), "refused: role")
	}
	return ok(role, "taken")
}

// unknown are the rules by which a host is refused for what its record says.
var unknown = map[attest.Rule]string{
	attest.RuleHostUnknown:  "no host has this TPM",
	attest.RulePending:      "this host waits for an operator's approval",
	attest.RuleHostDisabled: "this host is disabled or quarantined, or its TPM was given up",
	attest.RuleTPMTaken:     "this TPM belongs to another host",
	attest.RuleNameTaken:    "the name of this host is another's",
	attest.RuleTicket:       "this role takes hosts with a ticket",
}

func checkHost(ctx context.Context, p *patient) []Result {
	l := p.loggedIn(ctx)
	if what, is := unknown[l.refusal()]; is {
		return problem(string(l.id), p.hint(l.err), "%s (%s)", what, l.refusal())
	}
	switch {
	case l.err != nil:
		return notApplicable("the login did not come so far")
	case l.session.Metadata["boot"] == "":
		return ok(l.session.Host, "TPM ID %s", l.id)
	}
	return ok(l.session.Host, "TPM ID %s, boot %s", l.id, l.session.Metadata["boot"])
}

// told are the rules that the checks before tell of.
func told(rule attest.Rule) bool {
	_, ofHost := unknown[rule]
	return ofHost || rule == attest.RuleRole || rule == attest.RuleSyntax || rule == attest.RuleSize
}

// checkLogin is the verdict where none of the checks before has it.
func checkLogin(ctx context.Context, p *patient) []Result {
	if p.agent.OpenBao() == nil || p.config.OpenBao.Role == "" {
		return notApplicable("[openbao] is not complete")
	}
	l := p.loggedIn(ctx)
	var e *bao.Error
	switch {
	case l.err == nil:
		return ok(l.session.Host, "let in; a token for %s, not kept", l.session.TTL)
	case told(l.refusal()):
		return notApplicable("refused: %s, see above", l.refusal())
	case l.refusal() == "" && errors.As(l.err, &e):
		return notApplicable("no verdict: auth-mount comes first")
	}
	return problem(string(l.id), p.hint(l.err), "%v", l.err)
}
