// SPDX-License-Identifier: Apache-2.0

// Package systemd proves package install against a real systemd: a Debian 12
// is unpacked and booted in a container with a network of its own, Keylime's
// verifier and registrar run there from Keylime's own units, and these tests
// run inside, as root, beside them. Keylime's Rust agent is played by
// test/standin. Nothing plays systemd or D-Bus.
//
// The tests carry the build tag long, since they need root, minutes, and what
// test/setup/setup.sh and test/setup/debian-root.sh lay down:
//
//	sudo go test -race -count=1 -tags long ./test/systemd
//
// The container, its control groups and its root die with the test, however it
// ends. The package never touches a unit of the machine it runs on.
package systemd
