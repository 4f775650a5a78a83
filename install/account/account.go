// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// Account is a user with everything a process needs to become it.
type Account struct {
	Name   string
	Home   string
	UID    int
	GID    int   // primary group, or the group named behind the colon
	Groups []int // supplementary groups
}

// UnknownError says that a user or group of that name does not exist.
type UnknownError struct{ Name string }

// Error names the missing user.
func (e UnknownError) Error() string { return fmt.Sprintf("unknown user or group %q", e.Name) }

// Book is the user database of one root directory.
type Book struct{ root string }

// Of returns the database of root; "/" is the running system.
func Of(root string) Book { return Book{root: root} }

// Find looks up "user", "user:group" or a number, the form of Keylime's run_as.
// An unknown name is an UnknownError.
func (b Book) Find(spec string) (Account, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	found, err := b.user(name)
	if err != nil || !hasGroup {
		return found, err
	}
	found.GID, err = b.group(group)
	return found, err
}

// ByUID looks up a user by number; one without a name is returned bare.
func (b Book) ByUID(uid, gid int) Account {
	found, err := b.user(strconv.Itoa(uid))
	if err != nil {
		found = Account{Name: strconv.Itoa(uid), Home: "/", UID: uid}
	}
	found.GID = gid
	return found
}

func (b Book) user(name string) (Account, error) {
	if b.root != "/" {
		return b.userFromFiles(name)
	}
	found, err := user.Lookup(name)
	if err != nil {
		found, err = user.LookupId(name)
	}
	if err != nil {
		return Account{}, UnknownError{name}
	}
	ids, err := found.GroupIds()
	if err != nil {
		return Account{}, fmt.Errorf("groups of %s: %w", name, err)
	}
	return assemble(found.Username, found.HomeDir, found.Uid, found.Gid, ids)
}

func (b Book) group(name string) (int, error) {
	if b.root != "/" {
		return b.groupFromFiles(name)
	}
	found, err := user.LookupGroup(name)
	if err != nil {
		found, err = user.LookupGroupId(name)
	}
	if err != nil {
		return 0, UnknownError{name}
	}
	return strconv.Atoi(found.Gid)
}

func assemble(name, home, uid, gid string, groups []string) (Account, error) {
	numbers := make([]int, 0, len(groups)+2)
	for _, text := range append([]string{uid, gid}, groups...) {
		number, err := strconv.Atoi(text)
		if err != nil {
			return Account{}, fmt.Errorf("user %s: number %q: %w", name, text, err)
		}
		numbers = append(numbers, number)
	}
	return Account{Name: name, Home: home, UID: numbers[0], GID: numbers[1], Groups: numbers[2:]}, nil
}
