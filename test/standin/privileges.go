// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// dropTo gives up root for run_as, "user:group", for good. The user's other
// groups are kept. Started as somebody else than root, the agent goes on as that.
func dropTo(runAs string) error {
	if os.Geteuid() != 0 {
		log.Print("not started as root: run_as is ignored")
		return nil
	}
	if runAs == "" {
		return nil
	}
	name, group, ok := strings.Cut(runAs, ":")
	if !ok {
		return errors.New("run_as is not user:group")
	}
	uid, groups, err := account(name)
	if err != nil {
		return err
	}
	found, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return err
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}

func account(name string) (uid int, groups []int, err error) {
	found, err := user.Lookup(name)
	if err != nil {
		return 0, nil, err
	}
	if uid, err = strconv.Atoi(found.Uid); err != nil {
		return 0, nil, err
	}
	ids, err := found.GroupIds()
	if err != nil {
		return 0, nil, err
	}
	for _, id := range ids {
		gid, err := strconv.Atoi(id)
		if err != nil {
			return 0, nil, err
		}
		groups = append(groups, gid)
	}
	return uid, groups, nil
}
