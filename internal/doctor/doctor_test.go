// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// breaks has, for each check, a test that breaks what it looks at.
func breaks() map[string]func(*testing.T) {
	all := map[string]func(*testing.T){}
	for _, some := range []map[string]func(*testing.T){
		configurationBreaks, tpmBreaks, keyBreaks, serverBreaks, loginBreaks, pkiBreaks, certificateBreaks, keylimeBreaks, systemBreaks,
		ownUnitBreaks, besideBreaks, rivalBreaks, serviceBreaks,
	} {
		maps.Copy(all, some)
	}
	return all
}

// TestEachCheck breaks what each check looks at, and expects it to say so.
func TestEachCheck(t *testing.T) {
	rows := breaks()
	for _, check := range Checks() {
		if rows[check.Name] == nil {
			t.Errorf("no test breaks what %s looks at", check.Name)
			continue
		}
		t.Run(check.Name, rows[check.Name])
		delete(rows, check.Name)
	}
	for name := range rows {
		t.Errorf("%s is no check", name)
	}
}

// TestChecks: names are unlike, and what a check needs comes before it.
func TestChecks(t *testing.T) {
	var before []string
	for _, c := range Checks() {
		if c.Asks == "" || c.Remedy == "" || c.Area == "" || slices.Contains(before, c.Name) {
			t.Errorf("%+v", c)
		}
		for _, need := range c.needs {
			if !slices.Contains(before, need) {
				t.Errorf("%s needs %s, which does not come before", c.Name, need)
			}
		}
		before = append(before, c.Name)
	}
	if len(before) < 30 {
		t.Errorf("%d checks", len(before))
	}
	if _, err := (Doctor{Only: []string{"nothing"}}).Examine(t.Context()); err == nil {
		t.Error("a check that there is not")
	}
}

// TestNothingIsSound: with no configuration and no TPM every check ends, and what can
// be looked at is.
func TestNothingIsSound(t *testing.T) {
	h := bareHost(t)
	for name, text := range map[string]string{"absent": "", "no TOML": "[[[", "empty": "\n", "half": "[openbao]\naddresses = [\"https://127.0.0.1:1\"]\n[[certificate]]\nname = \"x\"\n"} {
		path := h.path("other.toml")
		if text != "" {
			h.place("other.toml", text, 0o644)
		}
		results, err := Doctor{Config: path, Root: h.root}.Examine(t.Context())
		must(t, err)
		for _, c := range Checks() {
			if !slices.ContainsFunc(results, func(r Result) bool { return r.Check == c.Name }) {
				t.Errorf("%s: %s has no result", name, c.Name)
			}
		}
		if results[1].Check != "configuration" || results[1].Status != Problem || strings.Contains(strings.Join(seen(results), " "), "broke down") {
			t.Errorf("%s: %+v", name, results)
		}
	}
}

func seen(results []Result) []string {
	var all []string
	for _, r := range results {
		all = append(all, r.Seen)
	}
	return all
}

// TestChangesNothing: a whole examination of an enrolled host leaves disk and TPM as
// they were, and tells no secret.
func TestChangesNothing(t *testing.T) {
	h := enrolledHost(t)
	delete(h.certs, "web")
	h.install("tenant")
	h.place("etc/default/bao", "BAO_TOKEN=s.SECRET\n", 0o600)
	d := h.doctor()
	before := h.tree()
	results, err := d.Examine(t.Context())
	must(t, err)
	if diff := gocmp.Diff(before, h.tree()); diff != "" {
		t.Error(diff)
	}
	h.tpmIsEmpty()
	for _, r := range results {
		if r.Status == Problem && r.Check != "static-token" {
			t.Errorf("%+v", r)
		}
		if strings.Contains(r.Seen+r.Remedy+r.About, "SECRET") {
			t.Errorf("a secret is told: %+v", r)
		}
	}
}

// tree is every path below the root, with its size and time.
func (h *machine) tree() map[string]string {
	h.t.Helper()
	found := map[string]string{}
	must(h.t, filepath.WalkDir(h.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			found[path] = info.Mode().String() + " " + info.ModTime().String()
		}
		return err
	}))
	return found
}

// TestChecksGoOn: one that breaks down, and one that does not heed its end, are told
// of.
func TestChecksGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := Check{Name: "broken", run: func(context.Context, *patient) []Result { panic("a nil map") }}
		if got := broken.make(t.Context(), nil, nil); got[0].Status != Problem || !strings.Contains(got[0].Seen, "a nil map") {
			t.Errorf("%+v", got)
		}
		end := make(chan struct{})
		stuck := Check{Name: "stuck", Remedy: "wait", patience: time.Second, run: func(context.Context, *patient) []Result { <-end; return nil }}
		if got := stuck.make(t.Context(), nil, nil); got[0].Status != Problem || !strings.Contains(got[0].Seen, "no answer within 1s") || got[0].Remedy != "wait" {
			t.Errorf("%+v", got)
		}
		close(end)
	})
}
