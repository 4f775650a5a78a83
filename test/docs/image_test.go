// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/binary"
	"unicode/utf16"

	"funlab.casa/omen/attest/attacker"
)

// securityDatabase is EFI_IMAGE_SECURITY_DATABASE_GUID, below which db and dbx
// are (UEFI 2.10, 32.4.1).
const securityDatabase = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"

// bootOf is a boot with Secure Boot on and one boot loader.
func bootOf(loader string) []attacker.Event {
	var events []attacker.Event
	for i, e := range attacker.PlainBoot() {
		switch {
		case e.Type == attacker.EventBootServices:
			e.Data = image(loader)
		case i == 4 || i == 5: // db, dbx
			copy(e.Data, securityDatabase)
		}
		events = append(events, e)
	}
	return events
}

// image is the UEFI_IMAGE_LOAD_EVENT of a program (PC Client Platform Firmware
// Profile 1.06, 10.2.3) that a file path names (UEFI 2.10, 10.3.5.4).
func image(path string) []byte {
	le := binary.LittleEndian
	var name []byte
	for _, unit := range append(utf16.Encode([]rune(path)), 0) {
		name = le.AppendUint16(name, unit)
	}
	node := append(le.AppendUint16([]byte{4, 4}, uint16(4+len(name))), name...)
	node = append(node, 0x7f, 0xff, 4, 0) // the end of the path
	event := le.AppendUint64(nil, 0x7f000000)
	event = le.AppendUint64(event, 0x1000)
	event = le.AppendUint64(event, 0)
	return append(le.AppendUint64(event, uint64(len(node))), node...)
}
