// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"funlab.casa/omen/test/cluster"
)

// processorTime is what the servers of a cluster and their plugins have used.
func processorTime(c *cluster.Cluster) (sum time.Duration, err error) {
	for _, node := range c.Nodes {
		server, failed := node.Server()
		plugins, failedToo := node.Plugins()
		if err := errors.Join(failed, failedToo); err != nil {
			return 0, err
		}
		for _, p := range append(plugins, server) {
			used, err := processorTimeOf(p.PID)
			if err != nil {
				return 0, err
			}
			sum += used
		}
	}
	return sum, nil
}

// tick is the unit of /proc/PID/stat, everywhere but on Alpha and IA-64.
const tick = 10 * time.Millisecond

func processorTimeOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(text))
}

// parseStat reads user and system time, fields 14 and 15 of proc_pid_stat(5). The
// second field is the program's name in brackets and may hold anything.
func parseStat(text string) (time.Duration, error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("too few fields in the state of a process")
	}
	user, err := strconv.ParseUint(fields[11], 10, 48)
	system, failed := strconv.ParseUint(fields[12], 10, 48)
	return time.Duration(user+system) * tick, errors.Join(err, failed)
}
