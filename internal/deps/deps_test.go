// SPDX-License-Identifier: Apache-2.0

package deps

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "funlab.casa/omen/"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// packages lists this module's packages with what they import, tests left out.
func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// rule says what the packages that match from may not reach. Direct rules look
// at what a package itself imports, the others at everything below it.
type rule struct {
	from   string // path pattern below the module
	except []string
	never  []string // import path prefixes
	direct bool
	why    string
}

// simulators stand in for what a host has; no program that is shipped may hold
// one.
var simulators = []string{
	module + "tpmsim", module + "attest/verify/provertest", module + "attest/attacker", module + "test", module + "install/internal",
}

// installers decide about an installation, or touch what runs. What they stand on does
// not reach them.
var installers = []string{module + "install/service", module + "install/probe", module + "install/rival", module + "install/account"}

var rules = []rule{
	{from: "attest", never: []string{"os", "net/http", "crypto/tls", module}, direct: true,
		why: "the seam is pure"},
	{from: "attest/verify", never: []string{"os", "net", "net/http", "crypto/tls"}, direct: true,
		why: "the verifier takes bytes and a time, and does no I/O"},
	{from: "attest/verify", never: []string{module + "attest/host", module + "internal", module + "install", module + "issuer", module + "plugin"},
		why: "server and client meet in the seam only"},
	{from: "attest/host", never: []string{module + "attest/verify", module + "plugin"},
		why: "server and client meet in the seam only"},
	{from: "internal/agent", never: []string{"github.com/prometheus", module + "internal/metrics", module + "internal/journal", "net/http"}, direct: true,
		why: "the job does not know who hears of it"},
	{from: "internal/alarm", never: []string{module, "os", "net"}, direct: true,
		why: "how urgent something is depends on times alone"},
	{from: "internal/journal", never: []string{module},
		why: "a log that looks into no value of ours can show none"},
	{from: "attest/attacker", never: []string{"testing", module + "plugin", module + "internal", module + "attest/verify", module + "attest/host"},
		why: "the attacker plays on any server, and believes its own code alone"},
	{from: "plugin", never: []string{module + "attest/host", module + "internal", module + "install", module + "issuer"},
		why: "the auth method needs no TPM and no host"},
	{from: "cmd/omen-agent", never: []string{module + "plugin", module + "attest/verify", "github.com/openbao/openbao/sdk"},
		why: "the host's binary stays small"},
	{from: "cmd/omen-agent", never: []string{"google.golang.org/grpc"},
		why: "two calls of gRPC need a quarter of its own size: internal/workload"},
	{from: "install", never: []string{"net", "net/http"}, direct: true,
		why: "only install/probe speaks to the network"},
	{from: "install/*", except: []string{"install/probe"}, never: []string{"net", "net/http", "crypto/tls"}, direct: true,
		why: "only install/probe speaks to the network"},
	{from: "install/keypair", never: []string{"os", module + "install/", module + "internal"}, direct: true,
		why: "bytes in, a judgement out: neither disk nor TPM"},
	{from: "install/unitfile", never: []string{"os", "net", module}, direct: true,
		why: "the form of unit files is a matter of texts"},
	{from: "install/record", never: installers,
		why: "what is written down is read by itself, and acted on elsewhere"},
	{from: "install/fileset", never: installers,
		why: "the files of a set know neither where they are nor who reads them"},
	{from: "install/generation", never: installers,
		why: "sets on a disk know neither services nor what is to be current"},
	{from: "install/place", never: installers,
		why: "link and folder are exchanged, and nobody is told"},
	{from: "install", never: []string{module + "attest", module + "issuer", module + "internal"},
		why: "install takes bytes and does not care who made them"},
	{from: "issuer", never: []string{"os", "net/http", "crypto/tls", module + "install", module + "internal/bao"}, direct: true,
		why: "the judgement of a reply touches neither disk nor network"},
	{from: "tss2", never: []string{"os", "net", module}, direct: true,
		why: "what issuer writes and install reads: bytes, and neither file nor TPM"},
	{from: "cmd/*", never: simulators, why: "simulators are for tests, demo and bench"},
	{from: "internal/*", never: simulators, why: "simulators are for tests, demo and bench"},
	{from: "install", never: simulators, why: "simulators are for tests, demo and bench"},
	{from: "plugin", never: simulators, why: "simulators are for tests, demo and bench"},
	{from: "*/*/*", never: []string{"github.com/google/go-tpm/legacy"}, direct: true,
		why: "the legacy API is not used"},
}

func TestImportRules(t *testing.T) {
	all := packages(t)
	for _, r := range rules {
		matched := false
		for _, p := range all {
			name := strings.TrimPrefix(p.ImportPath, module)
			if ok, err := path.Match(r.from, name); err != nil {
				t.Fatal(err)
			} else if !ok || slices.Contains(r.except, name) {
				continue
			}
			matched = true
			r.judge(t, p)
		}
		if !matched && r.from != "*/*/*" {
			t.Errorf("no package matches %s: the rule guards nothing", r.from)
		}
	}
}

func (r rule) judge(t *testing.T, p pkg) {
	t.Helper()
	reached := p.Deps
	if r.direct {
		reached = p.Imports
	}
	for _, dep := range reached {
		for _, never := range r.never {
			if dep == never || strings.HasPrefix(dep, strings.TrimSuffix(never, "/")+"/") && strings.Contains(never, "/") {
				t.Errorf("%s must not reach %s: %s", p.ImportPath, dep, r.why)
			}
		}
	}
}
