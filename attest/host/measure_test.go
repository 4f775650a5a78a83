// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// prove is a whole conversation with this claim.
func (m *machine) prove(t *testing.T, s *server, claim host.Claim) (proof *attest.LoginRequest, err error) {
	t.Helper()
	claim.Role, claim.Audience = "keylime", audience
	m.with(t, func(prover *host.Prover) {
		request, requested := prover.Request(t.Context(), claim.Role)
		if requested != nil {
			t.Fatal(requested)
		}
		proof, err = prover.Login(t.Context(), claim, s.challenge(t, request))
	})
	return proof, err
}

// TestMeasurements sends what the quote is about, and no other bytes.
func TestMeasurements(t *testing.T) {
	all := make([]int, 24)
	for i := range all {
		all[i] = i
	}
	for name, row := range map[string]struct {
		selection attest.Selection
		log       bool
		reads     int
	}{
		"eight PCRs":   {attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}, true, 1},
		"all PCRs":     {attest.Selection{Bank: "sha256", PCRs: all}, true, 3},
		"no event log": {attest.Selection{Bank: "sha256", PCRs: []int{0, 7, 23}}, false, 1},
	} {
		for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				m := newMachine(t, tpmsim.Start(t))
				m.renew(t, kind) // the record is there
				if !row.log {
					m.config.EventLog = host.NoEventLog
				}
				s := newServer(kind)
				s.selection = row.selection
				proof, err := m.prove(t, s, host.Claim{Measurements: true})
				if err != nil {
					t.Fatal(err)
				}
				s.accept(t, m.sim, proof)
				checkMeasurements(t, m, s, proof)
				if counts := m.commands.Counts(); counts["PCR_Read"] != row.reads || counts["Quote"] != 1 {
					t.Errorf("sent %v", counts)
				}
			})
		}
	}
}

func checkMeasurements(t *testing.T, m *machine, s *server, proof *attest.LoginRequest) {
	t.Helper()
	if len(proof.PCRs) != len(s.selection.PCRs) {
		t.Fatalf("%d values for %d PCRs", len(proof.PCRs), len(s.selection.PCRs))
	}
	for i, pcr := range s.selection.PCRs {
		want, err := m.sim.PCR(pcr, s.selection.Algorithm())
		if err != nil || !bytes.Equal(proof.PCRs[i], want) {
			t.Errorf("PCR %d is %x, want %x (%v)", pcr, proof.PCRs[i], want, err)
		}
	}
	if m.config.EventLog == host.NoEventLog {
		if proof.EventLog != nil {
			t.Errorf("an event log of %d bytes", len(proof.EventLog))
		}
		return
	}
	if hash := sha256.Sum256(proof.EventLog); !bytes.Equal(hash[:], proof.EventLogHash) {
		t.Error("the log that is sent is not the one that is quoted")
	}
}

// A renewal that nobody asked for measurements sends none.
func TestNoMeasurementsUnlessAsked(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	if proof := m.renew(t, attest.KindKnown); proof.PCRs != nil || proof.EventLog != nil {
		t.Errorf("%d values and a log of %d bytes", len(proof.PCRs), len(proof.EventLog))
	}
}

// extending puts a listener before a device, which extends PCR 14 just before a
// quote while there are quotes left to spoil. It returns the listener's name.
func extending(t *testing.T, sim *tpmsim.TPM, spoil int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "omen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			forward(connection, sim, &spoil)
		}
	}()
	return "unix:" + listener.Addr().String()
}

// forward sends each command on until the connection ends.
func forward(connection net.Conn, sim *tpmsim.TPM, spoil *int) {
	defer connection.Close()
	buffer := make([]byte, 4096)
	for {
		if _, err := io.ReadFull(connection, buffer[:10]); err != nil {
			return
		}
		size := int(buffer[4])<<8 | int(buffer[5])
		if _, err := io.ReadFull(connection, buffer[10:size]); err != nil {
			return
		}
		if code := tpm2.TPMCC(buffer[8])<<8 | tpm2.TPMCC(buffer[9]); code == tpm2.TPMCCQuote && *spoil > 0 {
			*spoil--
			if err := sim.Extend(14, tpm2.TPMAlgSHA256, bytes.Repeat([]byte{byte(*spoil)}, 32)); err != nil {
				return
			}
		}
		answer, err := sim.Send(buffer[:size])
		if err != nil {
			return
		}
		if _, err := connection.Write(answer); err != nil {
			return
		}
	}
}

