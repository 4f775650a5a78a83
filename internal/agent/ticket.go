// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
)

// A TicketFile is where an operator left a wrapped ticket for this host. What is
// in it opens the ticket once, for whoever reads it first; it does not print.
type TicketFile struct {
	token bao.Token
	path  string      // empty for standard input
	info  os.FileInfo // of the file that was read
}

// maxTicketFile bounds a wrapping token and its final newline, in bytes.
const maxTicketFile = 8<<10 + 1

// ReadTicketFile reads a wrapped ticket from path or, for "-", from stdin: the
// wrapping token and at most one newline. The file must be a regular one without
// other names, owned by root or the caller, that nobody else may read or write.
// Its errors are *config.Error and hold nothing of what was read.
func ReadTicketFile(path string, stdin io.Reader) (*TicketFile, error) {
	f := &TicketFile{path: path}
	var text []byte
	var err error
	if path == "-" {
		f.path = ""
		text, err = readTicket(stdin)
	} else {
		text, f.info, err = readPrivate(path)
	}
	if err == nil {
		f.token, err = bao.NewToken(bytes.TrimSuffix(text, []byte("\n")))
		clear(text)
	}
	if err != nil {
		return nil, &config.Error{File: path, Err: fmt.Errorf("read wrapped ticket: %w", err),
			Hint: "the file holds the wrapping token that the operator got, and nothing else; regular, no links, yours or root's, mode 0600"}
	}
	return f, nil
}

func readPrivate(path string) ([]byte, os.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := checkPrivate(info); err != nil {
		return nil, nil, err
	}
	text, err := readTicket(file)
	return text, info, err
}

// checkPrivate says whether nobody but the owner can have written or read a file.
func checkPrivate(info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case stat.Nlink != 1:
		return errors.New("the file has another name")
	case stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return errors.New("owned by somebody else")
	case info.Mode().Perm()&0o177 != 0:
		return fmt.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	return nil
}

func readTicket(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, maxTicketFile+1))
	if err == nil && len(text) > maxTicketFile {
		err = errors.New("too long for a wrapping token")
	}
	return text, err
}

// remove takes the file away, unless another one lies in its place by now.
func (f *TicketFile) remove() error {
	if f.path == "" {
		return nil
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return err
	}
	if !os.SameFile(info, f.info) {
		return errors.New("another file has taken its place")
	}
	return os.Remove(f.path)
}

// ErrTicketGone says that a ticket was opened, which can be done once, for a login
// that failed.
var ErrTicketGone = errors.New("the ticket is opened and cannot be used again")

// An enrolment is what becomes of a ticket in one renewal. Without a file it does
// nothing.
type enrolment struct {
	file   *TicketFile
	bao    *bao.Client
	log    *slog.Logger
	ticket attest.Ticket // once it is opened
	lost   bool          // it may be opened: an answer did not arrive
	spent  *bao.Error    // it was opened by somebody before, or has expired
}

func (a *Agent) enrolment(file *TicketFile) *enrolment {
	return &enrolment{file: file, bao: a.bao, log: a.log}
}

// opener is what opens the ticket when the host is ready to quote: at the node of
// the challenge, and not again when it is open.
func (e *enrolment) opener(node bao.Node) func(context.Context) (attest.Ticket, error) {
	if e.file == nil {
		return nil
	}
	return func(ctx context.Context) (attest.Ticket, error) {
		if e.ticket == nil && e.spent == nil {
			if err := e.open(ctx, node); err != nil {
				return nil, err
			}
		}
		return e.ticket, nil
	}
}

// open opens the ticket. One that is spent is not an error yet: a renewal that
// ended between its login and the removal of the file left it so, and then this
// host gets in without.
func (e *enrolment) open(ctx context.Context, node bao.Node) error {
	ticket, err := e.bao.OpenTicket(ctx, e.file.token, node)
	var failure *bao.Error
	switch {
	case err == nil:
		e.ticket = ticket
		return nil
	case errors.As(err, &failure) && failure.Spent():
		e.spent = failure
		e.log.Warn("the ticket cannot be opened any more; trying without it", "cause", failure)
		return nil
	}
	e.lost = e.lost || failure != nil && failure.StartOver()
	return at(StepLogin, "", fmt.Errorf("open ticket: %w", err))
}

// end removes the file of a ticket that has done its work, and adds to err what is
// to be known of one that has not.
func (e *enrolment) end(err error) error {
	switch {
	case e.file == nil:
		return err
	case err == nil:
		if e.spent != nil {
			e.log.Warn("the ticket was opened before, and this host is enrolled: it needs none", "cause", e.spent)
		}
		if err := e.file.remove(); err != nil {
			e.log.Warn("the file of the spent ticket is not removed", "file", e.file.path, "error", err)
		}
		return nil
	case e.spent != nil && isRule(err, attest.RuleHostUnknown):
		if e.lost {
			return at(StepLogin, "", fmt.Errorf("open ticket, after an answer was lost that may have held it: %w", e.spent))
		}
		return at(StepLogin, "", fmt.Errorf("open ticket: %w", e.spent))
	case e.ticket != nil:
		return fmt.Errorf("%w; %w", err, ErrTicketGone)
	}
	return err
}

// forget overwrites the ticket.
func (e *enrolment) forget() { clear(e.ticket) }

// isRule reports whether err is a refusal by this rule.
func isRule(err error, rule attest.Rule) bool {
	var e *bao.Error
	return errors.As(err, &e) && e.Rule == rule
}
