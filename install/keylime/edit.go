// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"funlab.casa/omen/install/remedy"
)

// ErrNotEditable means that a main file is not one that settings can be changed in
// without touching anything else.
var ErrNotEditable = errors.New("cannot be edited")

// syntax is how a component's files are read and written.
type syntax struct {
	scan  func(text string) layout
	parse func(text string) (map[string]map[string]any, error)
	line  func(s Setting, before, end string) string // before: the line that it replaces
	same  func(parsed any, value string) bool
}

func (p Profile) syntax() syntax {
	if p.TOML {
		return syntax{scan: scanTOML, parse: parseTables, line: tomlText, same: sameTOML}
	}
	return syntax{scan: scanINI, parse: parseSections, line: iniText, same: func(parsed any, value string) bool { return parsed == value }}
}

func iniText(s Setting, before, end string) string {
	return indentOf(before) + s.Key + " = " + s.Value + end
}

func tomlText(s Setting, before, end string) string {
	return indentOf(before) + s.Key + " = " + s.toml() + remark(before) + end
}

// toml is the value in TOML: booleans as they are, everything else as a string.
func (s Setting) toml() string {
	if s.Value == "true" || s.Value == "false" {
		return s.Value
	}
	return `"` + s.Value + `"`
}

func sameTOML(parsed any, value string) bool {
	return parsed == value || parsed == true && value == "true" || parsed == false && value == "false"
}

func parseSections(text string) (map[string]map[string]any, error) {
	if faults := scanINI(text).faults; len(faults) > 0 {
		return nil, errors.New(faults[0])
	}
	found := map[string]map[string]any{}
	for section, values := range parseINI(text) {
		found[section] = map[string]any{}
		for key, value := range values {
			found[section][key] = value
		}
	}
	return found, nil
}

// parseTables reads TOML; what stands outside of every table is in table "".
func parseTables(text string) (map[string]map[string]any, error) {
	var all map[string]any
	if _, err := toml.Decode(text, &all); err != nil {
		return nil, err
	}
	found := map[string]map[string]any{"": {}}
	for name, value := range all {
		if table, is := value.(map[string]any); is {
			found[name] = table
		} else {
			found[""][name] = value
		}
	}
	return found, nil
}

// set returns text with settings in the component's section: one that is there is
// changed where it stands, others are added behind the last one there. That
// nothing else has changed is judged by parsing both.
func (p Profile) set(path, text string, settings []Setting) (string, error) {
	how := p.syntax()
	before, err := how.parse(text)
	if err == nil {
		err = p.checkSpelling(before)
	}
	if err != nil {
		return "", remedy.Errorf("mend the file, Keylime does not read it either; or take the line mode = \"edit\" out", "%s %w: %w", path, ErrNotEditable, err)
	}
	result := text
	for _, s := range settings {
		l := how.scan(result)
		if found := l.find(p.Component, s.Key); found == nil {
			result = l.added(p.Component, how.line(s, "", l.ending()))
		} else if !how.same(before[p.Component][s.Key], s.Value) {
			result = l.with(found, how.line(s, l.lines[found.lines[0]], l.ending()))
		}
	}
	after, err := how.parse(result)
	if err != nil || !onlyChanged(before, after, p.Component, settings, how.same) {
		return "", remedy.Errorf("write its settings one a line, or take the line mode = \"edit\" out", "%s %w: its form is not understood", path, ErrNotEditable)
	}
	return result, nil
}

// checkSpelling refuses a section that people take for the component's.
func (p Profile) checkSpelling(parsed map[string]map[string]any) error {
	for section := range parsed {
		if section != p.Component && strings.EqualFold(strings.TrimSpace(section), p.Component) {
			return errors.New("section [" + section + "] is not [" + p.Component + "]")
		}
	}
	return nil
}

// onlyChanged compares two files setting by setting.
func onlyChanged(before, after map[string]map[string]any, section string, settings []Setting, same func(any, string) bool) bool {
	without := func(all map[string]map[string]any) map[string]map[string]any {
		rest := maps.Clone(all)
		rest[section] = maps.Clone(all[section])
		if rest[section] == nil {
			rest[section] = map[string]any{}
		}
		for _, s := range settings {
			delete(rest[section], s.Key)
		}
		return rest
	}
	for _, s := range settings {
		if !same(after[section][s.Key], s.Value) {
			return false
		}
	}
	return reflect.DeepEqual(without(before), without(after))
}

// restored returns text with keys as they stand in original; a key that original
// does not have is taken away.
func (p Profile) restored(text, original string, keys []string) string {
	how := p.syntax()
	from := how.scan(original)
	for _, key := range slices.Sorted(slices.Values(keys)) {
		l := how.scan(text)
		found := l.find(p.Component, key)
		if found == nil {
			continue
		}
		raw := ""
		if old := from.find(p.Component, key); old != nil {
			raw = from.raw(old)
		}
		text = l.with(found, raw)
	}
	return text
}
