// SPDX-License-Identifier: Apache-2.0

package eventlog

// Component is code that ran before the operating system, such as an option ROM,
// a boot loader or a kernel: something that was measured into PCR 2 or 4. The
// digest is of the image (for PE images the Authenticode digest) in the log's
// bank.
type Component struct {
	Event  int    // index of the event
	PCR    int    // 2: drivers and option ROMs; 4: boot loaders and what they start
	Digest []byte // a part of the raw log
	// Name is a remark: the host's word for where the code came from, in printable
	// ASCII of at most MaxName bytes. Empty when there is none.
	Name string
}

// Components lists what was measured into PCRs 2 and 4, as far as they are
// covered, in the order of the log, up to a limit; more says that there were
// more. Everything is a component that is not the digest of well-known data,
// whatever type it claims to be: a boot loader cannot hide behind another type.
func (p *Proven) Components(limit int) (components []Component, more bool) {
	marks := p.log.bank.bootMarks()
	for e := range p.log.Events() {
		if !e.Extends() || e.PCR != 2 && e.PCR != 4 || !p.Covers(e.PCR) || marks.has(e.Digest) {
			continue
		}
		if len(components) == limit {
			return components, true
		}
		components = append(components, Component{
			Event: e.Index, PCR: e.PCR, Digest: e.Digest, Name: remark(e.Data),
		})
	}
	return components, false
}
