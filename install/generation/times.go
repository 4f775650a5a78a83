// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keypair"
)

// Written is when the certificate that a generation has was first written: it may
// have been carried over several times. Where no older generation is left that has
// another one, its own beginning is the bound that is sure.
func (s Store) Written(number int, name string) (time.Time, error) {
	numbers, err := s.Numbers()
	if err != nil {
		return time.Time{}, err
	}
	current, err := s.certificate(number, name)
	if err != nil {
		return time.Time{}, err
	}
	first := number
	for _, older := range slices.Backward(numbers) {
		if older >= number {
			continue
		}
		before, err := s.certificate(older, name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(before, current) {
			return s.modified(first, name+".crt")
		}
		if err != nil {
			return time.Time{}, err
		}
		first = older
	}
	chain, err := keypair.ParseCertificates(current)
	if err != nil || len(chain) == 0 {
		return time.Time{}, errors.Join(fs.ErrInvalid, err)
	}
	return chain[0].NotBefore, nil
}

func (s Store) certificate(number int, name string) ([]byte, error) {
	dir, err := s.Dir.Sub(NameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var f beneath.File
	f, err = dir.Read(name+".crt", keypair.MaxFile)
	return f.Content, err
}

func (s Store) modified(number int, name string) (time.Time, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(s.Dir.FD(), NameOf(number)+"/"+name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return time.Time{}, &fs.PathError{Op: "stat", Path: s.Dir.Path() + "/" + NameOf(number) + "/" + name, Err: err}
	}
	return time.Unix(stat.Mtim.Unix()), nil
}

// Switched is when the current set became current: by an installation, or by the
// way back from one.
func (s Store) Switched() (time.Time, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(s.Dir.FD(), CurrentName, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return time.Time{}, fmt.Errorf("stat %s/%s: %w", s.Dir.Path(), CurrentName, err)
	}
	return time.Unix(stat.Mtim.Sec, stat.Mtim.Nsec), nil
}
