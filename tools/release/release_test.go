// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/tools/internal/checkout"

	"funlab.casa/omen/tools/output"
)

// repository is the checkout, seen from this package.
const repository = "../.."

// Versions that the source does not say of itself.
const (
	testVersion = "v9.8.7-rc.1"
	nextVersion = "v9.8.7"
)

var testDate = time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)

// A tool is the command, built without the race detector: packing takes
// minutes with it.
type tool string

func buildTool(t *testing.T) tool {
	t.Helper()
	program := filepath.Join(t.TempDir(), "release")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return tool(program)
}

// make makes the release of a checkout.
func (program tool) make(t *testing.T, source, out string) release {
	t.Helper()
	command := exec.Command(string(program), "-version", testVersion, "-source", source, "-out", out)
	command.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", testDate.Unix()))
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return release{output.Order{Version: testVersion, Date: testDate, Source: source, Out: out}}
}

// TestRelease makes the files twice and looks at them from all sides.
func TestRelease(t *testing.T) {
	program, out := buildTool(t), t.TempDir()
	stale := filepath.Join(out, "checksums-v0.0.1.txt")
	check(t, os.WriteFile(stale, nil, 0o600))
	r := program.make(t, repository, out)
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an earlier release's checksums: %v", err)
	}
	t.Run("files", r.testFiles)
	t.Run("binaries", r.testBinaries)
	t.Run("archives", r.testArchives)
	t.Run("parts", r.testBOM)
	t.Run("image", r.testImage)
	t.Run("again elsewhere", func(t *testing.T) { r.testAgain(t, program) })
	t.Run("OpenBao, by archive", r.testArchiveInOpenBao)
	t.Run("OpenBao, registered", r.testRegistered)
	t.Run("OpenBao, upgraded", r.testUpgrade)
	t.Run("OpenBao, by image", r.testImageInOpenBao)
	t.Run("OpenBao, downloaded first", r.testDownloadFirst)
	t.Run("OpenBao, another checksum", r.testOtherChecksum)
}

// testFiles has coreutils judge the checksums, of all files and no other.
func (r release) testFiles(t *testing.T) {
	var want []string
	for _, suffix := range []string{"amd64", "amd64.cdx.json", "amd64.tar.gz", "arm64", "arm64.cdx.json", "arm64.tar.gz"} {
		want = append(want, plugin+"_linux_"+suffix)
	}
	want = append(want, plugin+"_oci.tar")
	if got := slices.Sorted(maps.Keys(r.checksums(t))); !slices.Equal(got, want) {
		t.Errorf("checksums of %v", got)
	}
	sum := exec.Command("sha256sum", "--check", "--strict", "checksums-"+testVersion+".txt")
	sum.Dir = r.Out
	if out, err := sum.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != len(want) {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	all, err := os.ReadDir(r.Out)
	check(t, err)
	if len(all) != len(want)+1 {
		t.Errorf("files %v", all)
	}
}

// testBinaries: static, of their architecture, and nothing of this machine.
func (r release) testBinaries(t *testing.T) {
	here, err := filepath.Abs(repository)
	check(t, err)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		content := r.read(t, plugin+"_linux_"+arch)
		file, err := elf.NewFile(bytes.NewReader(content))
		check(t, err)
		if file.Class != elf.ELFCLASS64 || file.Machine != machine || file.Type != elf.ET_EXEC {
			t.Errorf("%s: %v", arch, file.FileHeader)
		}
		for _, program := range file.Progs {
			if program.Type == elf.PT_INTERP || program.Type == elf.PT_DYNAMIC {
				t.Errorf("%s wants a dynamic linker", arch)
			}
		}
		if bytes.Contains(content, []byte(here)) || bytes.Contains(content, []byte("vcs.revision")) {
			t.Errorf("%s names this checkout", arch)
		}
		if !bytes.Contains(content, []byte(testVersion)) {
			t.Errorf("%s does not know its version", arch)
		}
	}
}