// TestPCRMovesBeforeTheQuote has somebody extend a PCR between reading and
// quoting it: values and quote must fit, or there is no proof.
func TestPCRMovesBeforeTheQuote(t *testing.T) {
	for spoil, quotes := range map[int]int{1: 2, 4: 5} {
		m := newMachine(t, tpmsim.Start(t))
		m.config.Device = extending(t, m.sim, spoil)
		s := newServer(attest.KindKnown)
		proof, err := m.prove(t, s, host.Claim{Measurements: true})
		if err != nil {
			t.Fatal(err)
		}
		s.accept(t, m.sim, proof)
		checkMeasurements(t, m, s, proof)
		if got := m.commands.Counts()["Quote"]; got != quotes {
			t.Errorf("%d quotes for %d moves", got, spoil)
		}
	}
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	m.config.Device = extending(t, m.sim, 1000)
	if _, err := m.prove(t, newServer(attest.KindKnown), host.Claim{Measurements: true}); !errors.Is(err, host.ErrPCRMoved) {
		t.Errorf("error is %v", err)
	}
	if counts := m.commands.Counts(); counts["Quote"] != 5 || counts["NV_Read"] != 0 {
		t.Errorf("sent %v", counts)
	}
}

// The ticket is opened when nothing but the quote can fail any more, is bound by
// the quote and travels beside it.
func TestTicketIsAskedLast(t *testing.T) {
	for _, measurements := range []bool{false, true} {
		m := newMachine(t, tpmsim.Start(t))
		s := newServer(attest.KindActivate)
		ticket := attest.Ticket(bytes.Repeat([]byte{0x71}, attest.TicketSize))
		asked := 0
		proof, err := m.prove(t, s, host.Claim{Measurements: measurements, WantedName: "spire",
			Ticket: func(context.Context) (attest.Ticket, error) {
				asked++
				counts := m.commands.Counts()
				if counts["ActivateCredential"] != 1 || counts["Quote"] != 0 {
					t.Errorf("asked for after %v", counts)
				}
				return ticket, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		if asked != 1 || !bytes.Equal(proof.Ticket, ticket) || proof.WantedName != "spire" {
			t.Errorf("asked %d times: %+v", asked, proof)
		}
		s.accept(t, m.sim, proof)
	}
}

// Without an event log there is nothing to open a ticket for.
func TestTicketIsKeptWhenTheHostCannotQuote(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.EventLog = "/nonexistent"
	_, err := m.prove(t, newServer(attest.KindActivate), host.Claim{Ticket: func(context.Context) (attest.Ticket, error) {
		t.Error("opened")
		return nil, nil
	}})
	if !errors.Is(err, host.ErrEventLog) {
		t.Errorf("error is %v", err)
	}
}

// A ticket that cannot be had says nothing about the TPM's keys.
func TestTicketTroubleIsNotTheRecord(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	cause := errors.New("no answer")
	_, err := m.prove(t, newServer(attest.KindKnown), host.Claim{Ticket: func(context.Context) (attest.Ticket, error) { return nil, cause }})
	if !errors.Is(err, cause) || m.commands.Total() != 0 {
		t.Errorf("%v after %v", err, m.commands.Counts())
	}
	s := newServer(attest.KindKnown)
	proof, err := m.prove(t, s, host.Claim{Ticket: func(context.Context) (attest.Ticket, error) { return nil, nil }})
	if err != nil || proof.Ticket != nil {
		t.Fatalf("without one: %v", err)
	}
	s.accept(t, m.sim, proof)
	_, err = m.prove(t, s, host.Claim{Ticket: func(context.Context) (attest.Ticket, error) { return attest.Ticket("short"), nil }})
	if err == nil || strings.Contains(err.Error(), "short") {
		t.Errorf("a short ticket: %v", err)
	}
}
