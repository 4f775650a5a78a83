// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/tools/internal/checkout"
	"funlab.casa/omen/tools/output"
	"funlab.casa/omen/tools/program"
)

// repository is the checkout, seen from this package.
const repository = "../.."

// A version that the source does not say of itself, in the forms that it takes.
const (
	testVersion   = "v9.8.7-rc.1"
	debianVersion = "9.8.7~rc.1-1"
)

var testDate = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// maxAgent is how large the agent may be, in bytes.
const maxAgent = 18 << 20

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPackages makes the packages twice and looks at them from all sides.
func TestPackages(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "package")
	outputOf(t, "go", "build", "-o", tool, ".") // without the race detector, which makes packing slow
	b := made(t, tool, repository)
	t.Run("files", b.testFiles)
	t.Run("contents", b.testContents)
	t.Run("programs", b.testPrograms)
	t.Run("lintian", b.testLintian)
	t.Run("rpmlint", b.testRPM)
	t.Run("rpm", b.testRPMInstalled)
	t.Run("pages", b.testPages)
	t.Run("again elsewhere", func(t *testing.T) {
		t.Setenv("TZ", "Pacific/Kiritimati")
		t.Setenv("GOFLAGS", "-buildvcs=true -mod=mod")
		t.Setenv("CGO_ENABLED", "1")
		t.Setenv("GOAMD64", "v3")
		again := made(t, tool, checkout.Copy(t, repository))
		if first, second := b.sums(t), again.sums(t); !maps.Equal(first, second) {
			t.Errorf("two builds of one source:\n%v\n%v", first, second)
		}
	})
}

// made makes the packages of a checkout in a folder of their own.
func made(t *testing.T, tool, source string) batch {
	t.Helper()
	out := t.TempDir()
	check(t, os.WriteFile(filepath.Join(out, "omen-agent_0.0.1-1_amd64.deb"), nil, 0o600)) // of an earlier run
	command := exec.Command(tool, "-version", testVersion, "-source", source, "-out", out)
	command.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", testDate.Unix()))
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return batch{Order: output.Order{Version: testVersion, Date: testDate, Source: source, Out: out}}
}

func outputOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// sums are the files that were made, by hash.
func (b batch) sums(t *testing.T) map[string]string {
	t.Helper()
	files, err := os.ReadDir(b.Out)
	check(t, err)
	sums := map[string]string{}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(b.Out, file.Name()))
		check(t, err)
		sums[file.Name()] = digest(content)
	}
	return sums
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func debFile(name, arch string) string { return name + "_" + debianVersion + "_" + arch + ".deb" }

// testFiles has coreutils judge the checksums, of all packages and nothing else.
func (b batch) testFiles(t *testing.T) {
	var packages, lists []string
	for _, name := range []string{program.Agent, program.Plugin} {
		for arch, machine := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
			packages = append(packages, debFile(name, arch), name+"-9.8.7~rc.1-1."+machine+".rpm")
			lists = append(lists, name+"_linux_"+arch+".cdx.json")
		}
	}
	sums := "package-checksums-" + testVersion + ".txt"
	all := slices.Sorted(slices.Values(slices.Concat(packages, lists, []string{sums})))
	if got := slices.Sorted(maps.Keys(b.sums(t))); !slices.Equal(got, all) {
		t.Errorf("files %v, want %v", got, all)
	}
	judge := exec.Command("sha256sum", "--check", "--strict", sums)
	judge.Dir = b.Out
	if out, err := judge.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != len(packages) {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// testContents: what is in a package, of both formats and architectures, root's and
// written by nobody else.
func (b batch) testContents(t *testing.T) {
	common := []string{
		"/usr/bin/omen-agent", "/usr/lib/systemd/system/omen-agent.service", "/usr/lib/systemd/system/omen-agent-unseal.service",
		"/usr/lib/systemd/system-generators/omen-agent-generator", "/usr/share/man/man1/omen-agent.1.gz", "/usr/share/man/man5/agent.toml.5.gz",
		"/usr/share/bash-completion/completions/omen-agent", "/usr/share/fish/vendor_completions.d/omen-agent.fish",
		"/usr/lib/udev/rules.d/60-omen-agent.rules", "/usr/share/doc/omen-agent/examples/agent.toml", "/etc/omen-agent",
	}
	for _, arch := range architectures {
		list := outputOf(t, "dpkg-deb", "--contents", filepath.Join(b.Out, debFile(program.Agent, arch)))
		for _, want := range append(common, "/usr/share/zsh/vendor-completions/_omen-agent", "/usr/share/doc/omen-agent/copyright") {
			if !regexp.MustCompile(`(?m) \.` + regexp.QuoteMeta(want) + `/?( -> .*)?$`).MatchString(list) {
				t.Errorf("%s: no %s in\n%s", arch, want, list)
			}
		}
		if bad := regexp.MustCompile(`(?m)^(.....w|........w|...s|......s).*|^\S+ (?:[^r]|r[^o]).*`).FindString(list); bad != "" {
			t.Errorf("%s: %s", arch, bad)
		}
	}
	list := outputOf(t, "rpm", "--query", "--list", "--package", "--nosignature", filepath.Join(b.Out, "omen-agent-9.8.7~rc.1-1.aarch64.rpm"))
	for _, want := range append(common, "/usr/share/zsh/site-functions/_omen-agent", "/usr/share/licenses/omen-agent/LICENSE") {
		if !slices.Contains(strings.Split(list, "\n"), want) {
			t.Errorf("rpm: no %s in\n%s", want, list)
		}
	}
	if list = outputOf(t, "dpkg-deb", "--contents", filepath.Join(b.Out, debFile(program.Plugin, "arm64"))); !strings.Contains(list, "./usr/lib/openbao/plugins/openbao-plugin-auth-tpm\n") {
		t.Errorf("plugin: %s", list)
	}
}

// testPrograms: static, of their architecture, as the list of parts says, and small.
func (b batch) testPrograms(t *testing.T) {
	for _, d := range []description{agentPackage(saying{}), pluginPackage()} {
		for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
			content := b.unpacked(t, debFile(d.program, arch), d.where)
			file, err := elf.NewFile(strings.NewReader(string(content)))
			check(t, err)
			if file.Machine != machine {
				t.Errorf("%s, %s: %v", d.program, arch, file.Machine)
			}
			for _, part := range file.Progs {
				if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
					t.Errorf("%s, %s wants a dynamic linker", d.program, arch)
				}
			}
			if d.program == program.Agent && len(content) > maxAgent {
				t.Errorf("%s: the agent has %d bytes", arch, len(content))
			}
			parts, err := os.ReadFile(filepath.Join(b.Out, d.program+"_linux_"+arch+".cdx.json"))
			check(t, err)
			if !strings.Contains(string(parts), digest(content)) || !strings.Contains(string(content), testVersion) {
				t.Errorf("%s, %s: another program than the list of parts is of, or without its version", d.program, arch)
			}
		}
	}
}

