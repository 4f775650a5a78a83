// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
)

// Step is one of the steps of a renewal. The same words stand in errors, logs,
// status and documentation.
type Step string

// The steps, in their order.
const (
	StepTPM       Step = "tpm"
	StepKey       Step = "key"
	StepChallenge Step = "challenge"
	StepLogin     Step = "login"
	StepSign      Step = "sign"
	StepCheck     Step = "check"
	StepInstall   Step = "install"
	StepReload    Step = "reload"
	StepProbe     Step = "probe"
)

// Steps lists the steps in their order.
func Steps() []Step {
	return []Step{StepTPM, StepKey, StepChallenge, StepLogin, StepSign, StepCheck, StepInstall, StepReload, StepProbe}
}

// StepError says at which step a renewal ended and what serves now.
type StepError struct {
	Step        Step
	Certificate string // its name, where the step concerns one
	Err         error
	RolledBack  bool         // the set that served before is in place and served again
	TPMID       attest.TPMID // this host's, where the server was told
}

// Error names the step, the certificate and the cause.
func (e *StepError) Error() string {
	where := string(e.Step)
	if e.Certificate != "" {
		where += " " + e.Certificate
	}
	if e.RolledBack {
		return fmt.Sprintf("%s: %v (rolled back: the set before is in place)", where, e.Err)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// LogAttrs are what a log with fields says of this error beside its words.
func (e *StepError) LogAttrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("step", string(e.Step)), slog.Bool("rolled_back", e.RolledBack)}
	if e.Certificate != "" {
		attrs = append(attrs, slog.String("certificate", e.Certificate))
	}
	var server *bao.Error
	if errors.As(e.Err, &server) && server.Rule != "" {
		attrs = append(attrs, slog.String("rule", string(server.Rule)))
	}
	return attrs
}

// at wraps err with its step; a nil err stays nil, and an error that knows its
// step keeps it.
func at(step Step, certificate string, err error) error {
	var known *StepError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &StepError{Step: step, Certificate: certificate, Err: err}
}
