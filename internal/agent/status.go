// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/alarm"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// Record is what is kept of the last renewals, for people. It is never an input
// to a decision.
type Record struct {
	Host        string            `json:"host,omitempty"`
	LastAttempt time.Time         `json:"last_attempt,omitzero"`
	LastSuccess time.Time         `json:"last_success,omitzero"`
	RenewBy     time.Time         `json:"renew_by,omitzero"` // the server's wish at the last success
	Auto        map[string]string `json:"auto,omitempty"`    // see [Outcome]; of the last renewal of each certificate
	Failure     *Failure          `json:"failure,omitempty"` // of the last attempt
	Clock       *Clock            `json:"clock,omitempty"`   // as the server's last answer showed it
}

// Failure is why the last attempt ended.
type Failure struct {
	Step       Step   `json:"step"`
	Rule       string `json:"rule,omitempty"`    // of the auth method's refusal
	Refused    bool   `json:"refused,omitempty"` // by the server, by a rule or not
	Message    string `json:"message"`
	Remedy     string `json:"remedy,omitempty"`
	RolledBack bool   `json:"rolled_back"`
}

// recordName is the record's file in the state folder.
const recordName = "status.json"

// remember writes the record. A renewal does not fail because its record could
// not be written.
func (a *Agent) remember(outcome *Outcome, err error) {
	r := a.recall()
	r.LastAttempt, r.Failure = a.now(), nil
	if err == nil {
		r.Host, r.LastSuccess, r.RenewBy = outcome.Host, r.LastAttempt, outcome.RenewBy
		r.Auto = merged(r.Auto, outcome.Auto)
	} else {
		r.Failure = a.failure(err)
	}
	if clock := a.clock(); clock != nil {
		r.Clock = clock
	}
	if err := a.keep(recordName, r); err != nil {
		a.log.Warn("status is not written", "error", err)
	}
}

// merged is all of before with what is newer.
func merged(before, newer map[string]string) map[string]string {
	all := maps.Clone(newer)
	for name, why := range before {
		if all == nil {
			all = map[string]string{}
		}
		if _, known := all[name]; !known {
			all[name] = why
		}
	}
	return all
}

func (a *Agent) failure(err error) *Failure {
	hint := a.Hint
	if hint == nil {
		hint = remedy.Of
	}
	f := &Failure{Message: err.Error(), Remedy: hint(err), Refused: result(err) == RenewalRefused}
	var step *StepError
	if errors.As(err, &step) {
		f.Step, f.RolledBack = step.Step, step.RolledBack
	}
	var server *bao.Error
	if errors.As(err, &server) {
		f.Rule = string(server.Rule)
	}
	return f
}

