// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"funlab.casa/omen/install/beneath"
)

// maxRecord bounds what we write down of an installation, in bytes.
const maxRecord = 1 << 20

// A record is written down beside or in a generation. check refuses one that no
// version of ours has written.
type record interface{ check() error }

// writeRecord writes a record, for root only, in one step and durably.
func writeRecord(dir *beneath.Dir, name string, r record) error {
	text, err := encodeRecord(r)
	if err != nil {
		return err
	}
	waiting := name + ".new"
	if err := dir.Remove(waiting); err != nil {
		return err
	}
	if err := dir.Create(ownRecord(waiting, text)); err != nil {
		return err
	}
	if err := dir.Rename(waiting, name); err != nil {
		return errors.Join(err, dir.Remove(waiting))
	}
	return dir.Sync()
}

func ownRecord(name string, text []byte) beneath.File {
	return beneath.File{Name: name, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid(), Content: text}
}

func encodeRecord(r record) ([]byte, error) {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil && len(text) >= maxRecord {
		err = fmt.Errorf("record of more than %d bytes", maxRecord)
	}
	return append(text, '\n'), err
}

// readRecord reads a record that is ours and whole; one that is not there is
// fs.ErrNotExist.
func readRecord(dir *beneath.Dir, name string, r record) error {
	f, err := dir.Read(name, maxRecord)
	if err != nil {
		return err
	}
	if f.UID != os.Geteuid() || f.Mode&0o022 != 0 {
		return fmt.Errorf("%s/%s can be written by others", dir.Path(), name)
	}
	return decodeRecord(f.Content, r)
}

func decodeRecord(text []byte, r record) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one record")
	}
	return r.check()
}

// recall reads a record and reports whether it is there. One that says nothing is
// set aside as NAME.bad, and said: it must not stop a renewal. An error is the
// disk's.
func recall(dir *beneath.Dir, name string, r record, log *slog.Logger) (there, bad bool, err error) {
	cause := readRecord(dir, name, r)
	if cause == nil || errors.Is(cause, fs.ErrNotExist) {
		return cause == nil, false, nil
	}
	if fromDisk(cause) {
		return false, false, cause
	}
	aside := errors.Join(dir.Remove(name+".bad"), dir.Rename(name, name+".bad"))
	log.Warn("a record of an installation says nothing and is set aside", "path", dir.Path()+"/"+name+".bad", "cause", cause, "error", aside)
	return false, true, nil
}

// fromDisk reports that an error says something of the disk, or of this process,
// and nothing of the record.
func fromDisk(err error) bool {
	var failed syscall.Errno
	return errors.As(err, &failed) && failed != syscall.ELOOP && failed != syscall.EISDIR && failed != syscall.ENXIO
}

// forget removes a record, durably.
func forget(dir *beneath.Dir, name string) error {
	return errors.Join(dir.Remove(name), dir.Sync())
}

// isNumber reports that n can be the number of a generation, or of none.
func isNumber(n int) bool { return n >= none && n <= maxNumber }
