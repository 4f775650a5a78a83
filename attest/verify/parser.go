// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// parser takes TPM structures apart, big endian and without padding. After a
// mistake it gives zeros, and done says so.
type parser struct {
	rest   []byte
	broken bool
}

func (p *parser) take(n int) []byte {
	if p.broken || n > len(p.rest) {
		p.broken = true
		return nil
	}
	b := p.rest[:n:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sized reads a TPM2B of at most limit bytes.
func (p *parser) sized(limit int) []byte {
	n := int(p.uint16())
	if n > limit {
		p.broken = true
		return nil
	}
	return p.take(n)
}

// yesNo reads a TPMI_YES_NO, which is 0 or 1.
func (p *parser) yesNo() bool {
	b := p.take(1)
	if b == nil || b[0] > 1 {
		p.broken = true
		return false
	}
	return b[0] == 1
}

// maxSelections is the number of PCR banks a TPM can have.
const maxSelections = 16

// selections reads a TPML_PCR_SELECTION.
func (p *parser) selections() []pcrSelection {
	count := p.uint32()
	if count > maxSelections {
		p.broken = true
		return nil
	}
	var list []pcrSelection
	for range count {
		s := pcrSelection{bank: tpm2.TPMAlgID(p.uint16())}
		if size := p.take(1); size != nil {
			s.bitmap = p.take(int(size[0]))
		}
		list = append(list, s)
	}
	return list
}

// done reports whether everything was there and nothing is left.
func (p *parser) done() bool { return !p.broken && len(p.rest) == 0 }
