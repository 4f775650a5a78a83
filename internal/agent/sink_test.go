// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/rundir"
)

// inMemory is a folder of root's in memory.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "omen-sink-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// onDisk is one that is not in memory.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		path, err := os.MkdirTemp(parent, "omen-disk-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(path) })
		if path, err = filepath.Abs(path); err != nil {
			t.Fatal(err)
		}
		dir, err := beneath.Open("/", path)
		if err != nil {
			t.Fatal(err)
		}
		memory, err := dir.InMemory()
		dir.Close()
		if err == nil && !memory {
			return path
		}
	}
	t.Fatal("every folder here is in memory")
	return ""
}

// sinkOf is a prover that keeps one token, of its own role.
func sinkOf(t *testing.T, s *server, file string) (*prover, config.Sink) {
	t.Helper()
	p := newProver(t, s)
	sink := config.Sink{Role: "bao-agent", File: file, Owner: "daemon:nogroup"}
	p.config.Sinks = []config.Sink{sink}
	return p, sink
}

// A token is for its owner alone, whole, and newer ones take the place of older; the
// folder is made.
func TestSinkIsFilled(t *testing.T) {
	s := newServer(t)
	s.policies = []string{"default", "bao-agent"}
	p, sink := sinkOf(t, s, filepath.Join(inMemory(t), "own", "token"))
	for range 2 {
		filled, err := p.FillSink(t.Context(), sink)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(filled.Until); filled.Host != "spire" || filled.TTL != 2*time.Minute || left < time.Minute || left > 2*time.Minute {
			t.Errorf("%+v", filled)
		}
	}
	text, err := os.ReadFile(sink.File)
	if err != nil || string(text) != "b.token\n" {
		t.Errorf("%q, %v", text, err)
	}
	info, err := os.Stat(sink.File)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || owner.Uid != 1 || owner.Gid != 65534 {
		t.Errorf("%v, %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	if left, err := os.ReadDir(filepath.Dir(sink.File)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if folder, err := os.Stat(filepath.Dir(sink.File)); err != nil || folder.Mode().Perm() != 0o711 {
		t.Errorf("%v, %v", folder, err)
	}
	for _, login := range s.logins {
		if login.Role != "bao-agent" || len(login.Keys) != 0 {
			t.Errorf("login as %s for %d keys", login.Role, len(login.Keys))
		}
	}
	if strings.Contains(p.logged.String(), "b.token") || strings.Contains(fmt.Sprintf("%+v", p.describeSinks()), "b.token") {
		t.Error("the token is told")
	}
}

func TestSinkThatIsNotFilled(t *testing.T) {
	open := filepath.Join(inMemory(t), "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		file, owner string
		policies    []string
		script      []string
		want        error
		says, hint  string
		step        Step
	}{
		"a disk":            {file: filepath.Join(onDisk(t), "token"), want: rundir.ErrNotMemory, hint: "on a tmpfs", step: StepInstall},
		"others' folder":    {file: filepath.Join(open, "token"), says: "written by others", hint: "chown root:", step: StepInstall},
		"no folder":         {file: filepath.Join(inMemory(t), "a/b/token"), want: os.ErrNotExist, step: StepInstall},
		"unknown owner":     {file: filepath.Join(inMemory(t), "token"), owner: "no-such-user", says: "no-such-user", hint: "[[sink]]", step: StepInstall},
		"a role that signs": {file: filepath.Join(inMemory(t), "token"), policies: []string{"omen-host-spire"}, says: "have the policy omen-host-spire", hint: "host_policy=false", step: StepInstall},
		"refused":           {file: filepath.Join(inMemory(t), "token"), script: []string{"role"}, says: "refused: role", step: StepLogin},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, row.script...)
			s.policies = row.policies
			p, sink := sinkOf(t, s, row.file)
			p.config.Sinks[0].Owner, sink.Owner = row.owner, row.owner
			_, err := p.FillSink(t.Context(), sink)
			var step *StepError
			if !errors.As(err, &step) || step.Step != row.step || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v", err)
			}
			if !strings.Contains(remedy.Of(err), row.hint) {
				t.Errorf("hint %q", remedy.Of(err))
			}
			if isThere(row.file) {
				t.Error("a token was written")
			}
			if told := p.describeSinks()[0]; told.Failure == nil || told.Failure.Step != row.step || !told.Gone || !told.Until.IsZero() {
				t.Errorf("status %+v", told)
			}
		})
	}
}

