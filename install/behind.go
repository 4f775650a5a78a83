// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install/beneath"
)

// A service has in memory what it read when it started. Nothing on the disk says
// what that was, but the times do: the set's certificate was written at some time,
// and a service that is older than that has another one, which ends earlier. The
// verifier's client certificate ends so without anybody looking at a file.

// Behind names the certificates of services that run with some from before the current
// set: they were not restarted since, or came up in between. It changes nothing and
// takes no lock. Items need neither chain nor key.
func (i *Installer) Behind(ctx context.Context, items []Item) ([]string, error) {
	p, err := i.makePlan(ctx, withoutBytes(items))
	if err != nil {
		return nil, err
	}
	defer p.close()
	s, number, err := i.openCurrent()
	if err != nil {
		return nil, err
	}
	defer s.close()
	var names []string
	for _, one := range p.services {
		if !s.behind(ctx, p, one, number) {
			continue
		}
		i.log().Warn("service runs with older certificates than are installed", "service", one.controller.Name())
		for _, m := range p.members {
			if m.profile.Service == one.profile.Name {
				names = append(names, m.item.Name)
			}
		}
	}
	return names, nil
}

// withBehind adds to the services that restart those that are behind: what they have
// in memory may end before the next renewal that would restart them.
func (c *Change) withBehind(ctx context.Context, restart []served) []served {
	if c.was == none || c.was == c.found.byHand() {
		return restart // what people had set up is read as they had set it up
	}
	var all []served
	for _, s := range c.plan.services {
		known := slices.ContainsFunc(restart, func(r served) bool { return r.profile.Name == s.profile.Name })
		if known || c.store.behind(ctx, c.plan, s, c.was) {
			all = append(all, s)
		}
	}
	return all
}

// behind reports that a service runs since before one of its certificates, as a
// generation has it, was written. Of one that does not run, or whose start is not
// known, nothing is in memory that could be told; one that reads its files again may
// have done so since.
func (s store) behind(ctx context.Context, p *plan, of served, number int) bool {
	since, err := of.controller.Since(ctx)
	if err != nil || of.action == ActReload || of.action == ActNone {
		return false
	}
	for _, m := range p.members {
		if m.profile.Service != of.profile.Name {
			continue
		}
		written, err := s.written(number, m.item.Name)
		if err == nil && since.Before(written) {
			return true
		}
	}
	return false
}

// written is when the certificate that a generation has was first written: it may
// have been carried over several times. Where no older generation is left that has
// another one, its own beginning is the bound that is sure.
func (s store) written(number int, name string) (time.Time, error) {
	numbers, err := s.numbers()
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
	chain, err := parseCertificates(current)
	if err != nil || len(chain) == 0 {
		return time.Time{}, errors.Join(fs.ErrInvalid, err)
	}
	return chain[0].NotBefore, nil
}

func (s store) certificate(number int, name string) ([]byte, error) {
	dir, err := s.dir.Sub(nameOf(number))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var f beneath.File
	f, err = dir.Read(name+".crt", maxFile)
	return f.Content, err
}

func (s store) modified(number int, name string) (time.Time, error) {
	var stat unix.Stat_t
	if err := unix.Fstatat(s.dir.FD(), nameOf(number)+"/"+name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return time.Time{}, &fs.PathError{Op: "stat", Path: s.dir.Path() + "/" + nameOf(number) + "/" + name, Err: err}
	}
	return time.Unix(stat.Mtim.Unix()), nil
}
