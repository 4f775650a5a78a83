// SPDX-License-Identifier: Apache-2.0

// Package soak is one long life of an agent in a few minutes: two hundred renewals with
// real parts, faults at random, and nothing that grows. Its tests run with make test-long.
package soak
