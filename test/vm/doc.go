// SPDX-License-Identifier: Apache-2.0

// Package vm boots a computer with the packages installed: a real kernel with its driver
// for a TPM behind /dev/tpmrm0, UEFI firmware (OVMF) that measures and keeps an event
// log, udev, a network that comes up, sleep and a clock that is set. QEMU is the
// computer, by the machine's virtualisation where that serves, else by emulation.
//
// Its tests run with make test-long, on amd64. They open no network but the one of
// their world, and nothing of them outlives the test.
package vm
