// SPDX-License-Identifier: Apache-2.0

package rival

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// What a script should not have. A value that is taken from elsewhere is no token.
var (
	tokenPattern    = regexp.MustCompile("(?:((?:BAO|VAULT)_TOKEN)[ \t]*=|(X-Vault-Token):)[ \t]*[\"']?[^\\s\"'$`]")
	insecurePattern = regexp.MustCompile("((?:BAO|VAULT)_SKIP_VERIFY)[ \t]*=[ \t]*[\"']?(?i:1|t|true|yes)\\b|(-tls-skip-verify)\\b")
	programPattern  = regexp.MustCompile(`/[A-Za-z0-9@%_+.,:/-]+`)
	wordPattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]*$`)
)

// Where programs are looked for that are named without a folder.
var programFolders = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// How far scripts are followed.
const (
	maxDepth    = 2  // a script that starts a script
	maxPrograms = 64 // of one unit or line
)

// evidence is what speaks for a rival.
type evidence struct {
	strength strength
	reason   string
	remarks  []string
}

// strength orders what was seen.
type strength int

const (
	nothing strength = iota
	asks             // for certificates of this CA, for whomever
	names            // the folder
	renews           // names the folder, or Keylime, and asks for certificates
)

// commands judges what a unit or a line starts, and the rest of its text.
func (l *look) commands(starts []string, rest string) evidence {
	e := evidence{}
	foreign := len(starts) == 0
	for _, start := range starts {
		if isOurs(start) {
			continue
		}
		foreign = true
		e.add(l.text("its command", start))
		for _, program := range l.programs(start) {
			e.add(l.script(program, 1))
		}
	}
	if foreign {
		e.add(l.text("it", rest))
	}
	return e
}

// add takes the stronger reason and every remark.
func (e *evidence) add(other evidence) {
	if other.strength > e.strength {
		e.strength, e.reason = other.strength, other.reason
	}
	for _, remark := range other.remarks {
		if !slices.Contains(e.remarks, remark) {
			e.remarks = append(e.remarks, remark)
		}
	}
}

// isOurs reports that a command line starts omen-agent and nothing else.
func isOurs(start string) bool {
	words := strings.Fields(strings.TrimLeft(start, "-@:+!| \t"))
	return len(words) > 0 && path.Base(words[0]) == "omen-agent" && !strings.ContainsAny(start, ";|&<>`$")
}

// programs lists the files that a command line names, and the programs that it
// may mean.
func (l *look) programs(start string) []string {
	found := programPattern.FindAllString(start, maxPrograms)
	for _, word := range strings.FieldsFunc(start, func(r rune) bool { return strings.ContainsRune(" \t\"';|&()", r) }) {
		word = strings.TrimLeft(word, "-@:+!")
		if !wordPattern.MatchString(word) || len(found) >= maxPrograms {
			continue
		}
		for _, folder := range programFolders {
			if l.files.has(folder, word) {
				found = append(found, folder+"/"+word)
				break
			}
		}
	}
	return found
}

// script judges a file that is started, and the files that it names.
func (l *look) script(name string, depth int) evidence {
	name = path.Clean(name)
	if slices.ContainsFunc(l.Folders, func(folder string) bool { return strings.HasPrefix(name, folder+"/") }) {
		return evidence{} // keys lie there
	}
	file := l.files.read(name)
	if file == nil || !isText(file.content) || path.Base(name) == "omen-agent" {
		return evidence{}
	}
	e := l.text(name, file.content)
	if e.strength > nothing {
		l.seen[name] = true
	}
	if depth < maxDepth {
		for _, next := range programPattern.FindAllString(withoutComments(file.content), maxPrograms) {
			if path.Clean(next) != name {
				e.add(l.script(next, depth+1))
			}
		}
	}
	return e
}

// isText tells scripts from programs.
func isText(content string) bool {
	return !strings.Contains(content[:min(len(content), head)], "\x00")
}

// withoutComments takes out the lines that are comments of a shell.
func withoutComments(content string) string {
	var kept strings.Builder
	for line := range strings.Lines(content) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// text judges one text; who is its name for people.
func (l *look) text(who, content string) evidence {
	content = withoutComments(content)
	folder, mount := l.folderIn(content), l.mountIn(content)
	e := evidence{}
	switch {
	case folder != "" && mount != "":
		e.strength, e.reason = renews, fmt.Sprintf("%s names %s and asks %s for certificates", who, folder, mount)
	case folder != "":
		e.strength, e.reason = names, fmt.Sprintf("%s names %s", who, folder)
	case mount != "" && strings.Contains(strings.ToLower(content), "keylime"):
		e.strength, e.reason = renews, fmt.Sprintf("%s asks %s for certificates of Keylime", who, mount)
	case mount != "":
		e.strength, e.reason = asks, fmt.Sprintf("%s asks %s for certificates", who, mount)
	}
	if name := firstGroup(tokenPattern, content, "_TOKEN", "X-Vault-Token"); name != "" {
		e.remarks = append(e.remarks, fmt.Sprintf("%s holds a token (%s): revoke it", who, name))
	}
	if name := firstGroup(insecurePattern, content, "_SKIP_VERIFY", "-tls-skip-verify"); name != "" {
		e.remarks = append(e.remarks, fmt.Sprintf("%s trusts whatever server answers (%s)", who, name))
	}
	return e
}

// firstGroup is what matched; the words, of which there must be one, spare most
// texts the pattern.
func firstGroup(pattern *regexp.Regexp, content string, words ...string) string {
	if !slices.ContainsFunc(words, func(word string) bool { return strings.Contains(content, word) }) {
		return ""
	}
	match := pattern.FindStringSubmatch(content)
	for _, group := range match[min(1, len(match)):] {
		if group != "" {
			return group
		}
	}
	return ""
}

// folderIn finds one of the folders as a whole path.
func (l *look) folderIn(content string) string {
	for _, folder := range l.Folders {
		for rest := content; ; {
			_, behind, found := strings.Cut(rest, folder)
			if !found {
				break
			}
			if behind == "" || !strings.ContainsAny(behind[:1], "_.-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				return folder
			}
			rest = behind
		}
	}
	return ""
}

// mountIn finds a request for a certificate: issue makes the key too, sign does not.
func (l *look) mountIn(content string) string {
	for _, mount := range l.Mounts {
		for _, verb := range []string{"/issue/", "/sign/", "/sign-verbatim/"} {
			if strings.Contains(content, mount+verb) {
				return mount + strings.TrimSuffix(verb, "/")
			}
		}
	}
	return ""
}
