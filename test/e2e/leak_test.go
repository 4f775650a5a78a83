// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// canary is what a careless person has in the environment of omen-agent.
const canary = "canary-in-the-environment"

// batchToken is how every token begins that a login gives: a batch token, under
// one of the first keys of OpenBao's barrier.
const batchToken = "b.AAAA"

// A secret is a piece of something that must not be anywhere but in its file.
type secret struct {
	what string
	text []byte
}

// TestNothingLeaks renews and then looks for tokens and keys wherever a host
// keeps something.
func TestNothingLeaks(t *testing.T) {
	ctx, l := shared(t)
	if token := l.login(ctx, t, l.Auth); !strings.HasPrefix(token, batchToken) {
		t.Fatalf("a token does not begin as this test believes: %.6s…", token)
	}
	for _, h := range []*world.Host{l.Spire, l.Auth} {
		t.Run(h.Name, func(t *testing.T) {
			renew(ctx, t, h, 0) // other tests keep keys in files, and the set before is kept
			output := renewWithCanary(ctx, t, h)
			secrets := keySecrets(t, h)
			for _, leak := range leaks([]byte(output), secrets) {
				t.Errorf("omen-agent --log-level debug says %s", leak)
			}
			searchFiles(ctx, t, h, l.born, secrets)
			searchProcesses(t, h, secrets)
		})
	}
	audit := check(l.Spire.ReadFile(world.BaoAudit))(t)
	for _, want := range []string{"auth/tpm/login", "pki_int/sign/auth.server", "hmac-sha256:"} {
		if !bytes.Contains(audit, []byte(want)) {
			t.Errorf("the audit log does not hold %q, so that it proves nothing", want)
		}
	}
}

