// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Fish is the completion for fish.
func Fish(app *kong.Application) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# fish completion for %s; made from its command line\ncomplete -c %s -f\n", app.Name, app.Name)
	for _, c := range commands(app) {
		for _, child := range c.children {
			fmt.Fprintf(&out, "complete -c %s -n %s -a %s -d %s\n", app.Name, fishQuote(c.fishNext()), fishQuote(child.Name), fishQuote(child.Help))
		}
		for _, flag := range c.flags {
			out.WriteString(c.fishFlag(app.Name, flag))
		}
	}
	return out.String()
}

// fishNext is when a command of this one comes next.
func (c command) fishNext() string {
	var names []string
	for _, child := range c.children {
		names = append(names, child.Name)
	}
	none := "not __fish_seen_subcommand_from " + strings.Join(names, " ")
	if c.path == "" {
		return none
	}
	return c.fishInside() + "; and " + none
}

// fishInside is when a command is given, with those above it.
func (c command) fishInside() string {
	var seen []string
	for _, name := range strings.Fields(c.path) {
		seen = append(seen, "__fish_seen_subcommand_from "+name)
	}
	return strings.Join(seen, "; and ")
}

func (c command) fishFlag(program string, flag *kong.Flag) string {
	line := fmt.Sprintf("complete -c %s -l %s -d %s", program, flag.Name, fishQuote(flag.Help))
	if flag.Short != 0 {
		line += " -s " + string(flag.Short)
	}
	if c.path != "" {
		line += " -n " + fishQuote(c.fishInside())
	}
	switch {
	case !takesValue(flag):
	case takesFile(flag):
		line += " -r -F"
	case len(choices(flag)) > 0:
		line += " -x -a " + fishQuote(strings.Join(choices(flag), " "))
	default:
		line += " -x"
	}
	return line + "\n"
}

// fishQuote is text in single quotes, in which fish has two escapes.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
