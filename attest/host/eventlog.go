// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"funlab.casa/omen/attest"
)

// DefaultEventLog is where Linux shows the firmware's event log.
const DefaultEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// NoEventLog is the word for a host whose firmware gives no event log.
const NoEventLog = "none"

// ErrEventLog says that the event log cannot be had as the configuration says it
// can: what no other look at the TPM can mend.
var ErrEventLog = errors.New("read event log")

// ReadEventLog reads the log as it is now, nil for "none". A log that is missing,
// empty or longer than [attest.MaxEventLog] is an error; leaving it out is for the
// configuration to say, not for a disk.
func ReadEventLog(path string) ([]byte, error) {
	switch path {
	case NoEventLog:
		return nil, nil
	case "":
		path = DefaultEventLog
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEventLog, err)
	}
	defer func() { _ = file.Close() }()
	log, err := io.ReadAll(io.LimitReader(file, attest.MaxEventLog+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrEventLog, err)
	case len(log) == 0:
		return nil, fmt.Errorf("%w: %s is empty", ErrEventLog, path)
	case len(log) > attest.MaxEventLog:
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrEventLog, path, attest.MaxEventLog)
	}
	return log, nil
}

// hashEventLog is what the quote binds of a log: 32 zero bytes for none.
func hashEventLog(log []byte) (hash [sha256.Size]byte) {
	if log == nil {
		return hash
	}
	return sha256.Sum256(log)
}
