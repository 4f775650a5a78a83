// SPDX-License-Identifier: Apache-2.0

// Command null is an auth plugin that does nothing, as a measure for one that
// does: it answers challenge and login with bodies of the size that the tpm
// method's have, forwards, looks ahead and resolves roles where that one does,
// and returns a batch token with as much in it.
//
// It lets everybody in. It is for the servers of this module's measurements,
// which listen on 127.0.0.1 and are gone afterwards.
package main
