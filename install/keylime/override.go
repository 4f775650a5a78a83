// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"funlab.casa/omen/install/remedy"
)

var (
	// ErrOverridden means that something else than we decides one of our settings.
	ErrOverridden = errors.New("setting is overridden")
	// ErrMalformed means that a component cannot start with a file.
	ErrMalformed = errors.New("file stops Keylime")
	// ErrIgnored means that Keylime goes on as if a file, or a part of it, were not there.
	ErrIgnored = errors.New("not read by Keylime")
	// ErrStray means that Keylime reads a file that looks put aside.
	ErrStray = errors.New("hidden or put aside, and read by Keylime all the same")
)

// Finding is something in a component's configuration that people should know of.
type Finding struct {
	Path  string // of a file, or the name of an environment variable
	Key   string // "" where it is about the whole
	Err   error  // with path, key and remedy
	Stops bool   // with it our settings would not be what the component goes by
}

func finding(stops bool, hint, path, key string, cause error) Finding {
	where := path
	if key != "" {
		where += ": " + key
	}
	return Finding{Path: path, Key: key, Stops: stops, Err: remedy.Errorf(hint, "%s: %w", where, cause)}
}

// Stopping joins the findings that stop; nil where there is none.
func Stopping(found []Finding) error {
	var errs []error
	for _, f := range found {
		if f.Stops {
			errs = append(errs, f.Err)
		}
	}
	return errors.Join(errs...)
}

// Examine looks for what would decide our settings instead of us, or keep the
// component from reading them: the files that it reads, and the variables of its
// environment ("NAME=value"). What else people take for something that it is not
// is found too, and does not stop.
func (d DropIn) Examine(root string, environment []string) []Finding {
	var found []Finding
	if err := d.Profile.CheckMainFile(root); err != nil {
		found = append(found, Finding{Path: filepath.Join(root, ConfigDir, mainName(d.Profile.Component)), Err: err, Stops: true})
	}
	found = append(found, d.closedFolders(root)...)
	for _, path := range d.Profile.files(root) {
		if path != d.ownPath(root) {
			found = append(found, d.examineFile(root, path)...)
		}
	}
	if old := filepath.Join(root, ConfigDir, "keylime-agent.conf"); d.Profile.TOML && exists(old) {
		found = append(found, finding(false, "what is in it belongs into agent.conf", old, "", ErrIgnored))
	}
	return append(found, d.examineEnvironment(environment)...)
}

func (d DropIn) ownPath(root string) string {
	return filepath.Join(root, ConfigDir, folderName(d.Profile.Component), DropInFile)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// closedFolders finds folders on the way that the component's user cannot open.
func (d DropIn) closedFolders(root string) []Finding {
	var found []Finding
	for path, want := range map[string]uint32{filepath.Join(root, ConfigDir): 1, filepath.Dir(d.ownPath(root)): 5} {
		if info, err := os.Stat(path); err == nil && info.IsDir() && !d.mayOpen(info, want) {
			found = append(found, finding(true, "give the folder to the user of the service: chown keylime:keylime, chmod 500", path, "", ErrIgnored))
		}
	}
	return found
}

// examineFile judges one file of somebody else.
func (d DropIn) examineFile(root, path string) []Finding {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the main file
	}
	var found []Finding
	isMain := filepath.Base(path) == mainName(d.Profile.Component)
	if err == nil && !d.mayOpen(info, 4) {
		// Without its main file a component reads no drop-in either.
		found = append(found, finding(isMain, "chown keylime:keylime "+path+" && chmod 440 "+path+"; until then it counts for nothing", path, "", ErrIgnored))
	}
	if name := filepath.Base(path); !isMain && (name[0] == '.' || !strings.HasSuffix(name, ".conf")) {
		found = append(found, finding(false, "move it out of the folder: every file in there counts", path, "", ErrStray))
	}
	text, err := readText(path)
	if err != nil {
		return append(found, finding(true, "make it a file that can be read", path, "", err))
	}
	parsed, err := d.Profile.syntax().parse(string(text))
	if err != nil {
		return append(found, finding(true, "mend the file: Keylime does not start with it", path, "", errors.Join(ErrMalformed, err)))
	}
	if err := d.Profile.checkSpelling(parsed); err != nil {
		found = append(found, finding(false, "write ["+d.Profile.Component+"]", path, "", errors.Join(ErrIgnored, err)))
	}
	return append(found, d.overrides(root, path, parsed[d.Profile.Component])...)
}

// overrides finds our settings in a file that is read after them.
func (d DropIn) overrides(root, path string, values map[string]any) []Finding {
	hint := "take the setting out of that file, or give the file a name before " + DropInFile
	if d.Mode == InMain {
		hint = "take the setting out of that file: it counts more than the main file"
	}
	if !d.isAfter(root, path) {
		return nil
	}
	var found []Finding
	for _, setting := range d.Settings {
		if _, set := values[setting.Key]; set {
			found = append(found, finding(true, hint, path, setting.Key, ErrOverridden))
		}
	}
	return found
}

// isAfter reports that a file counts more than where our settings are.
func (d DropIn) isAfter(root, path string) bool {
	ours := filepath.Dir(path) == filepath.Dir(d.ownPath(root))
	if d.Mode != InMain {
		return ours && filepath.Base(path) > DropInFile
	}
	return ours || !d.Profile.TOML && filepath.Dir(path) == filepath.Join(root, VendorDir, folderName(d.Profile.Component))
}

func (d DropIn) examineEnvironment(environment []string) []Finding {
	prefix := "KEYLIME_" + strings.ToUpper(d.Profile.Component) + "_"
	decides := map[string]string{prefix + "CONFIG": "CONFIG"}
	for _, setting := range d.Settings {
		decides[prefix+strings.ToUpper(setting.Key)] = setting.Key
	}
	var found []Finding
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if key := decides[name]; key != "" {
			found = append(found, finding(true, "take the variable out of the unit (Environment=, EnvironmentFile=), or of what starts the service",
				"environment variable "+name, "", ErrOverridden))
		}
	}
	return found
}
