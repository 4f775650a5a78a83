// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// Connected reports whether standard error of this process is the journal's, as
// JOURNAL_STREAM says (systemd.exec(5)).
func Connected() bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil
}

// Handler is a slog.Handler that writes to the journal.
type Handler struct {
	least     slog.Leveler
	otherwise slog.Handler // for what the journal does not take
	prefix    string       // of the groups that are open
	attrs     []attr
	send      Send
}

// Send sends one line: its message, priority and fields.
type Send = func(message string, priority journal.Priority, fields map[string]string) error

// New makes a handler of what is at least of this level. While there is no
// journal, it goes to otherwise.
func New(least slog.Leveler, otherwise slog.Handler) *Handler {
	return NewTo(journal.Send, least, otherwise)
}

// NewTo is New for another end than the journal of this machine.
func NewTo(send Send, least slog.Leveler, otherwise slog.Handler) *Handler {
	return &Handler{least: least, otherwise: otherwise, send: send}
}

// Enabled is of slog.Handler.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.least.Level() }

// WithGroup is of slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	inner := *h
	inner.prefix, inner.otherwise = h.prefix+name+".", h.otherwise.WithGroup(name)
	return &inner
}

// WithAttrs is of slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	inner := *h
	inner.attrs, inner.otherwise = h.attrs[:len(h.attrs):len(h.attrs)], h.otherwise.WithAttrs(attrs)
	for _, a := range attrs {
		inner.attrs = append(inner.attrs, flatten(h.prefix, a)...)
	}
	return &inner
}

// Handle is of slog.Handler.
func (h *Handler) Handle(ctx context.Context, record slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	record.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, flatten(h.prefix, a)...)
		return true
	})
	fields := map[string]string{"SYSLOG_IDENTIFIER": identifier}
	maps.Copy(fields, fieldsOf(attrs))
	err := h.send(message(record.Message, attrs), priority(record.Level), fields)
	if err != nil {
		return errors.Join(err, h.otherwise.Handle(ctx, record))
	}
	return nil
}

// identifier is what journalctl -t goes by, and shows before each line.
const identifier = "omen-agent"

// message is what people read: the words, and the attributes behind them.
func message(words string, attrs []attr) string {
	var b strings.Builder
	b.WriteString(oneLine(words))
	for _, a := range attrs {
		if a.hidden {
			continue
		}
		value := a.value
		if value == "" || strings.ContainsAny(value, ` "=`) {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + a.key + "=" + value)
	}
	return b.String()
}

// fieldsOf names the attributes as the journal wants it. The first of a name stays:
// what an error brings along does not replace what is logged beside it.
func fieldsOf(attrs []attr) map[string]string {
	fields := map[string]string{}
	for _, a := range attrs {
		name := fieldName(a.key)
		if _, taken := fields[name]; !taken {
			fields[name] = a.value
		}
		if a.messageID != "" {
			fields["MESSAGE_ID"] = a.messageID
		}
	}
	return fields
}

const (
	fieldPrefix  = "OMEN_"
	maxFieldName = 64 // of the journal
)

// fieldName is OMEN_ and the key in capitals; other characters than A-Z, 0-9 become
// an underscore.
func fieldName(key string) string {
	name := fieldPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), maxFieldName)]
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

var _ slog.Handler = (*Handler)(nil)
