// SPDX-License-Identifier: Apache-2.0

package markdown

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const page = "# Title\n\nOne file, `/etc/a-b.toml`; see [there](x.md#y).\n\n## [table]\n\n" +
	"| Key | Default | Meaning |\n|---|---|---|\n| `name` | required | A **bold** word\\|. |\n| `ttl` | `24h` | Life. |\n\n" +
	"### Below\n\n* one\n* .two, *three* and it's four\n\n```toml\n[a]\n.b = 'c\\d'\n```\n\nThe end.\n"

const want = `.TH AGENT.TOML 5 2026-11-24 "x v1"
.SH NAME
agent.toml \- words
.SH DESCRIPTION
One file, \fB/etc/a\-b.toml\fR; see there.
.SH [table]
.TP
\fBname\fR
A \fBbold\fR word|. Required.
.TP
\fBttl\fR
Life. Default: \fB24h\fR.
.SS Below
.IP \(bu 2
one
.IP \(bu 2
\&.two, \fIthree\fR and it\(aqs four
.PP
.RS 4
.nf
[a]
\&.b = \(aqc\ed\(aq
.fi
.RE
.PP
The end.
.SH SEE ALSO
.BR x (1),
.BR y (5)
`

var title = Title{
	Name: "agent.toml", Section: 5, Date: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Version: "x v1",
	Summary: "words", SeeAlso: []string{"x(1)", "y(5)"},
}

func TestManual(t *testing.T) {
	got, err := Manual([]byte(page), title)
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	file := filepath.Join(t.TempDir(), "agent.toml.5")
	if err := os.WriteFile(file, got, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
}

// TestUnsayable: what would be lost is an error.
func TestUnsayable(t *testing.T) {
	for _, text := range []string{"![picture](x.png)\n", "<div>x</div>\n", "> quoted\n", "1. first\n2. second\n", "a <b>c</b>\n", "| a |\n|---|\n| ![x](y) |\n"} {
		if got, err := Manual([]byte(text), title); err == nil || !strings.Contains(err.Error(), "no way to say") {
			t.Errorf("%q: %v\n%s", text, err, got)
		}
	}
}
