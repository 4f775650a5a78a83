// SPDX-License-Identifier: Apache-2.0

// Package alarm says how urgent it is that somebody looks at a certificate, in
// steps that come from its own lifetime: one of a day and one of three months
// are treated alike.
//
// It knows times and nothing else. It reads no clock and raises nothing itself.
package alarm
