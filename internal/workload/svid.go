// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// SVID is an X.509-SVID as it is handed out.
type SVID struct {
	ID       string        // spiffe://trust-domain/path
	Domain   string        // spiffe://trust-domain
	Chain    [][]byte      // DER, leaf first
	Key      func() []byte // DER of PKCS#8; a function, so that it prints nowhere
	Bundle   [][]byte      // DER, the roots of the trust domain
	NotAfter time.Time
}

// lookEvery is how often a change is looked for while somebody waits for one.
const lookEvery = time.Second

// source reads the SVID, at most once in lookEvery for all who ask.
type source struct {
	read  func() (*SVID, error)
	mutex sync.Mutex
	at    time.Time
	svid  *SVID
	err   error
}

func (s *source) get() (*SVID, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.at.IsZero() || time.Since(s.at) >= lookEvery {
		s.svid, s.err = s.read()
		s.at = time.Now()
	}
	return s.svid, s.err
}

// Fields of the messages, as workload.proto of the SPIFFE standards numbers them.
const (
	fieldSVIDs   = 1 // of X509SVIDResponse
	fieldID      = 1 // of X509SVID
	fieldChain   = 2
	fieldKey     = 3
	fieldBundle  = 4
	fieldBundles = 2 // of X509BundlesResponse: a map
	fieldMapKey  = 1
	fieldMapItem = 2
)

// x509SVIDResponse is the answer to FetchX509SVID.
func x509SVIDResponse(s *SVID) []byte {
	var one []byte
	one = appendField(one, fieldID, []byte(s.ID))
	one = appendField(one, fieldChain, joined(s.Chain))
	one = appendField(one, fieldKey, s.Key())
	one = appendField(one, fieldBundle, joined(s.Bundle))
	return appendField(nil, fieldSVIDs, one)
}

// x509BundlesResponse is the answer to FetchX509Bundles.
func x509BundlesResponse(s *SVID) []byte {
	var entry []byte
	entry = appendField(entry, fieldMapKey, []byte(s.Domain))
	entry = appendField(entry, fieldMapItem, joined(s.Bundle))
	return appendField(nil, fieldBundles, entry)
}

func appendField(b []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content)
}

func joined(parts [][]byte) (all []byte) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}
