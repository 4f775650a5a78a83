// SPDX-License-Identifier: Apache-2.0

package remedy

import (
	"errors"
	"fmt"
)

// Error is an error with a remedy. Its text is the text of Err alone.
type Error struct {
	Err  error
	Hint string // what to do, one sentence without a full stop
}

// Error returns the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an error made as by fmt.Errorf, with a hint.
func Errorf(hint, format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Hint: hint}
}

// Of returns the hint nearest to the surface of err, or "" when there is none.
func Of(err error) string {
	var with *Error
	if errors.As(err, &with) {
		return with.Hint
	}
	return ""
}
