// SPDX-License-Identifier: Apache-2.0

// Package account finds the users that services run as.
//
// On the real root it asks the system's own resolver; below another root it
// reads etc/passwd and etc/group there, so that an image or a test directory
// is judged by its own users. It never creates, changes or guesses a user.
package account