func renewWithCanary(ctx context.Context, t *testing.T, h *world.Host) (output string) {
	t.Helper()
	cmd := h.Command(ctx, "/usr/bin/omen-agent", "--log-level", "debug", "renew")
	cmd.Env = append(cmd.Env, "BAO_TOKEN="+canary, "VAULT_TOKEN="+canary)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// keySecrets are the forms in which one of the installed keys could turn up:
// the lines of its PEM, the number in bytes, in hexadecimal and as base64.
func keySecrets(t *testing.T, h *world.Host) []secret {
	t.Helper()
	var all []secret
	for name, text := range set(t, h) {
		block, _ := pem.Decode([]byte(text))
		if block == nil || block.Type != "PRIVATE KEY" {
			continue
		}
		key := check(x509.ParsePKCS8PrivateKey(block.Bytes))(t).(*ecdsa.PrivateKey)
		scalar := check(key.Bytes())(t)
		all = append(all, secret{name + " in PEM", []byte(strings.Split(text, "\n")[1])},
			secret{name, scalar}, secret{name + " in hexadecimal", []byte(hex.EncodeToString(scalar))},
			secret{name + " in DER", block.Bytes})
	}
	if len(all) == 0 {
		t.Fatalf("%s has no key", h.Name)
	}
	return all
}

// leaks names the secrets in a text.
func leaks(text []byte, secrets []secret) (found []string) {
	for _, word := range []string{"PRIVATE KEY", batchToken, canary} {
		if bytes.Contains(text, []byte(word)) {
			found = append(found, word)
		}
	}
	for _, s := range secrets {
		if bytes.Contains(text, s.text) {
			found = append(found, s.what)
		}
	}
	return found
}

// keyFile is the one place where a private key belongs, in memory.
var keyFile = regexp.MustCompile(`^/run/omen-agent/keylime/gen-[0-9]{6}/[a-z-]+\.key$`)

// searchFiles looks into every file that was written since the world is there.
// OpenBao's own folders are another machine's, where it matters.
func searchFiles(ctx context.Context, t *testing.T, h *world.Host, born time.Time, secrets []secret) {
	t.Helper()
	result := check(h.Must(ctx, "find", "/etc", "/var/lib", "/var/log", "/run",
		"-xdev", "-type", "f", "-newerct", fmt.Sprintf("@%d", born.Unix())))(t)
	searched := 0
	for name := range strings.Lines(result.Stdout) {
		name = strings.TrimSpace(name)
		if strings.HasPrefix(name, "/etc/openbao/") || strings.HasPrefix(name, "/var/lib/openbao/") {
			continue
		}
		found := leaks(check(h.ReadFile(name))(t), secrets)
		if keyFile.MatchString(name) {
			if !slices.Contains(found, "PRIVATE KEY") {
				t.Errorf("%s holds no key", name)
			}
			continue
		}
		for _, leak := range found {
			t.Errorf("%s holds %s", name, leak)
		}
		searched++
	}
	if searched < 10 {
		t.Errorf("only %d files were found to look into", searched)
	}
}

// searchProcesses looks at what every process of the host shows to others.
func searchProcesses(t *testing.T, h *world.Host, secrets []secret) {
	t.Helper()
	services := 0
	for _, entry := range check(h.ReadDir("/proc"))(t) {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		cmdline, err := h.ReadFile(path.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		environ, err := h.ReadFile(path.Join("/proc", entry.Name(), "environ"))
		if err != nil {
			continue
		}
		for _, leak := range append(leaks(cmdline, secrets), leaks(environ, secrets)...) {
			t.Errorf("process %s (%s) shows %s", entry.Name(), cmdline, leak)
		}
		if bytes.Contains(cmdline, []byte("keylime_")) {
			services++
		}
		if bytes.Contains(cmdline, []byte("omen-agent")) {
			t.Errorf("process %s runs still: %s", entry.Name(), cmdline)
		}
	}
	if services == 0 {
		t.Error("no service of Keylime was looked at")
	}
}

// modes says what may lie on a host, with mode and owner, as docs/operations.md
// has it. K stands for the user keylime.
var modes = []struct{ path, mode, owner string }{
	{`/etc/keylime/certs`, "Lrwxrwxrwx", "0"},
	{`/etc/keylime/[a-z]+\.conf\.d/50-omen\.conf`, "-r--r-----", "K"},
	{`/var/lib/omen-agent`, "drwx--x--x", "0"},
	{`/var/lib/omen-agent/install\.lock`, "-rw-------", "0"},
	{`/var/lib/omen-agent/keylime`, "drwx--x--x", "0"},
	{`/var/lib/omen-agent/keylime/current`, "Lrwxrwxrwx", "0"},
	{`/var/lib/omen-agent/keylime/found`, "-rw-------", "0"},
	{`/var/lib/omen-agent/keylime/gen-[0-9]{6}`, "drwx--x--x", "0"},
	{`/var/lib/omen-agent/keylime/gen-[0-9]{6}/\.omen-manifest`, "-rw-------", "0"},
	{`/var/lib/omen-agent/keylime/gen-[0-9]{6}/[a-z-]+\.crt`, "-rw-r--r--", "0"},
	{`/var/lib/omen-agent/keylime/gen-[0-9]{6}/[a-z-]+\.key`, "Lrwxrwxrwx", "0"},
	{`/var/lib/omen-agent/keylime/gen-[0-9]{6}/[a-z-]+\.sealed`, "-r--------", "K"},
	{`/var/lib/omen-agent/state`, "drwx------", "0"},
	{`/var/lib/omen-agent/state/(tpm\.json|status\.json|applied\.json|srk\.pub)`, "-rw-------", "0"},
	{`/run/omen-agent`, "drwx--x--x", "0"},
	{`/run/omen-agent/keylime(/gen-[0-9]{6})?`, "drwx--x--x", "0"},
	{`/run/omen-agent/keylime/gen-[0-9]{6}/[a-z-]+\.key`, "-rw-------", "K"},
	{`/run/omen-agent/[a-z]+\.pid`, "-rw-r--r--", "0"},
}

// TestModes holds every file of ours on both hosts against the list, and lets no
// other file lie between them.
func TestModes(t *testing.T) {
	ctx, l := shared(t)
	for _, h := range []*world.Host{l.Spire, l.Auth} {
		renew(ctx, t, h, 0)
		keylime := strconv.Itoa(check(h.User("keylime"))(t).UID)
		met := map[int]bool{}
		for name, line := range installed(t, h) {
			if !isOurs(name) {
				continue
			}
			rule := ruleFor(name)
			if rule < 0 {
				t.Errorf("%s:%s (%s) is not in the list", h.Name, name, line)
				continue
			}
			met[rule] = true
			owner := strings.Replace(modes[rule].owner, "K", keylime, 1)
			if want := fmt.Sprintf("%s %s:", modes[rule].mode, owner); !strings.HasPrefix(line, want) {
				t.Errorf("%s:%s is %s, not %s", h.Name, name, line, want)
			}
		}
		for i, m := range modes {
			if !met[i] {
				t.Errorf("%s: nothing is there of %s", h.Name, m.path)
			}
		}
	}
}

func isOurs(name string) bool {
	return strings.HasPrefix(name, "/var/lib/omen-agent") || strings.HasPrefix(name, "/run/omen-agent") ||
		strings.HasSuffix(name, "-omen.conf") || name == world.CertsDir
}

func ruleFor(name string) int {
	for i, m := range modes {
		if regexp.MustCompile("^" + m.path + "$").MatchString(name) {
			return i
		}
	}
	return -1
}
