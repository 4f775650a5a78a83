// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
)

// edited is a log that a test takes apart, bends and puts together again, as root
// on a host could. It knows nothing of the package's parser.
type edited struct {
	header []byte
	events []edit
}

type edit struct {
	pcr, kind uint32
	digests   []algDigest
	data      []byte
}

type algDigest struct {
	id  uint16
	sum []byte
}

var hashes = map[uint16]crypto.Hash{4: crypto.SHA1, 0xb: crypto.SHA256, 0xc: crypto.SHA384}

// sizes of digests in the real logs.
var sizes = map[uint16]int{4: 20, 0xb: 32, 0xc: 48}

func takeApart(t testing.TB, raw []byte) *edited {
	t.Helper()
	u32 := func(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
	n := 32 + u32(raw[28:])
	l := &edited{header: raw[:n]}
	for b := raw[n:]; len(b) > 0; {
		e := edit{pcr: u32(b), kind: u32(b[4:])}
		count := u32(b[8:])
		b = b[12:]
		for range count {
			id := binary.LittleEndian.Uint16(b)
			e.digests = append(e.digests, algDigest{id, b[2 : 2+sizes[id]]})
			b = b[2+sizes[id]:]
		}
		e.data, b = b[4:4+u32(b)], b[4+u32(b):]
		l.events = append(l.events, e)
	}
	if !bytes.Equal(l.bytes(), raw) {
		t.Fatal("log taken apart does not go together again")
	}
	return l
}

func (l *edited) bytes() []byte {
	out := bytes.Clone(l.header)
	for _, e := range l.events {
		out = append(out, e.bytes()...)
	}
	return out
}

func (e edit) bytes() (out []byte) {
	out = binary.LittleEndian.AppendUint32(out, e.pcr)
	out = binary.LittleEndian.AppendUint32(out, e.kind)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(e.digests)))
	for _, d := range e.digests {
		out = append(binary.LittleEndian.AppendUint16(out, d.id), d.sum...)
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(e.data)))
	return append(out, e.data...)
}

// remeasure makes the event one that the TPM measured over this data.
func (e *edit) remeasure(data []byte) {
	e.data = data
	digests := make([]algDigest, len(e.digests))
	for i, d := range e.digests {
		h := hashes[d.id].New()
		h.Write(data)
		digests[i] = algDigest{d.id, h.Sum(nil)}
	}
	e.digests = digests
}

// measured is an event in all three banks.
func measured(pcr, kind uint32, data string) edit {
	e := edit{pcr: pcr, kind: kind, digests: []algDigest{{4, nil}, {0xb, nil}, {0xc, nil}}}
	e.remeasure([]byte(data))
	return e
}

func utf16le(s string) string {
	var b []byte
	for _, r := range s {
		b = binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	return string(b)
}

func variableData(guid, name, content string) string {
	b := binary.LittleEndian.AppendUint64([]byte(guid), uint64(len(name)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(content)))
	return string(b) + utf16le(name) + content
}

const (
	ubuntu2404 = "ubuntu-2404-amd-sevsnp" // Secure Boot off, three banks
	rhel8      = "rhel8-uefi"             // Secure Boot on, three banks
)

func readLog(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func logNames(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/logs/*.bin")
	if err != nil || len(paths) != 17 {
		t.Fatalf("%d logs, %v", len(paths), err)
	}
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(p), ".bin")
	}
	return paths
}

func mustParse(t testing.TB, raw []byte, bank string) *Log {
	t.Helper()
	l, err := Parse(raw, bank)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var allEight = []int{0, 1, 2, 3, 4, 5, 6, 7}

// quoted are the values that a TPM has after this log.
func quoted(l *Log, pcrs []int) (values [][]byte) {
	for _, pcr := range pcrs {
		v, _ := l.Replay(pcr)
		values = append(values, v)
	}
	return values
}

// prove makes a Proven of a log over PCRs 0 to 7.
func prove(t testing.TB, raw []byte, bank string) *Proven {
	t.Helper()
	l := mustParse(t, raw, bank)
	p, err := l.Against(attest.Selection{Bank: bank, PCRs: allEight}, quoted(l, allEight))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refused checks that err is a refusal with the rule event-log and these words.
func refused(t *testing.T, err error, words string) {
	t.Helper()
	var r *attest.Refusal
	if !errors.As(err, &r) || r.Rule != attest.RuleEventLog {
		t.Fatalf("got %v, want a refusal event-log", err)
	}
	if !strings.Contains(r.Detail, words) {
		t.Fatalf("detail %q does not say %q", r.Detail, words)
	}
}
