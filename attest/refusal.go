// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"maps"
	"slices"
)

// Rule is the name of the check that refused a host. Rules are API: the same
// word stands in the HTTP answer, the log, the audit entry and the metrics.
type Rule string

// The rules. Before proof a host hears only the first group.
const (
	RuleSize          Rule = "size"           // a field or body is longer than its bound
	RuleSyntax        Rule = "syntax"         // not this version's message, or not well-formed
	RuleRole          Rule = "role"           // no such role, or not one this host may use
	RuleChallenge     Rule = "challenge"      // not a challenge of this process and mount
	RuleFreshness     Rule = "freshness"      // challenge expired or used, or nonce, keys or log not the quoted ones
	RuleSignature     Rule = "signature"      // the quote is not signed by the AK
	RuleEKCertificate Rule = "ek-certificate" // the EK certificate does not prove a TPM the role trusts
	RuleEKWeak        Rule = "ek-weak"        // the EK is of a size, exponent or curve that proves nothing
	RuleAKShape       Rule = "ak-shape"       // the AK is not exactly our restricted signing key
	RuleInternal      Rule = "internal"       // our own fault

	RuleAudience     Rule = "audience"      // the quote was made for another server, namespace or mount
	RuleQuoteType    Rule = "quote-type"    // signed bytes that are not a quote made by a TPM
	RuleAKHierarchy  Rule = "ak-hierarchy"  // the AK is not a primary of the endorsement hierarchy
	RuleEKAK         Rule = "ek-ak"         // the AK is not in the TPM of the EK
	RulePCRSelection Rule = "pcr-selection" // other PCRs than the role asks for
	RuleBootPolicy   Rule = "boot-policy"   // the machine booted into a state the host record does not accept
	RuleHostUnknown  Rule = "host-unknown"  // no host record lists this TPM
	RuleState        Rule = "state"         // the role or pin changed between challenge and login
	RuleTPMTaken     Rule = "tpm-taken"     // TPM or AK belongs to another host or TPM

	RulePending        Rule = "pending"          // the host waits for an operator's approval
	RuleHostDisabled   Rule = "host-disabled"    // the host is disabled or quarantined, or its TPM was given up
	RuleTicket         Rule = "ticket"           // no ticket, or not one for this host and role
	RuleNameTaken      Rule = "name-taken"       // the ticket's host name belongs to another host
	RuleKey            Rule = "key"              // a key is not proven to be in the TPM as it was said to be
	RuleClone          Rule = "clone"            // the TPM's counters went back: two machines may share one TPM ID
	RulePCRDigest      Rule = "pcr-digest"       // the PCR values do not hash to the quote's digest
	RuleEventLog       Rule = "event-log"        // the event log does not explain the PCR values
	RuleEventLogNeeded Rule = "event-log-needed" // PCR values and event log are wanted with the next login
)

// known lists every rule, so that a client can tell a refusal from other text.
var known = map[Rule]bool{
	RuleSize: true, RuleSyntax: true, RuleRole: true, RuleChallenge: true, RuleFreshness: true,
	RuleSignature: true, RuleEKCertificate: true, RuleEKWeak: true, RuleAKShape: true, RuleInternal: true,
	RuleAudience: true, RuleQuoteType: true, RuleAKHierarchy: true, RuleEKAK: true,
	RulePCRSelection: true, RuleBootPolicy: true, RuleHostUnknown: true, RuleState: true, RuleTPMTaken: true,
	RulePending: true, RuleHostDisabled: true, RuleTicket: true, RuleNameTaken: true, RuleKey: true, RuleClone: true,
	RulePCRDigest: true, RuleEventLog: true, RuleEventLogNeeded: true,
}

// Known reports whether r is a rule of this version.
func (r Rule) Known() bool { return known[r] }

// Rules lists the rules of this version, sorted.
func Rules() []Rule { return slices.Sorted(maps.Keys(known)) }

// StartOver reports whether a fresh challenge may help, once in an attempt.
// Every other refusal is final until an operator changes something.
func (r Rule) StartOver() bool {
	return r == RuleChallenge || r == RuleFreshness || r == RuleState || r == RuleEventLogNeeded
}

// Status is the HTTP status a refusal travels under: 400 for a message that
// cannot be read, 500 for our own fault, 403 for the rest.
func (r Rule) Status() int {
	switch r {
	case RuleSize, RuleSyntax:
		return 400
	case RuleInternal:
		return 500
	default:
		return 403
	}
}

// RefusalPrefix begins the error text of every refusal; the rule follows it and
// nothing else does, least of all something that the client sent.
const RefusalPrefix = "omen: refused: "

// Refusal is the error of a check that said no.
type Refusal struct {
	Rule Rule
	// Detail is for the operator's log only. It never travels to the host.
	Detail string
}

// Refuse makes a Refusal with a detail for the operator's log.
func Refuse(rule Rule, format string, args ...any) *Refusal {
	return &Refusal{Rule: rule, Detail: fmt.Sprintf(format, args...)}
}

// Error gives the words for an operator: rule and detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return RefusalPrefix + string(r.Rule)
	}
	return RefusalPrefix + string(r.Rule) + ": " + r.Detail
}

// Public gives the words for the host: the rule alone.
func (r *Refusal) Public() string { return RefusalPrefix + string(r.Rule) }
