// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// Properties says what a TPM says about itself. Nothing of it is proven.
type Properties struct {
	Manufacturer string // TPM_PT_MANUFACTURER, the TCG vendor ID: "IBM", "IFX"
	Vendor       string // TPM_PT_VENDOR_STRING_1 to 4, as one string
	Firmware     string // TPM_PT_FIRMWARE_VERSION_1 and 2: four decimal numbers
	ResetCount   uint32 // TPM Resets since the last TPM2_Clear
	RestartCount uint32 // TPM Restarts and Resumes since the last TPM Reset
}

// Properties asks the TPM who it is (TPM 2.0 part 2, section 6.13).
func (t *TPM) Properties(ctx context.Context) (*Properties, error) {
	values, err := t.values(ctx, tpm2.TPMPTManufacturer, 8)
	if err != nil {
		return nil, err
	}
	clock, err := tpm2.ReadClock{}.Execute(t.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("read TPM clock: %w", err)
	}
	v1, v2 := values[tpm2.TPMPTFirmwareVersion1], values[tpm2.TPMPTFirmwareVersion2]
	return &Properties{
		Manufacturer: text(values[tpm2.TPMPTManufacturer]),
		Vendor: text(values[tpm2.TPMPTVendorString1], values[tpm2.TPMPTVendorString2],
			values[tpm2.TPMPTVendorString3], values[tpm2.TPMPTVendorString4]),
		Firmware:     fmt.Sprintf("%d.%d.%d.%d", v1>>16, v1&0xffff, v2>>16, v2&0xffff),
		ResetCount:   clock.CurrentTime.ClockInfo.ResetCount,
		RestartCount: clock.CurrentTime.ClockInfo.RestartCount,
	}, nil
}

// text reads four characters a word and keeps what is fit to be shown.
func text(words ...uint32) string {
	var buffer []byte
	for _, word := range words {
		buffer = binary.BigEndian.AppendUint32(buffer, word)
	}
	buffer = bytes.ReplaceAll(buffer, []byte{0}, nil)
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(buffer)))
}
