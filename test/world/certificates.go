// SPDX-License-Identifier: Apache-2.0

package world

// BaoCAFile is where every host has the CA of the OpenBao listener. That CA is not
// the Book of Omens: that one lives in OpenBao, and cannot vouch for the server it
// is in.
const BaoCAFile = "/etc/omen-agent/openbao-ca.pem"
