// SPDX-License-Identifier: Apache-2.0

package order

import (
	"regexp"
	"strings"
	"testing"

	"funlab.casa/omen/internal/config"
)

// lines are all that a drop-in for these words can say.
var lines = regexp.MustCompile(`^(#.*|\[(Unit|Service)\]|SourcePath=/etc/omen-agent/agent\.toml|(Wants|After)=[A-Za-z0-9:_.\\-]+\.device|` +
	`Before=[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service|DeviceAllow=/dev/[A-Za-z0-9_./-]+ rw|BindPaths=-/dev/[A-Za-z0-9_./-]+|` +
	`ReadWritePaths="-/([^"\\%[:cntrl:]]|\\["\\]|%%)+"|PrivateTmp=no|RestrictAddressFamilies=AF_UNIX)?$`)

// FuzzDropIns: whatever agent.toml has for names and paths, a unit gets no line that it
// should not have.
func FuzzDropIns(f *testing.F) {
	f.Add("/dev/tpmrm1", "nginx.service", "/etc/nginx/omen", "/srv/a b/ca.pem")
	f.Add("unix:/run/tpm/socket", "a.service\nExecStart=/x", "/etc/%n/\"x", "/srv/\\/y")
	f.Add("tcp:localhost:1", "a@b.service", "/etc/é/x", "/")
	f.Fuzz(func(t *testing.T, device, unit, folder, bundle string) {
		c := &config.Config{TPM: config.TPM{Device: device}, Certificates: []config.Certificate{{
			Profile: config.General, BundleFile: bundle, Files: config.Files{Folder: folder}, Service: config.Service{Unit: unit},
		}}}
		p, _ := makePlan(c, func(string) bool { return true })
		for _, one := range p.dropIns() {
			for line := range strings.SplitSeq(one.text, "\n") {
				if !lines.MatchString(line) {
					t.Errorf("%s: %q", one.name, line)
				}
			}
		}
	})
}
