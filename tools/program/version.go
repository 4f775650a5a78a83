// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// version is a semantic version that is a tag of an image as well: no "+".
var version = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// CheckVersion refuses what is no semantic version with v.
func CheckVersion(v string) error {
	if !version.MatchString(v) || len(v) > 64 {
		return fmt.Errorf("version %q: want vMAJOR.MINOR.PATCH, with -PRERELEASE perhaps", v)
	}
	return nil
}

// SourceDate is the time that every file that is made of the checkout source gets:
// epoch, in seconds, where there is one, else that of the last commit. See
// https://reproducible-builds.org/specs/source-date-epoch/.
func SourceDate(ctx context.Context, source, epoch string) (time.Time, error) {
	if epoch == "" {
		git := exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%ct")
		out, err := git.Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("find the time of the last commit: %w: outside a clone, set SOURCE_DATE_EPOCH", err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
