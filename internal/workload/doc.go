// SPDX-License-Identifier: Apache-2.0

// Package workload serves one X.509-SVID and the bundle of its trust domain to
// processes of this host, by the SPIFFE Workload API on a unix socket.
//
// The kernel says whose process it is that asks (SO_PEERCRED, unix(7)); only users that
// are listed get anything, root too only if it is. Of the API it has FetchX509SVID and
// FetchX509Bundles, both kept open and answered again when the certificate has changed;
// everything else is Unimplemented. It speaks gRPC over HTTP/2 as far as these two calls
// need it: google.golang.org/grpc would be a quarter more of the agent's binary.
//
// The package never reads or writes a file but its socket, never logs what it hands out,
// never listens on a network, and hands out nothing to whoever does not send the header
// workload.spiffe.io.
package workload
