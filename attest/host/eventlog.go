// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// DefaultEventLog is where Linux shows the firmware's event log.
const DefaultEventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// NoEventLog is the word for a host whose firmware gives no event log.
const NoEventLog = "none"

// maxEventLog bounds an event log; real ones have 14 to 73 KiB.
const maxEventLog = 1 << 20

// ErrEventLog says that the event log cannot be had as the configuration says it
// can: what no other look at the TPM can mend.
var ErrEventLog = errors.New("read event log")

// hashEventLog reads the log as it is now and returns its SHA-256: 32 zero
// bytes for "none". A log that is missing, empty or longer than 1 MiB is an
// error; leaving it out is for the configuration to say, not for a disk.
func hashEventLog(path string) (hash [sha256.Size]byte, err error) {
	switch path {
	case NoEventLog:
		return hash, nil
	case "":
		path = DefaultEventLog
	}
	file, err := os.Open(path)
	if err != nil {
		return hash, fmt.Errorf("%w: %w", ErrEventLog, err)
	}
	defer func() { _ = file.Close() }()
	log, err := io.ReadAll(io.LimitReader(file, maxEventLog+1))
	switch {
	case err != nil:
		return hash, fmt.Errorf("%w: %w", ErrEventLog, err)
	case len(log) == 0:
		return hash, fmt.Errorf("%w: %s is empty", ErrEventLog, path)
	case len(log) > maxEventLog:
		return hash, fmt.Errorf("%w: %s has more than %d bytes", ErrEventLog, path, maxEventLog)
	}
	return sha256.Sum256(log), nil
}
