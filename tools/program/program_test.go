// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestSourceDate: the date of the last commit, unless another is given.
func TestSourceDate(t *testing.T) {
	given, err := SourceDate(t.Context(), "../..", "86400")
	if err != nil || given.Format(time.RFC3339) != "1970-01-02T00:00:00Z" {
		t.Errorf("given: %v, %v", given, err)
	}
	last, err := SourceDate(t.Context(), "../..", "")
	if err != nil || last.Year() < 2026 || last.After(time.Now()) {
		t.Errorf("last commit: %v, %v", last, err)
	}
	if _, err := SourceDate(t.Context(), t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("no clone: %v", err)
	}
}

// TestNoLicence: a module that states no terms stops the release.
func TestNoLicence(t *testing.T) {
	if err := appendLicences(new(bytes.Buffer), "example.org/none v1.0.0", t.TempDir()); err == nil {
		t.Error("a module without a licence goes out")
	}
}

// TestPackageURL: escaped and in lower case, as the purl type golang wants.
func TestPackageURL(t *testing.T) {
	for want, module := range map[string][2]string{
		"pkg:golang/github.com/burntsushi/toml@v1.6.0":             {"github.com/BurntSushi/toml", "v1.6.0"},
		"pkg:golang/github.com/x/y@v1.0.0%2Bincompatible":          {"github.com/x/y", "v1.0.0+incompatible"},
		"pkg:golang/golang.org/x/sys@v0.0.0-20260101000000-abcdef": {"golang.org/x/sys", "v0.0.0-20260101000000-abcdef"},
	} {
		if got := packageURL(module[0], module[1]); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
