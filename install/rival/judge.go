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
	maxRemarks  = 8  // on one
)

// evidence is what speaks for a rival.
type evidence struct {
	strength strength
	reason   string
	folders  []string // that are named
	remarks  []string
}

// visit is a script as it was come to.
type visit struct {
	name  string
	depth int
}

// strength orders what was seen.
type strength int

const (
	nothing strength = iota
	asks             // for certificates of this CA, for whomever
	names            // the folder
	renews           // names the folder, or Keylime, and asks for certificates
)

// commands judges what a unit or a line starts, each with judge; rest speaks for what
// is not of ours alone.
func (l *look) commands(starts []string, rest evidence, judge func(start string) evidence) evidence {
	e := evidence{}
	foreign := len(starts) == 0
	for _, start := range starts {
		if !isOurs(start) {
			foreign = true
			e.add(judge(start))
		}
	}
	if foreign {
		e.add(rest)
	}
	return e
}

// started judges a command line with the scripts that it starts.
func (l *look) started(start string) evidence {
	e := l.said(start)
	for _, program := range l.programs(start) {
		e.add(l.script(path.Clean(program), 1))
	}
	return e
}

// said judges a command line by its words, and opens nothing.
func (l *look) said(start string) evidence { return l.text("its command", start) }

// add takes the stronger reason, every folder and the first remarks.
func (e *evidence) add(other evidence) {
	if other.strength > e.strength {
		e.strength, e.reason = other.strength, other.reason
	}
	e.folders = merged(e.folders, other.folders)
	e.remarks = merged(e.remarks, other.remarks)
	e.remarks = e.remarks[:min(len(e.remarks), maxRemarks)]
}

// merged adds what is not among all yet.
func merged(all, more []string) []string {
	for _, one := range more {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
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

// script judges a file that is started, and the files that it names. It does so once,
// or scripts that name each other would cost the product of their numbers.
func (l *look) script(name string, depth int) evidence {
	at := visit{name, depth}
	e, judged := l.verdicts[at]
	if !judged && l.files.ctx.Err() == nil {
		e = l.judge(name, depth)
		l.verdicts[at] = e
	}
	return e
}

func (l *look) judge(name string, depth int) evidence {
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
			if next = path.Clean(next); next != name {
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
	mount := l.mountIn(content)
	e := evidence{folders: l.foldersIn(content)}
	switch {
	case len(e.folders) > 0 && mount != "":
		e.strength, e.reason = renews, fmt.Sprintf("%s names %s and asks %s for certificates", who, e.folders[0], mount)
	case len(e.folders) > 0:
		e.strength, e.reason = names, fmt.Sprintf("%s names %s", who, e.folders[0])
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

// foldersIn finds those of the folders that are named as a whole path.
func (l *look) foldersIn(content string) []string {
	var found []string
	for _, folder := range l.Folders {
		for rest := content; ; {
			_, behind, named := strings.Cut(rest, folder)
			if !named {
				break
			}
			if behind == "" || !strings.ContainsAny(behind[:1], "_.-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				found = append(found, folder)
				break
			}
			rest = behind
		}
	}
	return found
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
