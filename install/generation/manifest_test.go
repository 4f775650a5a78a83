// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"slices"
	"testing"

	"funlab.casa/omen/install/record"
)

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":[{"name":"a","mode":420,"uid":0,"gid":0,"sha256":"00"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Manifest
		if record.Decode(text, &m) == nil && slices.ContainsFunc(m.Files, func(e Entry) bool { return !record.IsFileName(e.Name) }) {
			t.Errorf("accepted %+v", m)
		}
	})
}
