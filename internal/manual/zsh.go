// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Zsh is the completion for zsh, a file of its $fpath.
func Zsh(app *kong.Application) string {
	var out strings.Builder
	fmt.Fprintf(&out, "#compdef %s\n# made from the command line of %s\n", app.Name, app.Name)
	for _, c := range commands(app) {
		out.WriteString(c.zsh(app.Name))
	}
	fmt.Fprintf(&out, "\n_%s \"$@\"\n", identifier(app.Name))
	return out.String()
}

// zsh is the function of one command.
func (c command) zsh(program string) string {
	name := identifier(program + " " + c.path)
	name = strings.TrimRight(name, "_")
	var specs []string
	for _, flag := range c.taken() {
		specs = append(specs, zshFlag(flag)...)
	}
	for range c.node.Positional {
		specs = append(specs, single("*: :"))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "\n_%s() {\n    local curcontext=\"$curcontext\" state line\n    typeset -A opt_args\n", name)
	if len(c.children) == 0 {
		fmt.Fprintf(&out, "    _arguments -s %s\n}\n", strings.Join(specs, " \\\n        "))
		return out.String()
	}
	specs = append(specs, single("1: :->command"), single("*:: :->rest"))
	fmt.Fprintf(&out, "    _arguments -s -C %s\n    case $state in\n    command)\n        local -a commands=(\n", strings.Join(specs, " \\\n        "))
	for _, child := range c.children {
		fmt.Fprintf(&out, "            %s\n", single(strings.ReplaceAll(child.Name, ":", `\:`)+":"+child.Help))
	}
	out.WriteString("        )\n        _describe command commands\n        ;;\n    rest)\n        case $line[1] in\n")
	for _, child := range c.children {
		fmt.Fprintf(&out, "        %s) _%s_%s ;;\n", child.Name, name, identifier(child.Name))
	}
	out.WriteString("        esac\n        ;;\n    esac\n}\n")
	return out.String()
}

// zshFlag are the specifications of a flag, one for each spelling.
func zshFlag(flag *kong.Flag) []string {
	help := strings.NewReplacer(`[`, `\[`, `]`, `\]`).Replace(flag.Help)
	value := ""
	switch {
	case !takesValue(flag):
	case takesFile(flag):
		value = ":" + flag.PlaceHolder + ":_files"
	case len(choices(flag)) > 0:
		value = ":" + flag.Name + ":(" + strings.Join(choices(flag), " ") + ")"
	default:
		value = ":" + strings.ReplaceAll(placeholder(flag), ":", `\:`) + ": "
	}
	repeated := ""
	if flag.IsCumulative() {
		repeated = "*"
	}
	var specs []string
	for _, spelling := range spellings(flag) {
		if value != "" && strings.HasPrefix(spelling, "--") {
			spelling += "="
		}
		specs = append(specs, single(repeated+spelling+"["+help+"]"+value))
	}
	return specs
}
