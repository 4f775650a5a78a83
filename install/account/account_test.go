// SPDX-License-Identifier: Apache-2.0

package account

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func book(t *testing.T) Book {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nbroken\nkeylime:x:4711:4712:Keylime:/var/lib/keylime:/bin/false\nodd:x:many:0::/:/bin/sh",
		"group":  "root:x:0:\nkeylime:x:4712:\ntss:x:4713:other,keylime\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Of(root)
}

func TestFind(t *testing.T) {
	keylime := Account{Name: "keylime", Home: "/var/lib/keylime", UID: 4711, GID: 4712, Groups: []int{4713}}
	withTSS := keylime
	withTSS.GID = 4713
	for spec, want := range map[string]Account{"keylime": keylime, "4711": keylime, "keylime:tss": withTSS, "keylime:4713": withTSS} {
		got, err := book(t).Find(spec)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", spec, err, diff)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, root := range []Book{book(t), Of("/")} {
		for _, spec := range []string{"", "no-such-user", "root:no-such-group", "4000000000"} {
			_, err := root.Find(spec)
			var unknown UnknownError
			if !errors.As(err, &unknown) {
				t.Errorf("%q: %v", spec, err)
			}
		}
	}
	if _, err := book(t).Find("odd"); err == nil {
		t.Error("a user whose number is none")
	}
}

func TestSystem(t *testing.T) {
	root, err := Of("/").Find("root:root")
	if err != nil || root.UID != 0 || root.GID != 0 || root.Home == "" {
		t.Errorf("%+v, %v", root, err)
	}
	if nameless := Of("/").ByUID(987654, 12); nameless.UID != 987654 || nameless.GID != 12 {
		t.Errorf("%+v", nameless)
	}
}
