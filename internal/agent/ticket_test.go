// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
)

const wrappingToken = "s.the-wrapping-token-of-the-test"

// ticketFile is one as an operator leaves it.
func ticketFile(t *testing.T) (*TicketFile, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ticket")
	write(t, path, wrappingToken+"\n")
	file, err := ReadTicketFile(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file, path
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestTicketOfALogin has what an OpenBao can say about a ticket.
func TestTicketOfALogin(t *testing.T) {
	for name, row := range map[string]struct {
		wraps, script []string
		tickets       []bool // which login carried it
		kept          bool   // the file
		says          string // the error; "" is a success
		rule          attest.Rule
		spent, gone   bool
	}{
		"good":                         {wraps: []string{"ticket"}, tickets: []bool{true}},
		"measurements are wanted":      {wraps: []string{"ticket"}, script: []string{"event-log-needed"}, tickets: []bool{true, true}},
		"leader lost after the ticket": {wraps: []string{"ticket"}, script: []string{"cut"}, tickets: []bool{true, true}},
		"refused":                      {wraps: []string{"ticket"}, script: []string{"ticket"}, tickets: []bool{true}, kept: true, rule: "ticket", gone: true},
		"name taken":                   {wraps: []string{"ticket"}, script: []string{"name-taken"}, tickets: []bool{true}, kept: true, rule: "name-taken", gone: true},
		"spent, enrolled":              {tickets: []bool{false}},
		"spent, not enrolled":          {script: []string{"host-unknown"}, tickets: []bool{false}, kept: true, says: "open ticket", spent: true},
		"spent, boot refused":          {script: []string{"boot-policy"}, tickets: []bool{false}, kept: true, rule: "boot-policy"},
		"answer lost, spent":           {wraps: []string{"lost"}, script: []string{"host-unknown"}, tickets: []bool{false}, kept: true, says: "an answer was lost", spent: true},
		"swapped":                      {wraps: []string{"swapped"}, kept: true, says: `made by "sys/wrapping/wrap"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, row.script...)
			s.wraps = row.wraps
			p := newProver(t, s)
			file, path := ticketFile(t)
			_, err := p.login(t, file)
			success := row.says == "" && row.rule == ""
			if (err == nil) != success || err != nil && !strings.Contains(err.Error(), row.says) {
				t.Fatalf("error %v", err)
			}
			var e *bao.Error
			if errors.As(err, &e) && (e.Rule != row.rule || e.Spent() != row.spent) || errors.Is(err, ErrTicketGone) != row.gone {
				t.Errorf("error %v: rule %q, spent %t", err, e.Rule, e.Spent())
			}
			var step *StepError
			if errors.As(err, &step) && step.Step != StepLogin {
				t.Errorf("step %s", step.Step)
			}
			if isThere(path) != row.kept {
				t.Errorf("the file is there: %t", isThere(path))
			}
			checkTickets(t, s, row.tickets)
			checkSecrets(t, fmt.Sprint(err)+p.logged.String())
		})
	}
}

func checkTickets(t *testing.T, s *server, want []bool) {
	t.Helper()
	if len(s.logins) != len(want) {
		t.Fatalf("%d logins, want %d", len(s.logins), len(want))
	}
	for i, login := range s.logins {
		if got := bytes.Equal(login.Ticket, wrappedTicket); got != want[i] || login.Ticket != nil && !got {
			t.Errorf("login %d with ticket: %t", i, got)
		}
	}
	if n := s.asked("/unwrap"); n > 1 {
		t.Errorf("unwrapped %d times", n)
	}
}

func checkSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{wrappingToken, base64.StdEncoding.EncodeToString(wrappedTicket), fmt.Sprintf("%x", wrappedTicket),
		strings.Trim(fmt.Sprint(wrappedTicket), "[]")} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %q", secret, text)
		}
	}
}

// A host that cannot log in keeps its ticket whole.
func TestTicketIsOpenedLate(t *testing.T) {
	s := newServer(t)
	s.wraps = []string{"ticket"}
	p := newProver(t, s)
	p.tpm.EventLog = "/nonexistent"
	file, path := ticketFile(t)
	if _, err := p.login(t, file); err == nil || s.asked("/lookup") != 0 || s.asked("/challenge") != 1 || !isThere(path) {
		t.Errorf("%v; asked %v", err, s.paths)
	}
}

func TestTicketDoesNotPrint(t *testing.T) {
	file, _ := ticketFile(t)
	e := &enrolment{file: file, ticket: wrappedTicket}
	encoded, err := json.Marshal(struct{ File *TicketFile }{file})
	if err != nil {
		t.Fatal(err)
	}
	checkSecrets(t, fmt.Sprintf("%v %+v %#v %v %v %+v %s", file, file, file, *file, e.ticket, *e.file, e.ticket)+string(encoded))
}

func TestTicketIsOverwritten(t *testing.T) {
	e := &enrolment{ticket: attest.Ticket(bytes.Clone(wrappedTicket))}
	e.forget()
	if !bytes.Equal(e.ticket, make([]byte, attest.TicketSize)) {
		t.Error("the ticket is still there")
	}
}

// TestReadTicketFile refuses files that somebody else may have read or written.
func TestReadTicketFile(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	at := func(name string) string { return filepath.Join(dir, name) }
	make := map[string]func(path string) error{
		"absent":   func(string) error { return nil },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link":   func(path string) error { return os.Symlink(good, path) },
		"two names": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(wrappingToken), 0o600), os.Link(path, path+"2"))
		},
		"group may read": func(path string) error { return os.WriteFile(path, []byte(wrappingToken), 0o640) },
		"all may read":   func(path string) error { return os.WriteFile(path, []byte(wrappingToken), 0o604) },
		"a program":      func(path string) error { return os.WriteFile(path, []byte(wrappingToken), 0o700) },
		"of another": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(wrappingToken), 0o600), os.Chown(path, 65534, 65534))
		},
		"empty":          func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"only a newline": func(path string) error { return os.WriteFile(path, []byte("\n"), 0o600) },
		"two lines":      func(path string) error { return os.WriteFile(path, []byte(wrappingToken+"\n\n"), 0o600) },
		"a space":        func(path string) error { return os.WriteFile(path, []byte(wrappingToken+" "), 0o600) },
		"too long":       func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 8<<10+2)), 0o600) },
		"large":          func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20), 0o600) },
	}
	write(t, good, wrappingToken)
	for name, put := range make {
		if err := put(at(name)); err != nil {
			t.Fatal(err)
		}
		_, err := ReadTicketFile(at(name), nil)
		var faulty *config.Error
		if !errors.As(err, &faulty) || faulty.File != at(name) || faulty.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
		checkSecrets(t, fmt.Sprint(err))
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(good, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTicketFile(good, nil); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestTicketFromStandardInput(t *testing.T) {
	s := newServer(t)
	s.wraps = []string{"ticket"}
	file, err := ReadTicketFile("-", strings.NewReader(wrappingToken+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newProver(t, s).login(t, file); err != nil {
		t.Fatal(err)
	}
	checkTickets(t, s, []bool{true})
	if _, err := ReadTicketFile("-", strings.NewReader(strings.Repeat("x", 9000))); err == nil {
		t.Error("a long one was read")
	}
}

// A file that lies there by now, and was not read, is not removed.
func TestAnotherTicketFileIsKept(t *testing.T) {
	s := newServer(t)
	s.wraps = []string{"ticket"}
	p := newProver(t, s)
	file, path := ticketFile(t)
	write(t, path+".new", "s.another")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if _, err := p.login(t, file); err != nil {
		t.Fatal(err)
	}
	if !isThere(path) || !strings.Contains(p.logged.String(), "another file") {
		t.Errorf("the file is there: %t; log %s", isThere(path), p.logged.String())
	}
}