// keep writes a value as the JSON file of this name in the state folder, whole, so
// that a reader never sees half of one.
func (a *Agent) keep(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.state, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(a.state, name+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(a.state, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// drop removes a file of the state folder, if it is there.
func (a *Agent) drop(name string) error {
	if err := os.Remove(filepath.Join(a.state, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recall reads the record; an absent or unreadable one is empty.
func (a *Agent) recall() (r Record) {
	text, err := readSmall(filepath.Join(a.state, recordName))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("status is not read", "error", err)
		}
		return r
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}
	}
	return r
}

// Status is what is installed on this host and what the last renewals did.
type Status struct {
	Record
	InUse                         // -1: it is not installed
	Unproven     bool             `json:"unproven,omitempty"` // its installation ended in the middle: a renewal is due
	Damage       []install.Damage `json:"damage,omitempty"`   // installed files that somebody else has changed
	Certificates []Certificate    `json:"certificates"`
	NextRenewal  time.Time        `json:"next_renewal,omitzero"`         // zero: now
	HeldUntil    time.Time        `json:"held_until,omitzero"`           // no renewal by the clock before it: a new set was not served
	Level        alarm.Level      `json:"level"`                         // of the most urgent alarm
	Alarms       []Alarm          `json:"alarms,omitempty"`              // the most urgent first
	NoTPMKeys    []Reader         `json:"cannot_use_tpm_keys,omitempty"` // see [Agent.WithoutTPMKeys]
	Remarks      []string         `json:"remarks,omitempty"`             // see [Agent.Remarks]
	Sinks        []SinkStatus     `json:"sinks,omitempty"`

	now time.Time // that this is said at
}

// Certificate is one configured certificate as it is on disk; without a serial
// it is not installed.
type Certificate struct {
	install.Certificate
	Key     KeyStatus `json:"key"`
	Profile string    `json:"profile"`
	Service string    `json:"service"` // what serves it or reads it
	RenewAt time.Time `json:"renew_at,omitzero"`
}

// Due is the next renewal as a running agent plans it: NextRenewal, or earlier
// where the server said so at the last success, but not while renewals are held back.
func (s *Status) Due() time.Time { return later(bounded(s.NextRenewal, s.RenewBy), s.HeldUntil) }

// Status reads what is on disk. It asks no service; Verify does.
func (a *Agent) Status() (*Status, error) {
	s := &Status{Record: a.recall(), InUse: InUse{Generation: -1}, NoTPMKeys: a.WithoutTPMKeys(), Remarks: append(a.Remarks(), a.orphaned()...)}
	for at, one := range a.sets() {
		if err := a.describeSet(s, one, at == 0); err != nil {
			return nil, err
		}
	}
	s.Sinks = a.describeSinks()
	s.NextRenewal = due(s.Certificates)
	if s.Unproven {
		s.NextRenewal = time.Time{}
	}
	s.now = a.now()
	if held := a.heldUntil(); held.After(s.now) {
		s.HeldUntil = held
	}
	s.Alarms = alarms(s, s.now)
	s.Level = mostUrgent(s.Alarms)
	return s, nil
}

// describeSet adds a set to the status.
func (a *Agent) describeSet(s *Status, one set, first bool) error {
	current, err := one.install.Current()
	if err != nil && !errors.Is(err, install.ErrNotInstalled) {
		return at(StepInstall, "", err)
	}
	if err == nil {
		s.Unproven, s.Damage = s.Unproven || current.Unproven, append(s.Damage, current.Damage...)
		s.uses(one.name, current.Generation, first)
	}
	for _, c := range one.certs {
		if c.Usage() == config.Root {
			s.Certificates = append(s.Certificates, a.describeRoot(c, current))
			continue
		}
		described := describeCertificate(c, current)
		described.Key = describeKey(c, described.Certificate, s.Auto[c.Name])
		s.Certificates = append(s.Certificates, described)
	}
	return nil
}

func describeCertificate(c *config.Certificate, current *install.Installed) Certificate {
	d := Certificate{Certificate: install.Certificate{Name: c.Name, CommonName: c.CommonName}, Profile: c.Profile, Service: c.Serves()}
	if current == nil {
		return d
	}
	for _, installed := range current.Certificates {
		if installed.Name == c.Name {
			d.Certificate = installed
			end := earlier(installed.NotAfter, installed.NotBefore.Add(c.TTL.Duration))
			d.RenewAt = issuer.RenewAt(installed.NotBefore, end).Add(-issuer.Earlier(installed.NotBefore, end, installed.Serial))
		}
	}
	return d
}

// earlier: what is not of ours, an adopted set, may be valid for years, and is due
// when one of ours would be.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// due is when the first of the certificates has to be renewed; the zero time,
// long ago, when one is not installed.
func due(certificates []Certificate) time.Time {
	first := certificates[0].RenewAt
	for _, c := range certificates[1:] {
		if c.RenewAt.Before(first) {
			first = c.RenewAt
		}
	}
	return first
}

// ErrNotServed says that a probe found something wrong.
var ErrNotServed = errors.New("not everything that is installed is served")

// Verify asks every configured service now whether what is installed is what is
// served. The findings are complete whether or not there is an error, which is
// a *StepError of step probe.
func (a *Agent) Verify(ctx context.Context) ([]install.Finding, error) {
	var findings []install.Finding
	for _, s := range a.sets() {
		items := a.emptyItems(s)
		findings = append(findings, s.install.Verify(ctx, items)...)
		if !s.general() {
			findings = append(findings, s.install.Attested(ctx, items)...)
		}
	}
	for _, f := range findings {
		if f.Err != nil {
			return findings, at(StepProbe, f.Certificate, fmt.Errorf("%w: %s: %w", ErrNotServed, f.Check, f.Err))
		}
	}
	return findings, nil
}
