// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxEnvironment bounds an environment file, in bytes.
const maxEnvironment = 1 << 20

// fromFiles reads the names ("NAME=") out of the files of EnvironmentFile=, an array
// of structures that begin with a path or a pattern. A file that is not there is
// not our matter: systemd says so when the unit starts.
func fromFiles(property any) []string {
	files, _ := property.([][]any)
	var names []string
	for _, file := range files {
		pattern, _ := file[0].(string)
		paths, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, path := range paths {
			names = append(names, fromFile(path)...)
		}
	}
	return names
}

// variables are the names of what a process was started with, and no values: there
// may be secrets.
func (p process) variables() []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
	if err != nil {
		return nil // it has ended
	}
	var names []string
	for variable := range strings.SplitSeq(string(text), "\x00") {
		if name, _, found := strings.Cut(variable, "="); found {
			names = append(names, name+"=")
		}
	}
	return names
}

// fromFile takes the name of every line with "=" that is no comment
// (systemd.exec(5)), and no value: there may be secrets. Such a line can be the
// rest of a value over several lines: better one name too many.
func fromFile(path string) []string {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe is not waited for
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(file, maxEnvironment))
	if err != nil {
		return nil
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, ";") {
			names = append(names, strings.TrimSpace(name)+"=")
		}
	}
	return names
}
