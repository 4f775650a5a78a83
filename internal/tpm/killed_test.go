// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// What the program that gets killed is told.
const (
	victimDevice  = "OMEN_TEST_VICTIM_DEVICE"
	victimCommand = "OMEN_TEST_VICTIM_COMMAND" // the number of the command before which it dies
)

func TestMain(m *testing.M) {
	if device := os.Getenv(victimDevice); device != "" {
		if err := die(device); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// die does all that is done with a storage root, as far as it comes.
func die(device string) error {
	n, err := strconv.Atoi(os.Getenv(victimCommand))
	if err != nil {
		return err
	}
	ctx := context.Background()
	opened, err := tpm.Open(ctx, tpm.Config{Device: device, Observe: func(string) {
		if n--; n == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	storage, err := opened.Storage(ctx, nil)
	if err != nil {
		return err
	}
	values, err := opened.ReadPCRs(ctx, tpm2.TPMAlgSHA256, []int{7})
	if err != nil {
		return err
	}
	here := tpm.SealPolicy{Bank: tpm2.TPMAlgSHA256, PCRs: []int{7}, States: [][][]byte{{values[7]}}}
	for _, name := range []string{"certification", "secrets"} {
		if err := operations(here)[name](ctx, opened, storage); err != nil {
			return err
		}
	}
	return errors.Join(storage.Close(ctx), opened.Close())
}

// kill runs the victim and reports whether it died before it was done.
func kill(t *testing.T, device string, command int) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), self)
	victim.Env = append(os.Environ(), victimDevice+"="+device, victimCommand+"="+strconv.Itoa(command))
	output, err := victim.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return false
}

// A program that is killed between two commands leaves objects and sessions in an
// emulator; the next one of ours takes them out before it does anything.
func TestKilledClient(t *testing.T) {
	sim := tpmsim.Start(t)
	found := 0
	for n := 1; kill(t, sim.Device(), n); n += 2 {
		left, err := sim.Leaks()
		if err != nil {
			t.Fatal(err)
		}
		found += len(left)
		opened, err := tpm.Open(t.Context(), tpm.Config{Device: sim.Device()})
		if err != nil {
			t.Fatalf("killed before command %d: %v", n, err)
		}
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
		if now, err := sim.Leaks(); err != nil || len(now) != 0 {
			t.Fatalf("killed before command %d: %x were left, %x are (%v)", n, left, now, err)
		}
	}
	if found == 0 {
		t.Error("the victim never left anything")
	}
}

// What a killed program had in a TPM is gone when the emulator is started again; what
// has the same handle then is somebody else's.
func TestKilledClientBeforeReboot(t *testing.T) {
	sim := tpmsim.Start(t)
	for n := 1; ; n++ {
		if !kill(t, sim.Device(), n) {
			t.Fatal("the victim never left anything")
		}
		if left, err := sim.Leaks(); err != nil || len(left) > 0 {
			if err := errors.Join(err, sim.Flush(left...)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := sim.Reboot(); err != nil {
		t.Fatal(err)
	}
	others, err := sim.Occupy(1)
	if err != nil {
		t.Fatal(err)
	}
	opened, counter := open(t, sim)
	if counter.Total() != 0 {
		t.Errorf("sent %v", counter.Counts())
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	if err := sim.Flush(others...); err != nil {
		t.Errorf("somebody else's key: %v", err)
	}
}
