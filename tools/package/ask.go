// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"funlab.casa/omen/tools/program"
)

// A saying is what the agent says of itself.
type saying struct{ page, configuration, bash, zsh, fish []byte }

// askAgent builds the agent for this machine and has it say what its packages hold.
func (b batch) askAgent(ctx context.Context) (s saying, err error) {
	agent := filepath.Join(b.work, program.Agent)
	if _, err := program.Build(ctx, b.Source, program.Agent, b.Version, runtime.GOARCH, agent); err != nil {
		return s, err
	}
	for _, question := range []struct {
		answer *[]byte
		args   []string
	}{
		{&s.page, []string{"manual", "--date", b.Date.Format(time.DateOnly)}},
		{&s.bash, []string{"completion", "bash"}},
		{&s.zsh, []string{"completion", "zsh"}},
		{&s.fish, []string{"completion", "fish"}},
	} {
		if *question.answer, err = exec.CommandContext(ctx, agent, question.args...).Output(); err != nil {
			return s, fmt.Errorf("%s %v: %w", agent, question.args, err)
		}
	}
	s.configuration, err = b.configurationPage()
	return s, err
}
