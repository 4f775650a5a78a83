// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// callers is the nice value of this process while hosts come back. They are
// machines of their own and take no processor time from the servers; here they
// would take so much that the nodes lose sight of each other.
const callers = 10

// behind runs do with all threads of this process behind those of the servers.
// A thread that is made meanwhile is as nice as the one that made it.
func behind(do func() error) error {
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	if err := nice(callers); err != nil {
		return err
	}
	err = do()
	return errors.Join(err, nice(20-before)) // the kernel's answer is 20 less the value
}

func nice(value int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, id, value)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("set priority %d: %w", value, err)
		}
	}
	return nil
}