// unpacked is a file of a package for Debian.
func (b batch) unpacked(t *testing.T, name, path string) []byte {
	t.Helper()
	dir := t.TempDir()
	outputOf(t, "dpkg-deb", "--extract", filepath.Join(b.Out, name), dir)
	content, err := os.ReadFile(filepath.Join(dir, path))
	check(t, err)
	return content
}

// testLintian: neither error nor warning, and each override has its reason.
func (b batch) testLintian(t *testing.T) {
	for _, name := range []string{program.Agent, program.Plugin} {
		for _, arch := range architectures {
			lintian := exec.Command("lintian", "--allow-root", "--tag-display-limit", "0", "--show-overrides", filepath.Join(b.Out, debFile(name, arch)))
			out, err := lintian.CombinedOutput()
			if bad := regexp.MustCompile(`(?m)^[EW]: .*`).FindAllString(string(out), -1); len(bad) > 0 || !strings.Contains(string(out), "O: "+name+": statically-linked-binary") {
				t.Errorf("%v\n%s", err, out)
			}
		}
		overrides, err := os.ReadFile(filepath.Join(repository, "dist/deb", name+".lintian-overrides"))
		check(t, err)
		lines := strings.Split(strings.TrimSpace(string(overrides)), "\n")
		for n, line := range lines {
			if !strings.HasPrefix(line, "#") && (n == 0 || !strings.HasPrefix(lines[n-1], "#")) {
				t.Errorf("%s: %s without a reason", name, line)
			}
		}
	}
}

// testRPM: rpmlint finds nothing but what rpmlint.toml answers, and a shell reads the
// scripts.
func (b batch) testRPM(t *testing.T) {
	for _, name := range []string{program.Agent, program.Plugin} {
		file := filepath.Join(b.Out, name+"-9.8.7~rc.1-1.x86_64.rpm")
		out, err := exec.Command("rpmlint", "--config", filepath.Join(repository, "dist/rpm/rpmlint.toml"), file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "0 errors, 0 warnings") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	scripts := outputOf(t, "rpm", "--query", "--scripts", "--package", "--nosignature", filepath.Join(b.Out, "omen-agent-9.8.7~rc.1-1.x86_64.rpm"))
	for _, want := range []string{"postinstall scriptlet (using /bin/sh)", "preuninstall scriptlet (using /bin/sh)", "postuninstall scriptlet (using /bin/sh)"} {
		if !strings.Contains(scripts, want) {
			t.Errorf("no %s in\n%s", want, scripts)
		}
	}
}

// testPages: both manual pages are clean, and the one of agent.toml has the keys.
func (b batch) testPages(t *testing.T) {
	for page, want := range map[string]string{"man1/omen-agent.1": "renew", "man5/agent.toml.5": "pkcs12_password_file"} {
		file := filepath.Join(t.TempDir(), filepath.Base(page)+".gz")
		check(t, os.WriteFile(file, b.unpacked(t, debFile(program.Agent, "amd64"), "/usr/share/man/"+page+".gz"), 0o644))
		if said := outputOf(t, "mandoc", "-T", "lint", "-W", "warning", file); said != "" {
			t.Errorf("%s", said)
		}
		if shown := outputOf(t, "mandoc", "-T", "html", file); !strings.Contains(shown, want) {
			t.Errorf("%s does not say %s", page, want)
		}
	}
}

// TestRefusals: nothing is made from a version or a date that is none.
func TestRefusals(t *testing.T) {
	out := t.TempDir()
	for _, v := range []string{"", "0.1.0", "v1.2.3+meta"} {
		if err := output.Run(t.Context(), "package", []string{"-version", v, "-out", out}, makePackages); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("version %q: %v", v, err)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if err := output.Run(t.Context(), "package", []string{"-version", "v1.2.3", "-out", out}, makePackages); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("date: %v", err)
	}
	if files, err := os.ReadDir(out); err != nil || len(files) != 0 {
		t.Errorf("files %v, %v", files, err)
	}
}
