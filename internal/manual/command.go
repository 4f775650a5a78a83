// SPDX-License-Identifier: Apache-2.0

package manual

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// command is a visible command, or the program itself, whose path is empty.
type command struct {
	path     string // "config check"
	node     *kong.Node
	flags    []*kong.Flag // its own
	children []*kong.Node
}

// commands lists the program and its commands, each before those below it.
func commands(app *kong.Application) []command {
	return below("", app.Node)
}

func below(path string, node *kong.Node) []command {
	c := command{path: path, node: node}
	for _, flag := range node.Flags {
		if !flag.Hidden {
			c.flags = append(c.flags, flag)
		}
	}
	all := []command{c}
	for _, child := range node.Children {
		if !child.Hidden {
			all[0].children = append(all[0].children, child)
			all = append(all, below(strings.TrimSpace(path+" "+child.Name), child)...)
		}
	}
	return all
}

// taken are the flags that a command takes: those of the program, too.
func (c command) taken() []*kong.Flag {
	var flags []*kong.Flag
	for _, group := range c.node.AllFlags(true) {
		flags = append(flags, group...)
	}
	return flags
}

// spellings are how a flag can be given, "-h" and "--help".
func spellings(flag *kong.Flag) []string {
	long := "--" + flag.Name
	if flag.Short == 0 {
		return []string{long}
	}
	return []string{"-" + string(flag.Short), long}
}

// takesValue reports that a flag is followed by a word.
func takesValue(flag *kong.Flag) bool { return !flag.IsBool() && !flag.IsCounter() }

// choices are the values that a flag can have, if they are few.
func choices(flag *kong.Flag) []string {
	if flag.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(flag.EnumSlice(), func(value string) bool { return value == "" })
}

// takesFile reports that a flag's value is the name of a file.
func takesFile(flag *kong.Flag) bool {
	return takesValue(flag) && slices.Contains([]string{"FILE", "FOLDER"}, flag.PlaceHolder)
}

// placeholder is what stands for a flag's value.
func placeholder(flag *kong.Flag) string {
	switch {
	case len(choices(flag)) > 0:
		return strings.Join(choices(flag), "|")
	case flag.PlaceHolder != "":
		return flag.PlaceHolder
	}
	return strings.ToUpper(flag.Name)
}

// argumentName is what stands for an argument; one that can be repeated says so.
func argumentName(argument *kong.Positional) string {
	name := strings.ToUpper(argument.Name)
	if argument.Tag != nil && argument.Tag.PlaceHolder != "" {
		name = argument.Tag.PlaceHolder
	}
	if argument.IsCumulative() {
		name += " ..."
	}
	return name
}
