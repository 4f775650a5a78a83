// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// call is one system call as strace writes it down with -y -xx.
type call struct {
	name    string
	ordinal int      // counted from 1 among the calls of this name
	args    []string // decoded: strings without quotes, descriptors as their paths
	value   int      // -1 for an error or when it did not return
	errno   string   // name of the error, "?" when it did not return
	root    string   // of the host, for String
}

// parseLog reads a log of one thread.
func parseLog(log string) ([]call, error) {
	var calls []call
	count := map[string]int{}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "+++") || strings.HasPrefix(line, "---") {
			continue
		}
		c, err := parseCall(line)
		if err != nil {
			return nil, fmt.Errorf("strace: %w: %.200s", err, line)
		}
		count[c.name]++
		c.ordinal = count[c.name]
		calls = append(calls, c)
	}
	return calls, nil
}

func parseCall(line string) (call, error) {
	name, rest, ok := strings.Cut(line, "(")
	if !ok {
		return call{}, fmt.Errorf("no call")
	}
	c := call{name: name, value: -1, errno: "?"}
	args, rest, err := splitArguments(rest)
	if err != nil {
		return c, err
	}
	for _, arg := range args {
		decoded, err := decode(arg)
		if err != nil {
			return c, err
		}
		c.args = append(c.args, decoded)
	}
	_, outcome, _ := strings.Cut(rest, "= ")
	words := strings.Fields(outcome)
	if len(words) == 0 || words[0] == "?" {
		return c, nil
	}
	digits, _, _ := strings.Cut(words[0], "<")
	if c.value, err = strconv.Atoi(digits); err != nil {
		return c, err
	}
	c.errno = ""
	if c.value < 0 && len(words) > 1 {
		c.errno = words[1]
	}
	return c, nil
}

// splitArguments cuts at the commas that are outside brackets and quotes; with
// -xx there is nothing else that could be one.
func splitArguments(text string) (args []string, rest string, err error) {
	depth, begin := 0, 0
	for at := range len(text) {
		switch text[at] {
		case '{', '[', '(', '<':
			depth++
		case '}', ']', '>':
			depth--
		case ')':
			if depth == 0 {
				return append(args, strings.TrimSpace(text[begin:at])), text[at+1:], nil
			}
			depth--
		case ',':
			if depth == 0 {
				args = append(args, strings.TrimSpace(text[begin:at]))
				begin = at + 1
			}
		}
	}
	return nil, "", fmt.Errorf("arguments do not end")
}

// decode makes a string of a quoted argument, and a path of a descriptor.
func decode(arg string) (string, error) {
	if strings.HasPrefix(arg, `"`) {
		return unhex(strings.Trim(arg, `"`))
	}
	if at := strings.IndexByte(arg, '<'); at >= 0 && !strings.Contains(arg[:at], "=") {
		end := strings.LastIndexByte(arg, '>')
		if end < at {
			return "", fmt.Errorf("descriptor %q", arg)
		}
		return unhex(arg[at+1 : strings.IndexByte(arg, '>')])
	}
	return arg, nil
}

func unhex(text string) (string, error) {
	if !strings.Contains(text, `\x`) {
		return text, nil
	}
	out := make([]byte, 0, len(text)/4)
	for len(text) > 0 {
		if len(text) < 4 || text[:2] != `\x` {
			return "", fmt.Errorf("not hexadecimal: %.20q", text)
		}
		b, err := strconv.ParseUint(text[2:4], 16, 8)
		if err != nil {
			return "", err
		}
		out = append(out, byte(b))
		text = text[4:]
	}
	return string(out), nil
}

// paths are the files that a call is about, by their places when it was made:
// the descriptor's own, or names below one.
func (c call) paths() []string {
	below := func(dir, name string) string {
		if path.IsAbs(name) {
			return path.Clean(name)
		}
		return path.Join(dir, name)
	}
	switch c.name {
	case "openat", "openat2", "mkdirat", "unlinkat", "fchownat", "fchmodat":
		return []string{below(c.args[0], c.args[1])}
	case "symlinkat":
		return []string{below(c.args[1], c.args[2])}
	case "renameat", "renameat2", "linkat":
		return []string{below(c.args[0], c.args[1]), below(c.args[2], c.args[3])}
	case "mkdir", "unlink", "rmdir":
		return []string{c.args[0]}
	case "symlink":
		return []string{c.args[1]}
	case "rename", "link":
		return []string{c.args[0], c.args[1]}
	default: // of a descriptor
		return []string{c.args[0]}
	}
}

// within tells whether a call is about files below root.
func (c call) within(root string) bool {
	for _, name := range c.paths() {
		if name == root || strings.HasPrefix(name, root+"/") {
			return true
		}
	}
	return false
}

// changes tells whether a call, when it works, changes what is on a disk. What is
// only opened does not; fsync changes what survives a power cut, and nothing else.
func (c call) changes() bool {
	if c.name == "openat" || c.name == "openat2" {
		return strings.Contains(strings.Join(c.args[2:], ","), "O_CREAT")
	}
	return !c.keeps()
}

// keeps tells whether a call makes something durable.
func (c call) keeps() bool { return c.name == "fsync" || c.name == "fdatasync" }

// String names the call for people, its files as the host sees them.
func (c call) String() string {
	return fmt.Sprintf("%s %d (%s)", c.name, c.ordinal, strings.ReplaceAll(strings.Join(c.paths(), ", "), c.root, ""))
}
