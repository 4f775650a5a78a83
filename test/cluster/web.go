// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"net/http"
	"time"

	"funlab.casa/omen/test/authority"
)

// webClient trusts the cluster's authority and nobody else, and follows nothing.
func webClient(ca *authority.Authority) *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS13},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
