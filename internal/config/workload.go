// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
)

// WorkloadAPI says which certificate processes of this host get by the SPIFFE Workload
// API, and whose processes. Without it nothing is served.
type WorkloadAPI struct {
	Socket      string `toml:"socket"`
	Certificate string `toml:"certificate"` // name of a [[certificate]]
	Users       []User `toml:"users"`
}

// User is one user of this host, by name or by number.
type User string

// UnmarshalTOML takes a name or a number.
func (u *User) UnmarshalTOML(value any) error {
	switch v := value.(type) {
	case string:
		*u = User(v)
	case int64:
		*u = User(strconv.FormatInt(v, 10))
	default:
		return errors.New("a user is a name or a number")
	}
	return nil
}

// Number is the user's number, where it is given by number.
func (u User) Number() (uid uint32, ok bool) {
	n, err := strconv.ParseUint(string(u), 10, 32)
	return uint32(n), err == nil && n < math.MaxUint32 // the last one means nobody: chown(2)
}

const (
	defaultSocket = runFolder + "/workload.sock"
	maxSocket     = 107 // sun_path of unix(7), less its final zero
	maxUsers      = 32
)

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// On reports that it is configured.
func (w *WorkloadAPI) On() bool { return w.Socket != "" || w.Certificate != "" || len(w.Users) > 0 }

func (w *WorkloadAPI) fill() {
	if w.On() {
		setDefault(&w.Socket, defaultSocket)
	}
}

func (c *Config) checkWorkloadAPI() *fault {
	w := &c.WorkloadAPI
	at := func(key, hint, format string, args ...any) *fault {
		return wrong("workload_api", 0, key, hint, format, args...)
	}
	if !w.On() {
		return nil
	}
	if err := checkRunFile(w.Socket); err != nil {
		return at("socket", `an absolute path in a folder of root's, as "`+defaultSocket+`"`, "socket = %q: %w", w.Socket, err)
	}
	switch {
	case len(w.Socket) > maxSocket:
		return at("socket", "the kernel takes paths of at most 107 bytes", "socket = %q", w.Socket)
	case slices.ContainsFunc(c.Sinks, func(s Sink) bool { return s.File == w.Socket }):
		return at("socket", "choose another path", "socket = %q is the file of a sink", w.Socket)
	case len(w.Users) == 0:
		return at("users", "name whose processes get certificate and key; root too only if it is named", "no users")
	case len(w.Users) > maxUsers:
		return at("users", "at most 32", "%d users", len(w.Users))
	}
	for _, u := range w.Users {
		if _, number := u.Number(); !number && !userName.MatchString(string(u)) {
			return at("users", `names or numbers, as ["www-data", 998]`, "users: %q", string(u))
		}
	}
	if err := c.checkGiven(); err != nil {
		return at("certificate", "name a [[certificate]] of profile general with a uri, whose key is not in the TPM", "certificate = %q: %w", w.Certificate, err)
	}
	return nil
}

// checkGiven refuses a certificate that cannot be handed out, or must not be: who holds
// a key of Keylime's is a part of Keylime, or its administrator.
func (c *Config) checkGiven() error {
	i := slices.IndexFunc(c.Certificates, func(one Certificate) bool { return one.Name == c.WorkloadAPI.Certificate })
	if i < 0 {
		return errors.New("no certificate of that name")
	}
	switch one := c.Certificates[i]; {
	case one.Profile != General:
		return fmt.Errorf("profile %s: its key is for Keylime alone", one.Profile)
	case one.URI == "":
		return errors.New("it has no uri, which is its SPIFFE ID")
	case one.Key == "tpm" || one.Key == "auto" && one.LoadsTSS2:
		return fmt.Errorf("key = %q: what is in the TPM cannot be handed out", one.Key)
	}
	return nil
}
