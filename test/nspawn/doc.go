// SPDX-License-Identifier: Apache-2.0

// Package nspawn boots a Debian with a real systemd as process 1, by systemd-nspawn, for
// tests. A program that uses it calls [Become] first.
//
// It leaves nothing: processes, control groups and files of a container end with it.
package nspawn
