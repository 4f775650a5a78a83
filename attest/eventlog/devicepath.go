// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// MaxName bounds a remark, in bytes. A longer one ends in "...".
const MaxName = 96

// maxNodes is more than the nodes of a device path that fits in a remark.
const maxNodes = 32

// remark names what an event says it measured: the file of a
// UEFI_IMAGE_LOAD_EVENT (TCG PC Client Platform Firmware Profile), or else its
// device path, or data that is text. Nothing is refused here; whatever cannot be
// read has no name.
func remark(data []byte) string {
	c := &cursor{rest: data}
	c.take(8 + 8 + 8) // image location, length, link time address
	path := c.take(c.uint64())
	if c.short {
		return plainText(data)
	}
	return pathName(path)
}

// pathName reads an EFI_DEVICE_PATH_PROTOCOL (UEFI, "Device Path Nodes").
func pathName(path []byte) string {
	var file, nodes []string
	c := &cursor{rest: path}
	for range maxNodes {
		kind, length := c.uint16(), c.uint16()
		if c.short || length < 4 || kind&0xff == endType {
			break
		}
		body := c.take(uint64(length) - 4)
		if c.short {
			break
		}
		if kind == filePathNode {
			file = append(file, strings.Trim(fileText(body), "/"))
			continue
		}
		nodes = append(nodes, nodeText(kind, body))
	}
	if file != nil {
		return bounded("/" + strings.Join(file, "/"))
	}
	return bounded(strings.Join(nodes, "/"))
}

// Kinds of nodes: type in the low octet, sub-type in the high one.
const (
	pciNode            = 0x0101
	acpiNode           = 0x0102
	filePathNode       = 0x0404
	firmwareFileNode   = 0x0604
	firmwareVolumeNode = 0x0704
	offsetNode         = 0x0804
	endType            = 0x7f
)

func nodeText(kind uint16, body []byte) string {
	c := &cursor{rest: body}
	text := ""
	switch kind {
	case pciNode:
		function := c.take(1)
		device := c.take(1)
		if !c.short {
			text = fmt.Sprintf("Pci(%#x,%#x)", device[0], function[0])
		}
	case acpiNode:
		text = acpiText(c.uint32(), c.uint32())
	case firmwareFileNode:
		text = "FvFile(" + guidText(c.take(16)) + ")"
	case firmwareVolumeNode:
		text = "Fv(" + guidText(c.take(16)) + ")"
	case offsetNode:
		c.take(4)
		text = fmt.Sprintf("Offset(%#x,%#x)", c.uint64(), c.uint64())
	}
	if text == "" || c.short {
		return fmt.Sprintf("Path(%d,%d)", kind&0xff, kind>>8)
	}
	return text
}

// acpiText spells a device of the ACPI namespace; PNP0A03 is a PCI root.
func acpiText(hid, uid uint32) string {
	if hid == 0x0a0341d0 {
		return fmt.Sprintf("PciRoot(%#x)", uid)
	}
	return fmt.Sprintf("Acpi(%#x,%#x)", hid, uid)
}

func guidText(b []byte) string {
	if len(b) != 16 {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b),
		binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

// fileText turns UTF-16 with back-slashes into printable text with slashes. It
// reads no more than a remark can hold.
func fileText(body []byte) string {
	var text strings.Builder
	for len(body) >= 2 && text.Len() <= MaxName {
		unit := binary.LittleEndian.Uint16(body)
		if unit == 0 {
			break
		}
		writePrintable(&text, unit)
		body = body[2:]
	}
	return text.String()
}

// plainText is data that is text, such as the description of an action.
func plainText(data []byte) string {
	data = bytes.TrimRight(data, "\x00")
	var text strings.Builder
	for _, b := range data[:min(len(data), MaxName+1)] {
		if b < ' ' || b > '~' {
			return ""
		}
		writePrintable(&text, uint16(b))
	}
	return bounded(text.String())
}

// plainSigns stand for themselves in a remark, as letters and digits do. A colon
// does not: a remark must not look like the words around it.
const plainSigns = " ._-+~@=(),/"

func writePrintable(text *strings.Builder, unit uint16) {
	switch {
	case unit == '\\':
		text.WriteByte('/')
	case unit > '~':
		fmt.Fprintf(text, "\\u%04x", unit)
	case unit >= '0' && unit <= '9', unit|0x20 >= 'a' && unit|0x20 <= 'z', strings.IndexByte(plainSigns, byte(unit)) >= 0:
		text.WriteByte(byte(unit))
	default:
		fmt.Fprintf(text, "\\x%02x", unit)
	}
}

func bounded(text string) string {
	if len(text) > MaxName {
		return text[:MaxName-3] + "..."
	}
	return text
}
