// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Audience is the canonical name of one mount at one dialled address:
//
//	https://host:port|namespace/|auth/mount
//
// Scheme and host are lower case, the port is explicit, an IPv6 address stands
// in brackets, the root namespace is empty. A quote is bound to it, so that one
// server cannot pass a host's proof on to another.
func Audience(address, namespace, mount string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("address: %w", err)
	}
	if !strings.EqualFold(u.Scheme, "https") || u.Hostname() == "" {
		return "", errors.New("address is not https://host[:port]")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", errors.New("address has more than scheme, host and port")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if namespace = strings.Trim(namespace, "/"); namespace != "" {
		namespace += "/"
	}
	mount = strings.Trim(mount, "/")
	if !strings.HasPrefix(mount, "auth/") || strings.Contains(mount+namespace, "|") {
		return "", errors.New("mount is not auth/<path>")
	}
	host := net.JoinHostPort(strings.ToLower(u.Hostname()), port)
	return "https://" + host + "|" + namespace + "|" + mount, nil
}
