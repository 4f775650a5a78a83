// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// A recorder stands in for a test and remembers what it was told.
type recorder struct {
	testing.TB
	errors   []string
	fatal    string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, a ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, a...))
}
func (r *recorder) Fatalf(format string, a ...any) {
	r.fatal = fmt.Sprintf(format, a...)
	panic(r)
}

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func leakObject(t *testing.T, device *TPM) {
	t.Helper()
	_, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
}

func leakSession(t *testing.T, device *TPM) {
	t.Helper()
	if _, _, err := tpm2.PolicySession(device, tpm2.TPMAlgSHA256, 16); err != nil {
		t.Fatal(err)
	}
}

func TestLeakCheck(t *testing.T) {
	nothing := func(*testing.T, *TPM) {}
	reboot := func(t *testing.T, device *TPM) {
		t.Helper()
		if err := device.Reboot(); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		leak  []func(*testing.T, *TPM)
		words []string
	}{
		{"nothing", []func(*testing.T, *TPM){nothing}, nil},
		{"object", []func(*testing.T, *TPM){leakObject}, []string{"object 0x80000000"}},
		{"session", []func(*testing.T, *TPM){leakSession}, []string{"session 0x0"}},
		{"both, before a reboot", []func(*testing.T, *TPM){leakObject, leakSession, reboot}, []string{"object 0x80000000", "session 0x0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fake := &recorder{TB: t}
			device := Device(fake, 0)
			for _, leak := range test.leak {
				leak(t, device)
			}
			fake.end()
			if len(fake.errors) != len(test.words) {
				t.Fatalf("errors: %q", fake.errors)
			}
			for i, word := range test.words {
				if !strings.Contains(fake.errors[i], word) {
					t.Errorf("error %q does not say %q", fake.errors[i], word)
				}
			}
		})
	}
}

func TestMissingSwtpmIsFatalWithTheRemedy(t *testing.T) {
	if _, err := program("no-such-program-of-swtpm"); !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), InstallHint) {
		t.Errorf("error is %v", err)
	}
	fake := &recorder{TB: t}
	defer func() {
		if recover() != fake || !strings.Contains(fake.fatal, InstallHint) {
			t.Errorf("fatal error is %q", fake.fatal)
		}
	}()
	fatalOnError(fake, fmt.Errorf("find swtpm: %w", ErrNotInstalled))
}
