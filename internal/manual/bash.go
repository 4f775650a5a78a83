// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Bash is the completion for bash. It needs nothing but bash 4.
func Bash(app *kong.Application) string {
	all := commands(app)
	var out strings.Builder
	fmt.Fprintf(&out, bashHead, app.Name, identifier(app.Name), strings.Join(valued(all), "|"))
	for _, c := range all[1:] {
		fmt.Fprintf(&out, "        %s) command=%s ;;\n", single(c.path), single(c.path))
	}
	out.WriteString("        esac\n    done\n    case \"$command $before\" in\n")
	for _, c := range all {
		for _, flag := range c.flags {
			out.WriteString(bashValue(c, flag))
		}
	}
	out.WriteString("    esac\n    case \"$command\" in\n")
	for _, c := range all {
		fmt.Fprintf(&out, "    %s) words=%s ;;\n", single(c.path), single(strings.Join(c.words(), " ")))
	}
	fmt.Fprintf(&out, bashTail, app.Name, identifier(app.Name))
	return out.String()
}

// %[1]s is the program, %[2]s its name as an identifier, %[3]s the flags that a word
// follows, which is no command then.
const bashHead = `# bash completion for %[1]s; made from its command line
_%[2]s() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' words='' i
    COMPREPLY=()
    # readline takes = for a word.
    if [[ $word == '=' ]]; then
        word=''
    elif [[ $before == '=' ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${COMP_WORDS[i]}" in
        %[3]s)
            [[ ${COMP_WORDS[i+1]} == '=' ]] && ((i++))
            ((i++))
            continue
            ;;
        esac
        case "${command:+$command }${COMP_WORDS[i]}" in
`

const bashTail = `    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
} &&
    complete -F _%[2]s %[1]s
`

func bashValue(c command, flag *kong.Flag) string {
	var action string
	switch {
	case !takesValue(flag):
		return ""
	case takesFile(flag):
		action = "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\")"
	case len(choices(flag)) > 0:
		action = "mapfile -t COMPREPLY < <(compgen -W " + single(strings.Join(choices(flag), " ")) + " -- \"$word\")"
	default:
		action = ":"
	}
	var patterns []string
	for _, spelling := range spellings(flag) {
		pattern := single(c.path + " " + spelling)
		if c.path == "" { // of the program: behind every command
			pattern = "*" + single(" "+spelling)
		}
		patterns = append(patterns, pattern)
	}
	return fmt.Sprintf("    %s)\n        %s\n        return\n        ;;\n", strings.Join(patterns, "|"), action)
}

// words are what can come next: commands, then flags.
func (c command) words() []string {
	var words []string
	for _, child := range c.children {
		words = append(words, child.Name)
	}
	for _, flag := range c.taken() {
		words = append(words, spellings(flag)...)
	}
	return words
}

// valued are the flags that a word follows.
func valued(all []command) []string {
	var words []string
	seen := map[string]bool{}
	for _, c := range all {
		for _, flag := range c.flags {
			for _, spelling := range spellings(flag) {
				if takesValue(flag) && !seen[spelling] {
					seen[spelling] = true
					words = append(words, spelling)
				}
			}
		}
	}
	return words
}

// identifier is a name as part of a function's.
func identifier(name string) string { return strings.NewReplacer("-", "_", " ", "_").Replace(name) }

// single is text in single quotes, for all three shells' words.
func single(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
