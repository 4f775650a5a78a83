// SPDX-License-Identifier: Apache-2.0

// Package deps holds the rules about who may import whom, as a test. It has no
// code of its own and nothing imports it.
package deps