func (r release) testArchives(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		name := plugin + "_linux_" + arch
		files := map[string][]byte{}
		var order []string
		for header, content := range unpack(t, r.read(t, name+".tar.gz")) {
			order = append(order, header.Name)
			files[header.Name] = content
			mode := int64(0o644)
			if header.Name == plugin {
				mode = 0o755
			}
			if header.Mode != mode || header.Uid != 0 || header.Gid != 0 || !header.ModTime.Equal(testDate) {
				t.Errorf("%s: %s: %+v", arch, header.Name, header)
			}
		}
		if !slices.IsSorted(order) {
			t.Errorf("%s: order %v", arch, order)
		}
		if digest(files[plugin]) != r.checksums(t)[name] {
			t.Errorf("%s: another program than the one beside it", arch)
		}
		for file, text := range map[string]string{
			"LICENSE": "Apache License", "THIRD_PARTY_LICENSES": "Mozilla Public License",
			"docs/release.md": "# Release files", "docs/auth-method.md": "auth/tpm",
		} {
			if !bytes.Contains(files[file], []byte(text)) {
				t.Errorf("%s: %s does not say %q", arch, file, text)
			}
		}
	}
}

// testAgain makes the release again: from a copy of the checkout in another
// folder with other modes, in another time zone, with other habits of building.
func (r release) testAgain(t *testing.T, program tool) {
	t.Setenv("TZ", "Pacific/Kiritimati")
	t.Setenv("GOFLAGS", "-buildvcs=true -mod=mod")
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("GOAMD64", "v3")
	again := program.make(t, checkout.Copy(t, repository), t.TempDir())
	if first, second := r.checksums(t), again.checksums(t); !maps.Equal(first, second) {
		t.Errorf("two releases of one source:\n%v\n%v", first, second)
	}
}

// TestRefusals: nothing is made from a version or a date that is none.
func TestRefusals(t *testing.T) {
	out := t.TempDir()
	for _, v := range []string{"", "0.1.0", "v1", "v1.2", "v01.2.3", "v1.2.3+meta", "v1.2.3 -X main.x=y", "v1.2.3\n", "v1.2.3-" + strings.Repeat("a", 64)} {
		if err := output.Run(t.Context(), "release", []string{"-version", v, "-out", out}, makeRelease); err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("version %q: %v", v, err)
		}
	}
	for _, epoch := range []string{"-1", "today", "1.5"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		if err := output.Run(t.Context(), "release", []string{"-version", "v1.2.3", "-out", out}, makeRelease); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
			t.Errorf("date %q: %v", epoch, err)
		}
	}
	if files, err := os.ReadDir(out); err != nil || len(files) != 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

func (r release) read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.Out, name))
	check(t, err)
	return content
}

// checksums is the checksums file: name → SHA-256.
func (r release) checksums(t *testing.T) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for line := range strings.Lines(string(r.read(t, "checksums-"+r.Version+".txt"))) {
		sum, name, found := strings.Cut(strings.TrimSpace(line), "  ")
		if !found {
			t.Fatalf("line %q", line)
		}
		sums[name] = sum
	}
	return sums
}

// unpack reads a tar file, gzipped or not, whose names must be plain.
func unpack(t *testing.T, content []byte) iter.Seq2[*tar.Header, []byte] {
	t.Helper()
	var source io.Reader = bytes.NewReader(content)
	if zipped, err := gzip.NewReader(bytes.NewReader(content)); err == nil {
		source = zipped
	}
	return func(yield func(*tar.Header, []byte) bool) {
		for reader := tar.NewReader(source); ; {
			header, err := reader.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			check(t, err)
			if !filepath.IsLocal(header.Name) || header.Typeflag != tar.TypeReg {
				t.Fatalf("entry %+v", header)
			}
			text, err := io.ReadAll(reader)
			check(t, err)
			if !yield(header, text) {
				return
			}
		}
	}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
