// SPDX-License-Identifier: Apache-2.0

// Package vendors is the built-in bundle of TPM vendors' certificates: the roots
// of endorsement key certificates, each under the class of TPM it stands for,
// and the intermediate ones below them. [Roots] and [Intermediates] give them as
// PEM, [List] tells what each is and where it comes from.
//
// The files SOURCES and LEFTOUT say where the certificates were taken and which
// were left out, and why.
//
// This package never decides whether anybody is believed: that is for an
// operator's configuration and package attest/verify. It never holds an
// issuer of a software TPM, never fetches anything, and has no state.
package vendors
