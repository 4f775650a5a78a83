// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"encoding/binary"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
)

func TestComponents(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event edit
		found bool
	}{
		{"unknown type", measured(4, 0xdeadbeef, "x"), true},
		{"type of a separator", edit{pcr: 4, kind: 4, digests: measured(4, 4, "code").digests, data: []byte(separatorZeros)}, true},
		{"separator that says error", measured(4, 4, "\x01\x00\x00\x00"), true},
		{"unknown action", measured(4, 0x80000007, "Calling something"), true},
		{"in PCR 2", measured(2, 0x80000004, "rom"), true},
		{"separator", measured(4, 4, separatorZeros), false},
		{"separator under another type and data", edit{pcr: 4, kind: 0x80000003, digests: measured(4, 4, separatorZeros).digests, data: []byte("shim")}, false},
		{"boot option", measured(4, 0x80000007, "Calling EFI Application from Boot Option"), false},
		{"boot option returned", measured(4, 0x80000007, "Returning from EFI Application from Boot Option"), false},
		{"in PCR 0", measured(0, 1, "x"), false},
		{"in PCR 8", measured(8, 0xd, "grub_cmd"), false},
		{"not extended", edit{pcr: 4, kind: noAction, digests: measured(4, 4, "x").digests}, false},
	} {
		for _, bank := range []string{"sha256", "sha384"} {
			l := takeApart(t, readLog(t, rhel8))
			honest, _ := prove(t, l.bytes(), bank).Components(100)
			l.events = append(l.events, tt.event)
			got, more := prove(t, l.bytes(), bank).Components(100)
			if found := len(got) > len(honest); found != tt.found || more {
				t.Errorf("%s in %s: found %v", tt.name, bank, found)
			}
		}
	}
}

func TestComponentsLimit(t *testing.T) {
	p := prove(t, readLog(t, rhel8), "sha256") // three
	for limit, want := range map[int]struct {
		n    int
		more bool
	}{0: {0, true}, 2: {2, true}, 3: {3, false}, 64: {3, false}} {
		if got, more := p.Components(limit); len(got) != want.n || more != want.more {
			t.Errorf("limit %d: %d, %v", limit, len(got), more)
		}
	}
}

// Nothing is said about PCRs that no quote covers.
func TestNothingUncovered(t *testing.T) {
	l := mustParse(t, readLog(t, rhel8), "sha256")
	pcrs := []int{0, 5, 8}
	p, err := l.Against(attest.Selection{Bank: "sha256", PCRs: pcrs}, quoted(l, pcrs))
	if err != nil {
		t.Fatal(err)
	}
	wantSecureBoot(t, p.SecureBoot(), SecureBootUnknown, "PCR 7 is not among the quoted PCRs", 0)
	if c, more := p.Components(64); len(c) != 0 || more {
		t.Error(c, more)
	}
}

// imageLoad is a UEFI_IMAGE_LOAD_EVENT with a device path.
func imageLoad(nodes ...string) []byte {
	path := strings.Join(nodes, "")
	b := binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(len(path)))
	return append(b, path...)
}

func node(kind, subtype byte, body string) string {
	return string(binary.LittleEndian.AppendUint16([]byte{kind, subtype}, uint16(4+len(body)))) + body
}

func TestRemark(t *testing.T) {
	file := func(name string) string { return node(4, 4, utf16le(name)+"\x00\x00") }
	pci := node(1, 1, "\x02\x1f")
	end := node(0x7f, 0xff, "")
	long := strings.Repeat("a", 400)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"none", nil, ""},
		{"zeros", make([]byte, 32), ""},
		{"file", imageLoad(pci, file(`\EFI\debian\shimx64.efi`), end), "/EFI/debian/shimx64.efi"},
		{"file in two nodes", imageLoad(file(`\EFI\x`), file("grubx64.efi"), end), "/EFI/x/grubx64.efi"},
		{"no end", imageLoad(file("a.efi")), "/a.efi"},
		{"option ROM", imageLoad(node(2, 1, "\xd0\x41\x03\x0a\x01\x00\x00\x00"), pci,
			node(4, 8, strings.Repeat("\x00", 4)+"\x50\xf2"+strings.Repeat("\x00", 14)), end),
			"PciRoot(0x1)/Pci(0x1f,0x2)/Offset(0xf250,0x0)"},
		{"other ACPI", imageLoad(node(2, 1, "\x01\x00\x00\x00\x02\x00\x00\x00"), end), "Acpi(0x1,0x2)"},
		{"firmware file", imageLoad(node(4, 6, imageSecurityDatabase), end), "FvFile(d719b2cb-3d3a-4596-a3bc-dad00e67656f)"},
		{"node too short for its kind", imageLoad(node(1, 1, "\x02"), end), "Path(1,1)"},
		{"unknown node", imageLoad(node(9, 7, "xyz"), end), "Path(9,7)"},
		{"node length of zero", imageLoad("\x04\x04\x00\x00"), ""},
		{"node length lies", imageLoad("\x04\x04\xff\xff\x41\x00"), ""},
		{"path length lies", append(make([]byte, 24), "\xff\xff\xff\xff\xff\xff\xff\xff"...), ""},
		{"terminal escapes", imageLoad(file("\x1b[2J\x07\u202e\x7f<b>\"'`$(x): ok\n"), end), `/\x1b\x5b2J\x07\u202e\u007f\x3cb\x3e\x22\x27\x60\x24(x)\x3a ok\x0a`},
		{"long", imageLoad(file(long), end), "/" + long[:MaxName-4] + "..."},
		{"long escapes", imageLoad(file(strings.Repeat("\n", 90)), end), "/" + strings.Repeat(`\x0a`, 23) + "..."},
		{"text", []byte("Calling something\x00"), "Calling something"},
		{"text that looks like ours", []byte("a: digest"), `a\x3a digest`},
		{"long text", []byte(long), long[:MaxName-3] + "..."},
		{"no text", []byte("bell\x07"), ""},
	} {
		if got := remark(tt.data); got != tt.want || len(got) > MaxName {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
