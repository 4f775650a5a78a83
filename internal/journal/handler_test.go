// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

// told is what the journal was sent last.
type told struct {
	message  string
	priority journal.Priority
	fields   map[string]string
	fails    error
}

func (t *told) send(message string, priority journal.Priority, fields map[string]string) error {
	t.message, t.priority, t.fields = message, priority, fields
	return t.fails
}

func newLog(t *told) (*slog.Logger, *bytes.Buffer) {
	var otherwise bytes.Buffer
	return slog.New(NewTo(t.send, slog.LevelInfo, slog.NewTextHandler(&otherwise, nil))), &otherwise
}

type stepError struct{ error }

func (stepError) LogAttrs() []slog.Attr {
	return []slog.Attr{slog.String("step", "login"), slog.String("certificate", "of the error")}
}

type named string

func (named) MessageID() string { return "0123456789abcdef0123456789abcdef" }

func TestFields(t *testing.T) {
	got := new(told)
	log, _ := newLog(got)
	log = log.With("host", "spire").WithGroup("a").With("b", 1)
	failure := fmt.Errorf("around: %w", stepError{errors.New("no")})
	log.Error("renewal failed", "event", named("failed"), "certificate", "verifier", "error", failure, "next", 2*time.Minute,
		"names", []string{"x", "y"}, slog.Group("g", "at", time.Unix(0, 0).UTC()), "empty", "", "key with ümlaut", true)
	want := map[string]string{
		"SYSLOG_IDENTIFIER": "omen-agent", "MESSAGE_ID": "0123456789abcdef0123456789abcdef", "OMEN_HOST": "spire", "OMEN_A_B": "1",
		"OMEN_A_EVENT": "failed", "OMEN_A_CERTIFICATE": "verifier", "OMEN_A_ERROR": "around: no", "OMEN_STEP": "login",
		"OMEN_CERTIFICATE": "of the error", "OMEN_A_NEXT": "2m0s", "OMEN_A_NAMES": "x, y", "OMEN_A_G_AT": "1970-01-01T00:00:00Z",
		"OMEN_A_EMPTY": "", "OMEN_A_KEY_WITH__MLAUT": "true",
	}
	if diff := cmp.Diff(want, got.fields); diff != "" {
		t.Error(diff)
	}
	if want := `renewal failed host=spire a.b=1 a.event=failed a.certificate=verifier a.error="around: no" a.next=2m0s a.names="x, y" a.g.at=1970-01-01T00:00:00Z a.empty="" a.key with ümlaut=true`; got.message != want {
		t.Errorf("%s\n%s", got.message, want)
	}
	if got.priority != journal.PriErr {
		t.Errorf("priority %d", got.priority)
	}
}

// What is logged beside an error is not replaced by what the error brings.
func TestErrorDoesNotReplace(t *testing.T) {
	got := new(told)
	log, _ := newLog(got)
	log.Warn("x", "error", stepError{errors.New("no")}, "certificate", "logged")
	log.Warn("x", "certificate", "logged", "error", stepError{errors.New("no")})
	if got.fields["OMEN_CERTIFICATE"] != "logged" || strings.Contains(got.message, "of the error") {
		t.Errorf("%v, %s", got.fields, got.message)
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[slog.Level]journal.Priority{
		slog.LevelInfo: journal.PriInfo, slog.LevelWarn: journal.PriWarning, slog.LevelError: journal.PriErr, slog.LevelError + 4: journal.PriErr,
	} {
		got := new(told)
		log, _ := newLog(got)
		if log.Log(context.Background(), level, "x"); got.priority != want {
			t.Errorf("%s: %d", level, got.priority)
		}
	}
	got := new(told)
	log, _ := newLog(got)
	if log.Debug("x"); got.message != "" {
		t.Error("debug is sent at level info")
	}
}

// Without a journal nothing is lost.
func TestWithoutJournal(t *testing.T) {
	got := &told{fails: errors.New("no socket")}
	log, otherwise := newLog(got)
	log.With("host", "spire").Info("renewed", "generation", 3)
	if text := otherwise.String(); !strings.Contains(text, "renewed host=spire generation=3") {
		t.Errorf("%q", text)
	}
}

type silent struct{ inside string }

// The inside of what has no text of its own is not shown.
func TestNothingIsLookedInto(t *testing.T) {
	got := new(told)
	log, _ := newLog(got)
	s := silent{"do not tell"}
	log.Info("x", "struct", s, "pointer", &s, "map", map[string]string{"k": "do not tell"}, "func", func() {}, "list", []silent{s}, "bytes", []byte("do not tell"), "nil", (*silent)(nil))
	if all := got.message + fmt.Sprint(got.fields); strings.Contains(all, "do not tell") {
		t.Error(all)
	}
	if got.fields["OMEN_BYTES"] != "[11 bytes]" || got.fields["OMEN_STRUCT"] != "[journal.silent]" {
		t.Errorf("%v", got.fields)
	}
}

func TestValuesAreBounded(t *testing.T) {
	got := new(told)
	log, _ := newLog(got)
	log.Info("x", "long", strings.Repeat("ü", maxValue), strings.Repeat("k", 100), "y")
	if size := len(got.fields["OMEN_LONG"]); size > maxValue+8 || size < maxValue {
		t.Errorf("%d bytes", size)
	}
	for name := range got.fields {
		if len(name) > maxFieldName {
			t.Errorf("%s", name)
		}
	}
}
