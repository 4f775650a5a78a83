// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/install/account"
)

// Untouched is a program that gets to its new files by itself: nobody tells, stops or
// starts it. It implements Controller.
type Untouched struct{ What string }

// Name is What.
func (u Untouched) Name() string { return u.What }

// Account is not known: root, who reads everything.
func (Untouched) Account() account.Account { return account.Account{Name: "root", Home: "/root"} }

// Environment is not known.
func (Untouched) Environment() []string { return nil }

// Executables are not known.
func (Untouched) Executables() []string { return nil }

// Startable says nothing against it: it is not stopped.
func (Untouched) Startable(context.Context, []string) error { return nil }

// Since is not known.
func (u Untouched) Since(context.Context) (time.Time, error) {
	return time.Time{}, errors.New(u.What + ": no process is known")
}

// Started is not known.
func (Untouched) Started(context.Context, Moment) (bool, error) { return false, nil }

// Reload does nothing.
func (Untouched) Reload(context.Context, Reload) error { return nil }

// Restart does nothing.
func (Untouched) Restart(context.Context) error { return nil }

// Restore does nothing.
func (Untouched) Restore(context.Context) error { return nil }

// Stop does nothing.
func (Untouched) Stop(context.Context) error { return nil }

// Alive is not known; a probe tells.
func (Untouched) Alive(context.Context) error { return nil }

// Close does nothing.
func (Untouched) Close() {}
