// SPDX-License-Identifier: Apache-2.0

// Package doctor looks for everything that would keep a host's certificates from
// being renewed and served, and says of each finding what mends it.
//
// [Checks] lists the checks in the order of a renewal: configuration, TPM, OpenBao,
// login, PKI, installed files, Keylime, services, our own units, what is done for other
// programs, rivals. [Doctor.Examine] makes them
// one after the other, each within its own time, and goes on after one that fails.
// What another check has found to be missing is not looked at again: the result says
// so. The checks of one subject are in one file; most ask what another package offers
// for looking only, and judge nothing that it has judged.
//
// It needs no sound configuration. It never installs, restarts, mends or writes
// anything, keeps neither token nor handle, and asks the CA for nothing but names that
// no host has, over a key that is thrown away at once. Of secrets it tells where they
// are, never what they are.
package doctor
