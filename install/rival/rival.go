// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"funlab.casa/omen/install/remedy"
)

// ErrActive means that something else renews the same certificates, and is
// switched on.
var ErrActive = errors.New("something else renews certificates here")

// Rival is one unit, line or script that renews certificates, or seems to.
type Rival struct {
	Name    string   `json:"name"`              // a unit, or a file, of a crontab with its line
	Active  bool     `json:"active"`            // it is enabled, or runs now, as somebody who can renew
	Reason  string   `json:"reason"`            // what tells
	Disable string   `json:"disable"`           // the command, or what a person does
	Remarks []string `json:"remarks,omitempty"` // what else is wrong with it
}

// String is for logs and people. It has no secret.
func (r Rival) String() string {
	return strings.Join(append([]string{r.Name + ": " + r.Reason}, r.Remarks...), "; ")
}

// Search says what to look for.
type Search struct {
	Root    string   // "" for "/"; every path is inside it
	Folders []string // absolute: whoever names one of them writes there
	Mounts  []string // PKI mounts, as "pki_int"
	Readers []string // units and files that name a folder and only read there
	// Active picks the units that are active of those given, which no file says of a
	// timer; nil where there is nobody to ask.
	Active func(ctx context.Context, units []string) ([]string, error)
}

// Find returns all rivals, the active ones first. The error says what could not be
// read; what was found is complete but for that.
func (s Search) Find(ctx context.Context) ([]Rival, error) {
	l, err := newLook(ctx, s)
	if err != nil {
		return nil, err
	}
	defer l.files.close()
	found := slices.Concat(l.units(), l.crontabs(), l.scripts(), l.harmless())
	found = slices.DeleteFunc(found, func(r Rival) bool { return l.known(r) })
	slices.SortStableFunc(found, func(a, b Rival) int { return rank(a) - rank(b) })
	return found, errors.Join(append(l.files.errs, ctx.Err())...)
}

func rank(r Rival) int {
	if r.Active {
		return 0
	}
	return 1
}

// known reports that a person has said that this one only reads.
func (l *look) known(r Rival) bool {
	file, _, _ := strings.Cut(r.Name, ":")
	return slices.Contains(l.Readers, r.Name) || slices.Contains(l.Readers, file)
}

// Refusal is ErrActive with every active rival and the commands that disable them,
// nil where there is none.
func Refusal(found []Rival) error {
	var who, how []string
	for _, r := range found {
		if r.Active {
			who = append(who, r.String())
			how = append(how, r.Disable)
		}
	}
	if len(who) == 0 {
		return nil
	}
	return remedy.Errorf(strings.Join(how, "; "), "%w: %s", ErrActive, strings.Join(who, "; "))
}

// look is one search under way.
type look struct {
	Search
	files    *files
	people   people
	seen     map[string]bool // scripts that belong to a rival
	verdicts map[visit]evidence
}

func newLook(ctx context.Context, s Search) (*look, error) {
	if s.Root == "" {
		s.Root = "/"
	}
	for _, folder := range s.Folders {
		if !path.IsAbs(folder) {
			return nil, fmt.Errorf("folder %q is not absolute", folder)
		}
	}
	opened, err := openFiles(ctx, s.Root)
	if err != nil {
		return nil, err
	}
	l := &look{Search: s, files: opened, seen: map[string]bool{}, verdicts: map[visit]evidence{}}
	l.people = l.readPeople()
	return l, nil
}
