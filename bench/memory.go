// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"funlab.casa/omen/test/story"
)

// renewalsBefore is after how many renewals the memory of a waiting agent is read.
const renewalsBefore = 100

// idleMemory is the resident memory of omen-agent run that waits, after a hundred
// renewals on the host with one certificate: of the same loop, for which no time goes by.
func idleMemory(ctx context.Context, s *story.Story) (mib float64, err error) {
	if _, err := story.RenewAuth(ctx, s); err != nil {
		return 0, err
	}
	program, err := s.World.Tools.Program("soaker")
	if err != nil {
		return 0, err
	}
	if _, err := s.Auth.Must(ctx, "install", "-m", "0755", program, "/usr/bin/soaker"); err != nil {
		return 0, err
	}
	command := s.Auth.Command(ctx, "/usr/bin/soaker")
	command.Stdin = strings.NewReader(strings.Repeat("renew\n", renewalsBefore+1))
	said, err := command.Output()
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(strings.NewReader(string(said)))
	count, last := 0, struct {
		Error string
		Idle  float64
	}{}
	for ; lines.Scan(); count++ {
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			return 0, err
		}
		if last.Error != "" {
			return 0, errors.New(last.Error)
		}
	}
	if count != renewalsBefore+1 {
		return 0, errors.New("not all renewals were made")
	}
	return last.Idle / 1024, nil
}
