// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"fmt"
	"io"
	"time"

	"funlab.casa/omen/test/world"
)

// A Story is the world in which the steps happen and what they remember.
type Story struct {
	World *world.World
	Spire *world.Host // OpenBao, and Keylime's verifier, registrar and tenant
	Auth  *world.Host // the machine that Keylime watches
}

// A Step is one thing that happens. Run returns a sentence about it.
type Step struct {
	Name string
	Run  func(context.Context, *Story) (string, error)
}

// Steps is the story, in order. Each needs those before it.
func Steps() []Step {
	return []Step{
		{"two machines, each with a TPM of its own", BuildWorld},
		{"OpenBao starts on spire and makes the Book of Omens", StartOpenBao},
		{"Keylime is installed, with no certificate", InstallKeylime},
		{"the operator enrols both machines by their TPMs", Enrol},
		{"omen-agent renews on spire and starts verifier and registrar", RenewSpire},
		{"omen-agent renews on auth and starts the agent's stand-in", RenewAuth},
		{"keylime_tenant talks mTLS to verifier and registrar", TalkAsTenant},
		{"the agent's port takes the verifier's client certificate", ReachAgent},
		{"the agent's own certificate opens no door", RefuseServerCertificate},
		{"another service's client certificate, of the Book of Omens, opens no door", RefuseOthersClient},
		{"a second renewal: new certificates, served", RenewAgain},
		{"a machine that is not enrolled gets nothing", RefuseStranger},
		{"a machine whose boot measurements moved gets nothing", RefuseMovedPCR},
	}
}

// Play runs the steps, telling each with its time on out, and stops at the
// first that goes wrong.
func (s *Story) Play(ctx context.Context, out io.Writer, steps []Step) error {
	start := time.Now()
	for i, step := range steps {
		began := time.Now()
		fmt.Fprintf(out, "%2d  %s\n", i+1, step.Name)
		told, err := step.Run(ctx, s)
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.Name, err)
		}
		fmt.Fprintf(out, "    %s  (%.1f s)\n", told, time.Since(began).Seconds())
	}
	fmt.Fprintf(out, "\n%d steps in %.0f s\n", len(steps), time.Since(start).Seconds())
	return nil
}

// Close ends the world, if there is one yet.
func (s *Story) Close() error {
	if s.World == nil {
		return nil
	}
	return s.World.Close()
}
