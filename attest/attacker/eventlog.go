// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"

	"github.com/google/go-tpm/tpm2"
)

// Event types (TCG PC Client Platform Firmware Profile 1.06, 10.4.1).
const (
	EventNoAction       uint32 = 0x00000003
	EventSeparator      uint32 = 0x00000004
	EventSCRTMVersion   uint32 = 0x00000008
	EventIPL            uint32 = 0x0000000d
	EventVariableConfig uint32 = 0x80000001
	EventBootServices   uint32 = 0x80000003
)

// Event is one entry of an event log.
type Event struct {
	PCR  int
	Type uint32
	Data []byte
	// Digests are logged in place of the hash of Data, by bank.
	Digests map[tpm2.TPMAlgID][]byte
}

// digest is what is logged, and measured, in a bank.
func (e Event) digest(bank tpm2.TPMAlgID) ([]byte, error) {
	if d, ok := e.Digests[bank]; ok {
		return d, nil
	}
	return sum(bank, e.Data)
}

// Measure extends events into all banks and logs them.
func (t *TPM) Measure(events ...Event) error {
	for _, e := range events {
		for _, bank := range banks {
			d, err := e.digest(bank)
			if err != nil {
				return err
			}
			if err := t.Extend(bank, e.PCR, d); err != nil {
				return err
			}
		}
		t.Events = append(t.Events, e)
	}
	return nil
}

// EventLog is the log as the kernel gives it; nil without one.
func (t *TPM) EventLog() ([]byte, error) {
	if t.RawLog != nil || t.Events == nil {
		return t.RawLog, nil
	}
	return EncodeEventLog(t.Events)
}

// EncodeEventLog writes a crypto-agile event log with the banks SHA-1, SHA-256
// and SHA-384 (PC Client Platform Firmware Profile 1.06, 10.2 and 10.4.5.1).
func EncodeEventLog(events []Event) ([]byte, error) {
	le := binary.LittleEndian
	b := logHeader()
	for _, e := range events {
		b = le.AppendUint32(le.AppendUint32(b, uint32(e.PCR)), e.Type)
		b = le.AppendUint32(b, uint32(len(banks)))
		for _, bank := range banks {
			d, err := e.digest(bank)
			if err != nil {
				return nil, err
			}
			b = append(le.AppendUint16(b, uint16(bank)), d...)
		}
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b, nil
}

// logHeader is the first event, in the old form, that says which banks follow.
func logHeader() []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, uint32(len(banks)))
	for i, bank := range banks {
		spec = le.AppendUint16(le.AppendUint16(spec, uint16(bank)), [...]uint16{20, 32, 48}[i])
	}
	spec = append(spec, 0) // no vendor information
	b := le.AppendUint32(le.AppendUint32(nil, 0), EventNoAction)
	b = append(b, make([]byte, 20)...)
	return append(le.AppendUint32(b, uint32(len(spec))), spec...)
}

// PlainBoot are the events of a short boot with Secure Boot on: firmware's
// version, the Secure Boot variables, a boot loader, and the separators.
func PlainBoot() []Event {
	events := []Event{{PCR: 0, Type: EventSCRTMVersion, Data: []byte("1\x00.\x000\x00\x00\x00")}}
	for _, v := range []struct{ name, value string }{
		{"SecureBoot", "\x01"}, {"PK", ""}, {"KEK", ""}, {"db", ""}, {"dbx", ""},
	} {
		events = append(events, Event{PCR: 7, Type: EventVariableConfig, Data: variable(v.name, v.value)})
	}
	for pcr := range 8 {
		events = append(events, Event{PCR: pcr, Type: EventSeparator, Data: make([]byte, 4)})
	}
	return append(events, Event{PCR: 4, Type: EventBootServices, Data: make([]byte, 32)})
}

// globalVariable is EFI_GLOBAL_VARIABLE as UEFI_VARIABLE_DATA has it.
const globalVariable = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"

// variable is a UEFI_VARIABLE_DATA (PC Client Platform Firmware Profile, 10.2.6).
func variable(name, value string) []byte {
	le := binary.LittleEndian
	encoded := utf16.Encode([]rune(name))
	b := le.AppendUint64([]byte(globalVariable), uint64(len(encoded)))
	b = le.AppendUint64(b, uint64(len(value)))
	for _, unit := range encoded {
		b = le.AppendUint16(b, unit)
	}
	return append(b, value...)
}

// withoutEvents is a copy of events without those that drop says.
func withoutEvents(events []Event, drop func(Event) bool) []Event {
	kept := []Event{}
	for _, e := range events {
		if !drop(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// flip is a copy of b with one bit turned; i counts from the end when negative.
func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}
