// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"funlab.casa/omen/tools/markdown"
)

// configurationPage is the page of agent.toml in section 5: the words of
// docs/configuration.md, which tests hold against what the agent reads.
func (b batch) configurationPage() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(b.Source, "docs/configuration.md"))
	if err != nil {
		return nil, err
	}
	return markdown.Manual(text, markdown.Title{
		Name: "agent.toml", Section: 5, Date: b.Date, Version: "omen-agent " + b.Version,
		Summary: "configuration of omen-agent", SeeAlso: []string{"omen-agent(1)", "systemd.unit(5)"},
	})
}
