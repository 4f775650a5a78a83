// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
)

// answer is what is known of the HTTP answer when a call of the library returns.
type answer struct {
	status     int
	retryAfter time.Duration
}

// note is the library's response callback.
func (a *answer) note(response *api.Response) {
	a.status = response.StatusCode
	a.retryAfter = parseRetryAfter(response.Header.Get("Retry-After"))
}

// parseRetryAfter reads seconds (RFC 9110 section 10.2.3), the one form that
// OpenBao sends; anything else is 0.
func parseRetryAfter(text string) time.Duration {
	seconds, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// failure fills e in from what the library returned.
func (e *Error) failure(a answer, err error) *Error {
	if a.status >= 400 {
		e.httpFailure(a, err)
	} else {
		e.transportFailure(err)
	}
	return e
}

// httpFailure is for answers with an error status.
func (e *Error) httpFailure(a answer, err error) {
	e.Status, e.RetryAfter = a.status, a.retryAfter
	text := serverText(err)
	e.Message = clean(text)
	rule, refused := parseRule(text)
	switch {
	case refused && (e.Op == opChallenge || e.Op == opLogin):
		e.Kind, e.Rule = KindRefused, rule
	case a.status == http.StatusForbidden:
		e.Kind = KindDenied
	case a.status == http.StatusTooManyRequests || a.status == http.StatusPreconditionFailed:
		e.Kind = KindBusy
	case a.status == http.StatusServiceUnavailable && strings.Contains(strings.ToLower(text), "sealed"),
		a.status >= 500 && strings.Contains(text, "not initialized"):
		e.Kind = KindSealed
	case a.status >= 500:
		e.Kind = KindFailing
	default:
		e.Kind = KindRejected
	}
}

// serverText is the errors array of the answer, or the raw body without one.
func serverText(err error) string {
	var response *api.ResponseError
	if errors.As(err, &response) {
		return strings.Join(response.Errors, "; ")
	}
	return ""
}

var ruleWord = regexp.MustCompile(regexp.QuoteMeta(attest.RefusalPrefix) + `([a-z][a-z0-9-]{0,31})(?:[^a-z0-9-]|$)`)

// parseRule finds the rule in a refusal of the auth method. A word that this
// version does not know is a refusal all the same.
func parseRule(text string) (attest.Rule, bool) {
	found := ruleWord.FindStringSubmatch(text)
	if found == nil {
		return "", false
	}
	return attest.Rule(found[1]), true
}

// transportFailure is for calls that brought no error status: no answer, or one
// that cannot be read.
func (e *Error) transportFailure(err error) {
	var (
		verification *tls.CertificateVerificationError
		redirect     *redirectError
		tooLong      *http.MaxBytesError
		noTLS        tls.RecordHeaderError
		syntax       *json.SyntaxError
		mismatch     *json.UnmarshalTypeError
	)
	e.Message = clean(rootCause(err))
	switch {
	case errors.As(err, &verification):
		e.badServer(verification)
	case errors.As(err, &redirect):
		e.Kind, e.Status, e.Message = KindRedirect, redirect.status, ""
	case errors.As(err, &tooLong):
		e.Kind, e.Message = KindGarbage, fmt.Sprintf("an answer longer than %d bytes", tooLong.Limit)
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		e.Kind, e.Message = KindGarbage, "no TLS is spoken at this port"
	case errors.As(err, &syntax), errors.As(err, &mismatch):
		e.Kind, e.Message = KindGarbage, "an answer that is not OpenBao's JSON"
	case errors.Is(err, context.Canceled):
		e.Kind, e.Err = KindCancelled, context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Err, e.Message = KindUnreachable, context.DeadlineExceeded, "no answer in time"
	default:
		e.Kind = KindUnreachable
	}
}

// rootCause drops what package http puts around an error: method and URL.
func rootCause(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}

// badServer tells a CA that nobody pinned from a certificate that is wrong in
// itself, and keeps of the first what a person needs to find out whose it is.
func (e *Error) badServer(verification *tls.CertificateVerificationError) {
	var unknown x509.UnknownAuthorityError
	if !errors.As(verification.Err, &unknown) {
		e.Kind = KindCertificate
		e.Message = clean(verification.Err.Error())
		return
	}
	e.Kind, e.Message = KindUnknownCA, "no certificate in ca_file vouches for the server"
	if chain := verification.UnverifiedCertificates; len(chain) > 0 {
		last := chain[len(chain)-1]
		e.Served = &ServedCA{
			Subject: clean(last.Subject.String()), Issuer: clean(last.Issuer.String()), SHA256: fingerprint(last.Raw),
		}
	}
}

// fingerprint is AA:BB:..., as openssl prints it.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}
