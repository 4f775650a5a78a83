// SPDX-License-Identifier: Apache-2.0

package record

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

// MaxSize bounds what we write down of an installation, in bytes.
const MaxSize = 1 << 20

// A Record is written down beside or in a generation. Check refuses one that no
// version of ours has written.
type Record interface{ Check() error }

// Write writes a record, for root only, in one step and durably.
func Write(dir *beneath.Dir, name string, r Record) error {
	text, err := Encode(r)
	if err != nil {
		return err
	}
	waiting := name + ".new"
	if err := dir.Remove(waiting); err != nil {
		return err
	}
	if err := dir.Create(File(waiting, text)); err != nil {
		return err
	}
	if err := dir.Rename(waiting, name); err != nil {
		return errors.Join(err, dir.Remove(waiting))
	}
	return dir.Sync()
}

// File is a record as a file, for root only.
func File(name string, text []byte) beneath.File {
	return beneath.File{Name: name, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid(), Content: text}
}

// Encode writes a record as text that Read will take.
func Encode(r Record) ([]byte, error) {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil && len(text) >= MaxSize {
		err = fmt.Errorf("record of more than %d bytes", MaxSize)
	}
	return append(text, '\n'), err
}

// Read reads a record that is ours and whole; one that is not there is
// fs.ErrNotExist.
func Read(dir *beneath.Dir, name string, r Record) error {
	f, err := dir.Read(name, MaxSize)
	if err != nil {
		return err
	}
	if f.UID != os.Geteuid() || f.Mode&0o022 != 0 {
		return fmt.Errorf("%s/%s can be written by others", dir.Path(), name)
	}
	return Decode(f.Content, r)
}

// Decode reads one record and nothing behind it, without a field that it does not have.
func Decode(text []byte, r Record) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one record")
	}
	return r.Check()
}

// Recall reads a record and reports whether it is there. One that says nothing is
// set aside as NAME.bad, and said: it must not stop a renewal. An error is the
// disk's.
func Recall(dir *beneath.Dir, name string, r Record, log *slog.Logger) (there, bad bool, err error) {
	cause := Read(dir, name, r)
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

// Forget removes a record, durably.
func Forget(dir *beneath.Dir, name string) error {
	return errors.Join(dir.Remove(name), dir.Sync())
}
