// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"funlab.casa/omen/install"
)

// serveWord makes this binary a program that serves a certificate: address,
// certificate, key.
const serveWord = "serve-for-the-doctor"

func serve(args []string) int {
	server := &http.Server{Addr: args[0], ReadHeaderTimeout: time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServeTLS(args[1], args[2]))
	return 1
}

// program puts this binary below the root under a name of its own.
func (h *machine) program(name string) string {
	h.t.Helper()
	source, err := os.Open("/proc/self/exe")
	must(h.t, err)
	defer source.Close()
	must(h.t, os.MkdirAll(h.path("opt"), 0o755))
	target, err := os.OpenFile(h.path("opt/"+name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	must(h.t, err)
	_, err = io.Copy(target, source)
	must(h.t, err)
	must(h.t, target.Close())
	return target.Name()
}

// web is a host with a program that serves an installed certificate.
func web(t *testing.T) *machine {
	t.Helper()
	return webOf(t, nil)
}

// webOf is one whose certificate is bent.
func webOf(t *testing.T, change func(*x509.Certificate)) *machine {
	t.Helper()
	h := bareHost(t)
	program, address := h.program("omen-doctor-web"), freeAddress(t)
	folder := "var/lib/omen-agent/web/current/"
	start := []string{program, serveWord, address, h.path(folder + "web.crt"), h.path(folder + "web.key")}
	h.certs = map[string]string{"web": fmt.Sprintf(
		"profile = \"general\"\nusage = \"server\"\ncommon_name = \"web.keylime.test\"\nkey = \"file\"\n[certificate.files]\nfolder = \"/etc/web/omen\"\n"+
			"[certificate.service]\nstart = [\"%s\"]\npid_file = \"/run/web.pid\"\nprobe = %q\nlog = \"/var/log/web.log\"", strings.Join(start, `", "`), address)}
	for _, dir := range []string{"etc/web", "var/log"} {
		must(t, os.MkdirAll(h.path(dir), 0o755))
	}
	key := newKey(t)
	one := h.installer()
	one.Set = install.Set{Name: "web", Folder: "/etc/web/omen"}
	t.Cleanup(h.stopWeb)
	must(t, one.deploy(t, install.Item{
		Name: "web", Profile: install.General, Usage: serverAuth, Key: install.KeyPEM(keyPEM(t, key)), CA: h.ca.pem,
		Chain:   []byte(h.ca.leaf(key, "web.keylime.test", serverAuth, change)),
		Service: install.Service{Start: start, PIDFile: "/run/web.pid", Probe: address, Action: install.ActRestart, Log: "/var/log/web.log"},
	}))
	return h
}

// stopWeb ends the program by the number in its pid file.
func (h *machine) stopWeb() {
	text, err := os.ReadFile(h.path("run/web.pid"))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); {
			if state, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")); err != nil || strings.Contains(string(state), ") Z ") {
				break
			}
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

var systemBreaks = map[string]func(*testing.T){
	"units": func(t *testing.T) {
		h := web(t)
		h.good("units")
		h.stopWeb()
		h.bad("units", Warning, "does not run")
		must(t, os.Remove(h.path("opt/omen-doctor-web")))
		h.bad("units", Problem, "no such file")
		h.certificate("web", "profile = \"keylime-verifier\"\ncommon_name = \"web.keylime.test\"\nkey = \"file\"")
		h.bad("units", Problem, "no way to restart the service")
		h.place("etc/systemd/system/omen-agent.service", "[Unit]\nAfter=network-online.target\n", 0o644)
		h.place("etc/systemd/system/vpn.service", "[Unit]\nBefore=network-online.target\n", 0o644)
		h.certificate("web", h.certs["web"]+"\n[certificate.service]\nunit = \"vpn.service\"")
		h.bad("units", OK, "vpn.service: unit vpn.service does not wait for the agent")
	},
	"ports": func(t *testing.T) {
		h := web(t)
		h.good("ports")
		_, rest, _ := strings.Cut(h.certs["web"], "probe = \"")
		address, _, _ := strings.Cut(rest, `"`)
		h.certificate("web", strings.Replace(h.certs["web"], "probe = \""+address, "probe = \"127.0.0.1:1", 1))
		h.bad("ports", Problem, "nobody listens there")
	},
	"disk": func(t *testing.T) {
		h := bareHost(t)
		h.good("disk")
		must(t, os.MkdirAll(h.path("var/lib/omen-agent"), 0o711))
		must(t, unix.Mount("none", h.path("var/lib/omen-agent"), "tmpfs", 0, "size=64k"))
		defer func() { must(t, unix.Unmount(h.path("var/lib/omen-agent"), unix.MNT_DETACH)) }()
		h.bad("disk", Problem, "KiB left")
		must(t, unix.Mount("none", h.path("var/lib/omen-agent"), "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64m"))
		h.bad("disk", Problem, "read-only")
	},
	"memory": func(t *testing.T) {
		for folder, swaps := range map[string]string{memory: "Filename\n", "/var/tmp": "Filename\n", memory + "/": "Filename\n/dev/sda2 partition 1 0 -2\n"} {
			h := hostIn(t, folder)
			h.place("proc/swaps", swaps, 0o444)
			h.certificate("tenant", "profile = \"keylime-tenant\"\ncommon_name = \"tenant.keylime.test\"")
			switch folder {
			case memory:
				h.good("memory")
			case "/var/tmp":
				h.bad("memory", Problem, "not a file system in memory")
			default:
				h.bad("memory", Warning, "there is swap")
			}
		}
	},
	"state-folder": func(t *testing.T) {
		h := bareHost(t)
		must(t, os.MkdirAll(h.path("var/lib/omen-agent"), 0o711))
		h.good("state-folder")
		must(t, os.Chmod(h.path("var/lib/omen-agent"), 0o777))
		h.bad("state-folder", Problem, "others than root may write")
		must(t, os.Chown(h.path("var/lib/omen-agent"), 4711, 0))
		h.bad("state-folder", Problem, "belongs to user 4711")
	},
}

var serviceBreaks = map[string]func(*testing.T){
	"served": func(t *testing.T) {
		h := web(t)
		h.good("served")
		text, err := os.ReadFile(h.path("var/lib/omen-agent/web/current/web.key"))
		must(t, err)
		block, _ := pem.Decode(text)
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		must(t, err)
		h.place("var/lib/omen-agent/web/current/web.crt", h.ca.leaf(key.(*ecdsa.PrivateKey), "web.keylime.test", serverAuth, nil), 0o644)
		h.bad("served", Problem, "is installed")
	},
}
