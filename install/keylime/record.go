// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/remedy"
)

// record is what must be remembered of a component to leave it as it was found. It
// lies beside the main file, hidden, for root alone; without anything to remember
// there is none.
type record struct {
	Folder bool    `json:"folder,omitempty"` // conf.d is ours
	Edit   *edited `json:"edit,omitempty"`   // the main file has settings of ours
}

// edited is what was done to a main file.
type edited struct {
	Backup string   `json:"backup,omitempty"` // the main file as it was found; "": there was none here
	Keys   []string `json:"keys"`             // what we set
	Wrote  string   `json:"wrote,omitempty"`  // SHA-256 of backup with these keys; "": others have changed more than them since
}

func mainName(component string) string   { return component + ".conf" }
func folderName(component string) string { return component + ".conf.d" }
func recordName(component string) string { return "." + component + ".conf.omen" }

// maxRecord bounds a record, in bytes.
const maxRecord = 16 << 10

func readRecord(config *beneath.Dir, component string) (*Entry, record, error) {
	var r record
	e, err := read(config, recordName(component))
	if err != nil || e == nil {
		return nil, r, err
	}
	if len(e.Content) > maxRecord {
		err = errors.New("too large")
	} else if err = json.Unmarshal(e.Content, &r); err == nil {
		err = r.check(component)
	}
	if err != nil {
		path := config.Path() + "/" + recordName(component)
		return e, r, remedy.Errorf("set "+mainName(component)+" right by hand from its backup, then remove "+path, "record %s: %w", path, err)
	}
	return e, r, nil
}

// check refuses what none of ours says: the folder belongs to Keylime, and a name
// from it becomes a path.
func (r record) check(component string) error {
	if r.Edit == nil {
		return nil
	}
	if b := r.Edit.Backup; b != "" && (!strings.HasPrefix(b, mainName(component)+".backup-") || strings.Contains(b, "/")) {
		return fmt.Errorf("%q is no backup", b)
	}
	return nil
}

// entry is the record as a file, nil where there is nothing to remember. A record
// that says the same keeps its bytes.
func (r record) entry(old *Entry) (*Entry, error) {
	if !r.Folder && r.Edit == nil {
		return nil, nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	if old != nil && bytes.Equal(old.Content, text) {
		return old, nil
	}
	return &Entry{Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid(), Content: text}, nil
}

func sum(text []byte) string {
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
}
