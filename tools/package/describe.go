// SPDX-License-Identifier: Apache-2.0

package main

import "funlab.casa/omen/tools/program"

// A description is what one package is and holds.
type description struct {
	program  string
	section  string // of Debian
	summary  string // one line
	text     string // more lines
	where    string // of the program
	files    []file // beside it, in both formats
	links    []link
	folders  []string
	depends  map[string][]string          // by format
	more     map[string][]file            // by format
	scripts  map[string]map[string]string // by format, then when: files of the checkout
	override string                       // lintian's, a file of the checkout
}

// A file of a package comes from the checkout, or is content.
type file struct {
	path    string
	from    string // of the checkout
	content []byte
	packed  bool // by gzip
}

type link struct{ path, to string }

// agentPackage is the agent, with what it says of itself.
func agentPackage(said saying) description {
	const units = "/usr/lib/systemd/system/"
	return description{
		program: program.Agent, section: "admin", where: "/usr/bin/" + program.Agent,
		summary: "certificates for Keylime and others, by TPM attestation to OpenBao",
		text: `omen-agent proves the host's TPM to OpenBao, has keys signed that never leave
the host, installs the certificates for Keylime or any other service, restarts
what reads them, proves what is served, and goes back if it is not. Keys can
be sealed to the TPM and come back at boot without a network.`,
		files: []file{
			{path: units + "omen-agent.service", from: "dist/systemd/omen-agent.service"},
			{path: units + "omen-agent-unseal.service", from: "dist/systemd/omen-agent-unseal.service"},
			{path: "/usr/lib/udev/rules.d/60-omen-agent.rules", from: "dist/udev/60-omen-agent.rules"},
			{path: "/usr/share/man/man1/omen-agent.1.gz", content: said.page, packed: true},
			{path: "/usr/share/man/man5/agent.toml.5.gz", content: said.configuration, packed: true},
			{path: "/usr/share/bash-completion/completions/omen-agent", content: said.bash},
			{path: "/usr/share/fish/vendor_completions.d/omen-agent.fish", content: said.fish},
			{path: "/usr/share/doc/omen-agent/examples/agent.toml", from: "dist/agent.toml"},
		},
		more: map[string][]file{
			"deb": {{path: "/usr/share/zsh/vendor-completions/_omen-agent", content: said.zsh}},
			"rpm": {{path: "/usr/share/zsh/site-functions/_omen-agent", content: said.zsh}},
		},
		links:   []link{{path: "/usr/lib/systemd/system-generators/omen-agent-generator", to: "../../../bin/omen-agent"}},
		folders: []string{"/etc/omen-agent"},
		depends: map[string][]string{"rpm": {"systemd"}},
		scripts: map[string]map[string]string{
			"deb": {"postinst": "dist/deb/postinst.sh", "prerm": "dist/deb/prerm.sh", "postrm": "dist/deb/postrm.sh"},
			"rpm": {"postinst": "dist/rpm/post.sh", "prerm": "dist/rpm/preun.sh", "postrm": "dist/rpm/postun.sh"},
		},
		override: "dist/deb/omen-agent.lintian-overrides",
	}
}

// pluginPackage is the auth plugin. OpenBao starts it, as its own user: it has neither
// unit nor account, and no state but OpenBao's.
func pluginPackage() description {
	var pages []file
	for _, name := range []string{"auth-method", "auth-method-api", "protocol", "release", "threat-model"} {
		pages = append(pages, file{path: "/usr/share/doc/" + program.Plugin + "/" + name + ".md.gz", from: "docs/" + name + ".md", packed: true})
	}
	return description{
		program: program.Plugin, section: "admin", where: "/usr/lib/openbao/plugins/" + program.Plugin,
		summary: "auth method of OpenBao for hosts that prove their TPM",
		text: `This plugin lets hosts log in to OpenBao by what their TPM proves. OpenBao runs
it only with the checksum that it was told: after an upgrade of this package,
register the new one, as release.md says.`,
		files:    pages,
		folders:  []string{"/usr/lib/openbao", "/usr/lib/openbao/plugins"},
		override: "dist/deb/openbao-plugin-auth-tpm.lintian-overrides",
	}
}
