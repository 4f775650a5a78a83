// SPDX-License-Identifier: Apache-2.0

//go:build long && amd64

package vm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"funlab.casa/omen/test/world"
	"funlab.casa/omen/tpmsim"
)

const (
	firmware  = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	variables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	diskSize  = "1536M"
	// commandLine lets no busy machine fail the kernel's test of an emulated timer, and ends
	// QEMU when the kernel panics.
	commandLine = "root=/dev/nvme0n1 rw console=ttyS0 no_timer_check panic=-1"
	// answers is how long a guest may take to answer; emulated and beside other tests it
	// takes half a minute.
	answers = 4 * time.Minute
)

// A computer has UEFI firmware, a TPM 2.0, one disk and a network. What lies in its
// folder, and in the TPM, outlives a power cut.
type computer struct {
	*guest
	dir      string
	tpm      *tpmsim.State
	network  string // QEMU's -netdev
	emulated bool   // by instructions, since /dev/kvm does not serve

	qemu  *os.Process
	ended chan struct{}
}

// newComputer makes one with a copy of a root on its disk. A disk of ext4 on NVMe needs
// no initial RAM disk: this kernel has both built in, as it has the TPM's drivers.
func newComputer(ctx context.Context, dir, root string, tpm *tpmsim.State, network string) (*computer, error) {
	c := &computer{dir: dir, tpm: tpm, network: network}
	c.guest = &guest{socket: c.path("guest")}
	text, err := os.ReadFile(variables)
	if err := errors.Join(err, os.WriteFile(c.path("variables"), text, 0o600)); err != nil {
		return nil, fmt.Errorf("%w: run test/setup/debian-root.sh", err)
	}
	kernel, err := os.ReadFile(filepath.Join(root, "vmlinuz"))
	if err := errors.Join(err, os.WriteFile(c.path("kernel"), kernel, 0o600)); err != nil {
		return nil, err
	}
	output, err := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-d", root, c.path("disk"), diskSize).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make the disk: %w: %s", err, output)
	}
	_, err = os.Stat("/dev/kvm")
	c.emulated = err != nil
	return c, nil
}

func (c *computer) path(name string) string { return filepath.Join(c.dir, name) }

// boot switches on and returns when the guest answers; jobs of its boot may be left.
// /dev/kvm may be there and be no use: then, and from then on, the computer is emulated.
func (c *computer) boot(ctx context.Context, kernel ...string) error {
	err := c.bootOnce(ctx, kernel)
	if err == nil || c.emulated {
		return err
	}
	c.emulated = true
	return errors.Join(c.cut(), c.bootOnce(ctx, kernel))
}

func (c *computer) bootOnce(ctx context.Context, kernel []string) error {
	if err := c.plugTPM(ctx); err != nil {
		return err
	}
	if err := c.switchOn(ctx, kernel); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	if err := c.await(ctx, c.dead); err != nil {
		return fmt.Errorf("boot: %w\n%s\n%s", err, c.tail("qemu"), c.tail("console"))
	}
	return nil
}

func (c *computer) switchOn(ctx context.Context, kernel []string) error {
	log, err := os.Create(c.path("qemu"))
	if err != nil {
		return err
	}
	defer log.Close()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", c.arguments(kernel)...)
	qemu.Stdout, qemu.Stderr = log, log
	if err := qemu.Start(); err != nil {
		return fmt.Errorf("%w: run test/setup/debian-root.sh", err)
	}
	c.qemu, c.ended = qemu.Process, make(chan struct{})
	go func(ended chan<- struct{}) { defer close(ended); _ = qemu.Wait() }(c.ended)
	return nil
}

// plugTPM starts the TPM without power: QEMU gives it, and the firmware starts it up. It
// ends when QEMU does.
func (c *computer) plugTPM(ctx context.Context) error {
	control := c.path("tpm")
	_ = os.Remove(control) // of the boot before
	swtpm := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+c.tpm.Dir(), "--ctrl", "type=unixio,mode=0600,path="+control, "--log", "level=1,file="+c.path("tpm.log"))
	if err := swtpm.Start(); err != nil {
		return err
	}
	go func() { _ = swtpm.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return world.Await(ctx, func(context.Context) error { _, err := os.Stat(control); return err })
}

func (c *computer) arguments(kernel []string) []string {
	accelerator := []string{"-accel", "kvm", "-cpu", "host"}
	if c.emulated {
		accelerator = []string{"-accel", "tcg", "-cpu", "max"}
	}
	return append(accelerator, "-machine", "q35", "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:"+c.path("console"),
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+firmware,
		"-drive", "if=pflash,format=raw,unit=1,file="+c.path("variables"),
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+c.path("disk"), "-device", "nvme,drive=disk,serial=omen",
		"-chardev", "socket,id=tpm,path="+c.path("tpm"), "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm",
		"-netdev", "user,id=network,"+c.network, "-device", "virtio-net-pci,netdev=network",
		"-chardev", "socket,id=guest,server=on,wait=off,path="+c.socket,
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=guest,name=org.qemu.guest_agent.0",
		"-kernel", c.path("kernel"),
		"-append", strings.Join(append([]string{commandLine}, kernel...), " "))
}

// dead is why no guest will answer any more. QEMU stays when the kernel's virtualisation
// gives up.
func (c *computer) dead() error {
	select {
	case <-c.ended:
		return errors.New("QEMU has ended")
	default:
	}
	if strings.Contains(c.tail("qemu"), "KVM internal error") {
		return errors.New("/dev/kvm does not serve")
	}
	return nil
}

// tail is the end of what is in a file of the folder.
func (c *computer) tail(name string) string {
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-10000):])
}

// awaitOff waits until the computer has switched itself off, or would start again.
func (c *computer) awaitOff() error {
	select {
	case <-c.ended:
		return c.hangUp()
	case <-time.After(answers):
		return errors.New("the computer does not switch itself off:\n" + c.tail("console"))
	}
}

// cut cuts its power.
func (c *computer) cut() error {
	if c.qemu == nil {
		return nil
	}
	if err := c.qemu.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return c.awaitOff()
}
