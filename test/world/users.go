// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// A User is an account of a host.
type User struct {
	Name     string
	UID, GID int
}

// addUsers makes the accounts of the services. The group tss comes with
// tpm2-tools; a machine that has an account keeps it.
func (h *Host) addUsers(ctx context.Context) error {
	for _, account := range []struct{ name, home, groups string }{
		{"keylime", "/var/lib/keylime", "tss"},
		{"openbao", "/var/lib/openbao", ""},
	} {
		if _, err := h.User(account.name); err == nil {
			continue
		}
		args := []string{"--system", "--user-group", "--home-dir", account.home, "--no-create-home",
			"--shell", "/usr/sbin/nologin", account.name}
		if account.groups != "" {
			args = append([]string{"--groups", account.groups}, args...)
		}
		if _, err := h.Must(ctx, "useradd", args...); err != nil {
			return err
		}
	}
	return nil
}

// User looks an account up in the host's own user database.
func (h *Host) User(name string) (User, error) {
	text, err := h.ReadFile("/etc/passwd")
	if err != nil {
		return User{}, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 7 || fields[0] != name {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		if err != nil {
			return User{}, err
		}
		gid, err := strconv.Atoi(fields[3])
		return User{Name: name, UID: uid, GID: gid}, err
	}
	return User{}, fmt.Errorf("%s has no user %s", h.Name, name)
}

// group looks a group's ID up in the host's own database.
func (h *Host) group(name string) (gid int, err error) {
	text, err := h.ReadFile("/etc/group")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(line, ":"); len(fields) >= 3 && fields[0] == name {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, fmt.Errorf("%s has no group %s", h.Name, name)
}
