// SPDX-License-Identifier: Apache-2.0

package eventlog

import "bytes"

// marks are the digests of well-known data. They are recognised by digest alone,
// so that no claimed type or data can hide one or feign one.
type marks struct {
	digests []digest
	size    int
}

func (b bank) marks(data ...string) marks {
	m := marks{digests: make([]digest, len(data)), size: b.size}
	for i, d := range data {
		m.digests[i] = b.sum([]byte(d))
	}
	return m
}

func (m marks) has(digest []byte) bool {
	for i := range m.digests {
		if bytes.Equal(m.digests[i][:m.size], digest) {
			return true
		}
	}
	return false
}

// Separators between what the firmware is and what it starts (TCG PC Client
// Platform Firmware Profile, "EV_SEPARATOR"). One that says error is neither.
const (
	separatorZeros = "\x00\x00\x00\x00"
	separatorOnes  = "\xff\xff\xff\xff"
)

func (b bank) separators() marks { return b.marks(separatorZeros, separatorOnes) }

// bootMarks are what firmware measures into PCRs 2 and 4 that is no code.
func (b bank) bootMarks() marks {
	return b.marks(separatorZeros, separatorOnes,
		"Calling EFI Application from Boot Option",
		"Returning from EFI Application from Boot Option",
		"BOOT ATTEMPTS OMITTED",
	)
}
