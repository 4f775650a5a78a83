// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"testing"
)

var configurationBreaks = map[string]func(*testing.T){
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
