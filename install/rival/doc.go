// SPDX-License-Identifier: Apache-2.0

// Package rival finds who else renews certificates on a host: timers and other
// units of systemd, and lines and scripts of cron, that name the folder of a set
// or ask the same CA for certificates.
//
// It reads files: units with their drop-ins, the links that enable them, crontabs,
// and the scripts that they start. What is enabled, or runs now, is active; the
// rest is worth a warning. A line of cron is active only if it runs as somebody who can
// write in the folder: no other user stops a renewal, and of what such a user's line
// names nothing is read. What omen-agent itself is started by never counts.
// The package starts nothing, waits for no pipe and no link, reads a bounded number of
// bounded regular files, none that the kernel makes up, judges each a bounded number of
// times, changes nothing, and never repeats a secret that it saw.
package rival
