// SPDX-License-Identifier: Apache-2.0

// Package beneath reads and writes files below one directory descriptor.
//
// Every name is a single component, resolved by openat2 with RESOLVE_BENEATH
// and RESOLVE_NO_SYMLINKS, or, in a sandbox without openat2, with O_NOFOLLOW, which
// for one component is the same: a link planted in the way is an error and never a
// detour. A file gets its final owner and mode before its first byte, and is
// fsynced before it is closed; a directory is fsynced by Sync.
// The package never follows a link below the directory, never changes a file
// by path, never overwrites one in place and never removes more than one level.
package beneath
