// SPDX-License-Identifier: Apache-2.0

package record

import "testing"

func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"version":1,"from":1,"to":2,"adopted":-1,"link_made":false,"written":[{"component":"verifier","changed":true,"places":[{"name":"x","before":{"mode":256,"uid":0,"gid":0}}]}],"outputs":[],"services":["keylime-verifier"]}`))
	f.Add([]byte(`{"version":1,"folder":{"generation":0,"mode":493,"uid":0,"gid":0,"files":[{"name":"a","mode":1,"uid":0,"gid":0}]},"drop_ins":[],"outputs":[],"services":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var j Journal
		if Decode(text, &j) == nil && (!isNumber(j.From) || j.To < 0 || len(j.Services) > MaxEntries) {
			t.Errorf("accepted %+v", j)
		}
		var r Found
		if Decode(text, &r) == nil && r.Folder != nil && r.Folder.Generation < 0 {
			t.Errorf("accepted %+v", r)
		}
	})
}
