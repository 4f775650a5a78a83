// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"funlab.casa/omen/attest"
)

// Kind is what went wrong, in one word.
type Kind string

// The kinds of an [Error].
const (
	KindRefused     Kind = "refused"         // the auth method said no; Rule says why
	KindDenied      Kind = "denied"          // HTTP 403: a policy, a token that is over, or a mount that is not there
	KindRejected    Kind = "rejected"        // another 4xx: OpenBao does not do this, for this role
	KindSealed      Kind = "sealed"          // the node is sealed or not initialised
	KindBusy        Kind = "busy"            // HTTP 412 or 429: behind its peers, or a quota
	KindFailing     Kind = "failing"         // another 5xx
	KindRedirect    Kind = "redirect"        // 3xx: not the active node, or not OpenBao; never followed
	KindUnreachable Kind = "unreachable"     // no connection, or no answer in time
	KindUnknownCA   Kind = "unknown-ca"      // no CA of ours vouches for the server; Served says what it showed
	KindCertificate Kind = "bad-certificate" // the server's certificate is for another name, or expired
	KindGarbage     Kind = "garbage"         // an answer that OpenBao does not give
	KindCancelled   Kind = "cancelled"       // the caller stopped waiting
)

// ServedCA is the last certificate of a chain that nobody vouches for.
type ServedCA struct {
	Subject string
	Issuer  string // the same as Subject for a root
	SHA256  string // of the DER, as openssl x509 -fingerprint -sha256 prints it
}

// Error is the failure of one call at one address. What a server said is kept
// in it in printable ASCII only, at most 300 bytes.
type Error struct {
	Op      string      // challenge, lookup, unwrap, login, sign or health
	Address string      // https://host:port
	Kind    Kind        // what went wrong
	Status  int         // HTTP status, 0 without an answer
	Rule    attest.Rule // for KindRefused
	Message string      // the server's words, or the cause
	Served  *ServedCA   // for KindUnknownCA
	Others  []string    // what other addresses of the same call ended in
	Err     error       // context.Canceled or the like, for errors.Is; else nil
	// RetryAfter is how long the server asked not to be asked again (RFC 9110,
	// 10.2.3), 0 for no wish.
	RetryAfter time.Duration

	caFile string // for the hint
}

// Error says address, kind, and the server's words; which call it was is the
// caller's to say.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.Address)
	if e.Kind == KindRefused {
		fmt.Fprintf(&b, "refused: %s", e.Rule)
	} else {
		b.WriteString(string(e.Kind))
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Message != "" && e.Kind != KindRefused {
		b.WriteString(": " + e.Message)
	}
	for _, other := range e.Others {
		b.WriteString("; " + other)
	}
	return b.String()
}

// Unwrap returns the cause that a caller may ask for, if any.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same call may succeed later without anybody
// changing anything.
func (e *Error) Retryable() bool {
	switch e.Kind {
	case KindSealed, KindBusy, KindFailing, KindRedirect, KindUnreachable:
		return true
	}
	return false
}

// StartOver reports whether the caller should ask for a new challenge and try
// once more: the challenge was spent, or the node that made it cannot be had,
// and with it the process that alone takes the challenge.
func (e *Error) StartOver() bool {
	if e.Kind == KindRefused {
		return e.Rule.StartOver()
	}
	return (e.Op == opLogin || e.Op == opLookup || e.Op == opUnwrap) && e.Retryable()
}

// Spent reports whether a wrapping token opens nothing: it was opened before, it
// has expired, or it never was one.
func (e *Error) Spent() bool {
	return (e.Op == opLookup || e.Op == opUnwrap) && e.Status == http.StatusBadRequest
}

// elsewhere reports whether another address may do better although this one
// will not: what it serves is not our OpenBao.
func (e *Error) elsewhere() bool {
	return e.Kind == KindUnknownCA || e.Kind == KindCertificate || e.Kind == KindGarbage
}

// Hint is the remedy, as a sentence for a person; "" when there is none but
// what Error says.
func (e *Error) Hint() string {
	switch e.Kind {
	case KindUnknownCA:
		return e.unknownCAHint()
	case KindCertificate:
		return "the address must be a name or IP address in the server's certificate, or tls_server_name set to one; check both clocks"
	case KindSealed:
		return "unseal that OpenBao node, or list the addresses of its peers"
	case KindRedirect:
		return "list the address of every OpenBao node under addresses; redirects are never followed"
	case KindDenied:
		if e.Op == opSign {
			return "the host's policy omen-host-<host> must allow update on this sign path with csr, ttl and format"
		}
		return "check that the auth method is mounted at auth_path in this namespace"
	case KindRejected:
		switch {
		case e.Spent():
			return "the wrapped ticket was opened before, or has expired. If nobody of yours opened it, somebody else may have read it: " +
				"tell the operator, who revokes the ticket and looks which host used it; then ask for another"
		case e.Op == opLookup:
			return "what is in the ticket file does not come from this auth method: tell the operator, and use nothing of it"
		case e.Op == opSign:
			return "the PKI role <host>.<usage> must exist and allow exactly the names, addresses and lifetime that agent.toml asks for"
		}
	case KindGarbage:
		return "check that this address is OpenBao and not a proxy or another service"
	case KindUnreachable:
		return "check the address, the route to it and that OpenBao listens there"
	}
	return ""
}

func (e *Error) unknownCAHint() string {
	if e.Served == nil {
		return "put the CA of OpenBao into " + e.caFile
	}
	served := fmt.Sprintf("the server's chain ends in %q with SHA-256 fingerprint %s. Nothing of it was trusted. ",
		e.Served.Subject, e.Served.SHA256)
	if e.Served.Issuer != e.Served.Subject {
		return served + fmt.Sprintf("It does not send the CA %q that issued it: copy that CA's certificate "+
			"from the OpenBao host to %s, by a way you trust", e.Served.Issuer, e.caFile)
	}
	return served + "On the OpenBao host compare it with: openssl x509 -in <its CA file> -noout -fingerprint -sha256. " +
		"Only if they are equal, copy that CA file to " + e.caFile
}

// clean makes text from outside fit to be kept and shown: printable ASCII, at
// most 300 bytes.
func clean(s string) string {
	const limit = 300
	s = strings.Join(strings.Fields(s[:min(len(s), 4*limit)]), " ")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > limit {
		s = s[:limit-3] + "..."
	}
	return s
}