// The token that is there stays when the next one cannot be had.
func TestSinkKeepsItsToken(t *testing.T) {
	s := newServer(t, "", string(attest.RuleBootPolicy))
	p, sink := sinkOf(t, s, filepath.Join(inMemory(t), "token"))
	first, err := p.FillSink(t.Context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.FillSink(t.Context(), sink); !Refused(err) {
		t.Errorf("%v", err)
	}
	if told := p.describeSinks()[0]; told.Gone || !told.Until.Equal(first.Until) || told.Failure == nil || told.Failure.Rule != "boot-policy" {
		t.Errorf("status %+v", told)
	}
	p.config.Sinks[0].Role = "another" // of which nothing is known
	if told := p.describeSinks()[0]; !told.Until.IsZero() || told.Failure != nil {
		t.Errorf("status %+v", told)
	}
}

// A login waits while a renewal has the TPM, longer than for a stranger.
func TestLoginWaitsItsTurn(t *testing.T) {
	p, sink := sinkOf(t, newServer(t), filepath.Join(inMemory(t), "token"))
	end, err := p.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.FillSink(soon, sink); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if _, err := p.FillSink(t.Context(), sink); err != nil {
				t.Error(err)
			}
		})
	}
	after := &Agent{memory: memory{turn: semaphore.NewWeighted(1)}} // of the next configuration
	after.Succeed(p.Agent)
	if _, ours := after.hasTurn(); ours {
		t.Error("two agents of one process open the TPM at once")
	}
	if p.condition(t.Context()) != nil {
		t.Error("a look opens the TPM beside a renewal")
	}
	end()
	wait.Wait()
}

// A file that a token was never written to is another's, also when the configuration
// named it by mistake.
func TestSinkThatWasNeverFilled(t *testing.T) {
	file := filepath.Join(inMemory(t), "theirs")
	if err := os.WriteFile(file, []byte("another token"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, sink := sinkOf(t, newServer(t), file)
	p.config.Sinks[0].Owner, sink.Owner = "no-such-user", "no-such-user"
	if _, err := p.FillSink(t.Context(), sink); err == nil {
		t.Fatal("filled")
	}
	p.config.Sinks = nil
	p.DropSinks()
	if !isThere(file) || len(p.recallSinks()) > 0 {
		t.Errorf("it is gone, or remembered: %v", p.recallSinks())
	}
}

// Tokens of one place are told from those of another.
func TestOrigin(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range []config.OpenBao{
		{AuthPath: "team/tpm"}, {Namespace: "team/", AuthPath: "tpm"}, {Addresses: []string{"a", "b"}}, {Addresses: []string{"a b"}}, {TLSServerName: "x"}, {CAFile: "x"},
	} {
		a := &Agent{config: &config.Config{OpenBao: o}}
		if seen[a.Origin()] {
			t.Errorf("%+v: %s again", o, a.Origin())
		}
		seen[a.Origin()] = true
	}
}

// The token of a sink that is configured no more goes, another file of the folder stays.
func TestSinkThatIsConfiguredNoMore(t *testing.T) {
	s := newServer(t)
	p, sink := sinkOf(t, s, filepath.Join(inMemory(t), "token"))
	if _, err := p.FillSink(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	other := sink.File + ".other"
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.DropSinks()
	if !isThere(sink.File) {
		t.Fatal("a token that is configured is gone")
	}
	p.config.Sinks = nil
	if err := os.Chmod(filepath.Dir(sink.File), 0o777); err != nil {
		t.Fatal(err)
	}
	p.DropSinks() // not in a folder of others
	if !isThere(sink.File) {
		t.Error("removed where others choose what")
	}
	if err := os.Chmod(filepath.Dir(sink.File), 0o755); err != nil {
		t.Fatal(err)
	}
	p.DropSinks()
	if isThere(sink.File) || !isThere(other) {
		t.Error("the token is there, or another file is gone")
	}
	if again := p.recallSinks(); len(again) > 0 {
		t.Errorf("remembered: %v", again)
	}
}
