// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// freePorts finds ports of 127.0.0.1 that nobody listens on. They are below the
// ones that the kernel gives to outgoing connections, so that a node that is down
// for a while finds its own again.
func freePorts(count int) (ports []int, err error) {
	var open []net.Listener
	defer func() {
		for _, l := range open {
			err = errors.Join(err, l.Close())
		}
	}()
	for range 100 * count {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		open, ports = append(open, l), append(ports, port)
		if len(ports) == count {
			return ports, nil
		}
	}
	return nil, errors.New("find free ports: none between 20000 and 32000")
}
