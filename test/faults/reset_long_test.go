// SPDX-License-Identifier: Apache-2.0

//go:build long

package faults_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// TestTPMReset does what TestPassing does, where the TPM has done what nobody heard, and
// on hosts that do not know their TPM and prove its endorsement key.
func TestTPMReset(t *testing.T) {
	ctx, l, all := newLab(t, 3*time.Minute, "one", "two", "three", "four")
	t.Run("known, answered", func(t *testing.T) { tpmReset(ctx, t, all, true, known) })
	l.alwaysActivate(ctx, t)
	t.Run("stranger", func(t *testing.T) { tpmReset(ctx, t, all, false, stranger) })
	t.Run("stranger, answered", func(t *testing.T) { tpmReset(ctx, t, all, true, stranger) })
	for _, command := range []string{"ActivateCredential", "NV_Read", "Quote", "Certify", "Create"} {
		if !slices.Contains(all[0].lead.sent(), command) {
			t.Errorf("a renewal of a stranger has no %s: %v", command, all[0].lead.sent())
		}
	}
}

// alwaysActivate has each login prove the endorsement key.
func (l *lab) alwaysActivate(ctx context.Context, t *testing.T) {
	t.Helper()
	check(l.World.Bao.Write(ctx, "auth/tpm/role/"+world.AgentRole, map[string]any{"always_activate": true}))(t)
}
