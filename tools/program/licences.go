// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// licenceFile is how the files are called in which modules state their terms.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([._-].*)?$`)

// Licences are the terms of everything that is linked into the program, Go's standard
// library included: their licences want them beside the binary. They are found by the
// checkout source.
func (p Program) Licences(ctx context.Context, source string) ([]byte, error) {
	var out bytes.Buffer
	root, err := ask(ctx, source, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := appendLicences(&out, "Go, "+p.Info.GoVersion, root); err != nil {
		return nil, err
	}
	for _, module := range linked(p.Info) {
		dir, err := ask(ctx, source, "list", "-m", "-f", "{{.Dir}}", module.Path)
		if err != nil {
			return nil, err
		}
		if err := appendLicences(&out, module.Path+" "+module.Version, dir); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func appendLicences(out *bytes.Buffer, name, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	before := out.Len()
	for _, file := range files {
		if file.IsDir() || !licenceFile.MatchString(file.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "==== %s: %s\n\n%s\n\n", name, file.Name(), bytes.TrimSpace(text))
	}
	if out.Len() == before {
		return errors.New("find a licence of " + name)
	}
	return nil
}

// ask asks the go command about the checkout.
func ask(ctx context.Context, source string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = source
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
