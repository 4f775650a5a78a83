// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

var configurationBreaks = map[string]func(*testing.T){
	"root": func(t *testing.T) {
		h := bareHost(t)
		h.install("tenant")
		h.good("root")
		d := h.doctor()
		must(t, syscall.Seteuid(4711))
		results, err := d.Examine(t.Context())
		must(t, errors.Join(err, syscall.Seteuid(0)))
		if results[0].Status != Problem || results[0].Seen != "run by user 4711: much is not looked at" {
			t.Errorf("%+v", results[0])
		}
		for _, r := range results[1:] { // what this user may not see is no fault of the host
			missing := r.Check == "tpm-device" || r.Check == "openbao-reachable"
			if r.Status == Problem && !missing || strings.Contains(r.Seen, "nothing of this set is installed") {
				t.Errorf("%+v", r)
			}
		}
	},
	"configuration": func(t *testing.T) {
		h := bareHost(t)
		h.good("configuration")
		h.openbao["skip_verify"] = "true"
		h.bad("configuration", Problem, "skip_verify")
		delete(h.openbao, "skip_verify")
		path := h.write()
		must(t, os.Chmod(path, 0o666))
		results, err := Doctor{Config: path, Only: []string{"configuration"}}.Examine(t.Context())
		must(t, err)
		if results[0].Status != Problem {
			t.Errorf("others may write it: %+v", results)
		}
	},
	"configuration-files": func(t *testing.T) {
		h := bareHost(t)
		h.good("configuration-files")
		h.place("ca.pem", "no CA", 0o644)
		h.openbao["ca_file"] = quoted(h.path("ca.pem"))
		h.bad("configuration-files", Problem, "no PEM certificate")
		h.good("configuration")
	},
}
