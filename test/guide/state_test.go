// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// state is all that a step may change, by name: what OpenBao has, the files of both
// hosts, and what is served.
type state map[string]string

func (s state) equal(other state) bool { return maps.Equal(s, other) }

// want complains about everything that is not as it was.
func (s state) want(t *testing.T, after state) {
	t.Helper()
	names := slices.Collect(maps.Keys(s))
	for name := range after {
		if _, known := s[name]; !known {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if s[name] != after[name] {
			t.Errorf("the way back leaves %s as %q, it was %q", name, after[name], s[name])
		}
	}
}

// state looks.
func (r *reader) state(t *testing.T) state {
	t.Helper()
	s := state{}
	s.addOpenBao(t, r)
	for _, h := range r.world.Hosts() {
		s.addFiles(t, r, h)
	}
	for _, address := range addresses {
		s["served at "+address] = served(address)
	}
	return s
}

// addresses are where services of Keylime listen.
var addresses = []string{world.SpireIP + ":8881", world.SpireIP + ":8891", world.AuthIP + ":9002"}

// awaitServed waits until services that were started last serve what they did: a way
// back does not wait for them.
func (s state) awaitServed(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	must(t, world.Await(ctx, func(context.Context) error {
		for _, address := range addresses {
			if got := served(address); got != s["served at "+address] {
				return fmt.Errorf("%s serves %q", address, got)
			}
		}
		return nil
	}))
}

// taken is what the page takes away for good.
var taken = []string{"pki_int/roles/keylime-services", "sys/policies/acl/keylime-renew"}

// wantUntouched wants everything that OpenBao had before the page to be there as it
// was: mounts, methods, policies, roles, CAs, and what other people keep.
func (s state) wantUntouched(t *testing.T, after state) {
	t.Helper()
	for name, before := range s {
		ofHost := strings.HasPrefix(name, world.Spire+":") || strings.HasPrefix(name, world.Auth+":")
		if ofHost || strings.HasPrefix(name, "served at ") || name == "sys/plugins/catalog" || slices.Contains(taken, name) {
			continue
		}
		if after[name] != before {
			t.Errorf("%s was %q, is %q", name, before, after[name])
		}
	}
	for _, name := range taken {
		if before, now := s[name], after[name]; before == "" || now != "" {
			t.Errorf("%s was %q, is %q", name, before, now)
		}
	}
}

// lists are what is listed and then read one by one, below each mount.
var lists = []string{"sys/policies/acl", "pki_int/roles", "pki_root/roles", "auth/approle/role", "auth/tpm/role", "auth/tpm/host"}

// enrolled is what an operator says of a host; the rest is what was seen of it.
var enrolled = []string{"tpm_ids", "pcr_digests", "roles", "state"}

// addOpenBao adds mounts, methods, catalogue, policies, roles, and what others keep.
func (s state) addOpenBao(t *testing.T, r *reader) {
	t.Helper()
	for _, path := range []string{"sys/mounts", "sys/auth"} {
		s.addEach(t, r, path)
	}
	for _, path := range []string{"sys/plugins/catalog", "secret/backup", "pki_int/config/issuers", "pki_root/config/issuers"} {
		s.addRead(t, r, path)
	}
	for _, path := range lists {
		found, err := r.admin.Logical().ListWithContext(r.ctx, path)
		if err != nil || found == nil { // nothing is mounted there, or there is none
			continue
		}
		keys, _ := found.Data["keys"].([]any)
		for _, key := range keys {
			s.addRead(t, r, path+"/"+fmt.Sprint(key))
		}
	}
}

// addEach adds one by one what a path has.
func (s state) addEach(t *testing.T, r *reader, path string) {
	t.Helper()
	found, err := r.admin.Logical().ReadWithContext(r.ctx, path)
	must(t, err)
	for name, what := range found.Data {
		text, err := json.Marshal(what)
		must(t, err)
		s[path+"/"+name] = string(text)
	}
}

func (s state) addRead(t *testing.T, r *reader, path string) {
	t.Helper()
	found, err := r.admin.Logical().ReadWithContext(r.ctx, path)
	must(t, err)
	if found == nil {
		t.Fatalf("nothing at %s", path)
	}
	if strings.HasPrefix(path, "auth/tpm/host/") {
		maps.DeleteFunc(found.Data, func(key string, _ any) bool { return !slices.Contains(enrolled, key) })
	}
	text, err := json.Marshal(found.Data)
	must(t, err)
	s[path] = string(text)
}

// addFiles adds the files that steps write, with mode, owner, size, and content where
// it is no program's, and no times.
func (s state) addFiles(t *testing.T, r *reader, h *world.Host) {
	t.Helper()
	const look = `folders="/etc/keylime /etc/omen-agent /etc/openbao /etc/systemd/system /usr/local/bin /var/lib/omen-agent"
find /usr/local/lib -maxdepth 1 -printf '%p\t%y %m %u:%g\n'
find $folders /usr/local/lib/openbao -printf '%p\t%y %m %u:%g %l\n' 2>/dev/null
find $folders /usr/local/lib/openbao -type f -printf '%p (size)\t%s\n' 2>/dev/null
find $folders -type f -size -1024k -exec sha256sum {} + 2>/dev/null | sed 's/^\([0-9a-f]*\)  \(.*\)/\2 (content)\t\1/'`
	found, err := h.Must(r.ctx, "sh", "-c", look)
	must(t, err)
	for line := range strings.Lines(found.Stdout) {
		name, what, _ := strings.Cut(strings.TrimSpace(line), "\t")
		s[h.Name+":"+name] = what
	}
}

// served is whose certificate a service shows, or how it speaks.
func served(address string) string {
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // whoever it is, is the question
		MinVersion:         tls.VersionTLS12,
	})
	if err != nil {
		return "no TLS"
	}
	leaf := connection.ConnectionState().PeerCertificates[0]
	_ = connection.Close()
	return leaf.Issuer.String() + ", " + leaf.SerialNumber.String()
}
