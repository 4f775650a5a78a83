// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// A server says to each login what its script says next. It stands in for an
// OpenBao that changes its leader or its mind in the middle.
type server struct {
	*httptest.Server
	t      *testing.T
	mutex  sync.Mutex
	script []string               // of logins: a rule, a status, "cut"; at the end all are let in
	wraps  []string               // of wrapping tokens: "ticket", "spent", "swapped", "lost"
	paths  []string               // what was asked
	logins []*attest.LoginRequest // that arrived

	policies []string // of the tokens
}

func newServer(t *testing.T, script ...string) *server {
	t.Helper()
	s := &server{t: t, script: script}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

var wrappedTicket = bytes.Repeat([]byte{0x71}, attest.TicketSize)

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	body, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.paths = append(s.paths, path)
	switch path {
	case "auth/tpm/challenge":
		answer(w, map[string]any{"data": attest.Challenge{Challenge: []byte("sealed"), Kind: attest.KindKnown,
			Nonce: make([]byte, attest.SecretSize), PCRSelection: attest.Selection{Bank: "sha256", PCRs: []int{0, 7}}}})
	case "auth/tpm/login":
		m, err := attest.DecodeLoginRequest(body)
		if err != nil {
			s.t.Error(err)
		}
		s.logins = append(s.logins, m)
		s.logIn(w, next(&s.script))
	case "pki_int/sign/spire.client":
		refuse(w, 403, "permission denied")
	case "sys/health":
		answer(w, map[string]any{"initialized": true, "version": "2.7.2", "server_time_utc": time.Now().Unix()})
	case "sys/wrapping/lookup", "sys/wrapping/unwrap":
		s.wrapping(w, path)
	default:
		s.t.Errorf("asked for %s", path)
	}
}

func next(script *[]string) string {
	if len(*script) == 0 {
		return ""
	}
	word := (*script)[0]
	*script = (*script)[1:]
	return word
}

func (s *server) logIn(w http.ResponseWriter, word string) {
	switch word {
	case "":
		answer(w, map[string]any{"data": map[string]any{"renew_after": 3600}, "auth": map[string]any{
			"client_token": "b.token", "lease_duration": 120, "policies": s.policies, "metadata": map[string]string{"host": "spire"}}})
	case "cut":
		panic(http.ErrAbortHandler)
	case "redirect":
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "busy":
		w.WriteHeader(http.StatusTooManyRequests)
	case "failing":
		refuse(w, 500, "local node not active but active cluster node not found")
	default:
		rule := attest.Rule(word)
		refuse(w, rule.Status(), attest.RefusalPrefix+word)
	}
}

// wrapping answers about the wrapping token; a look does not spend it.
func (s *server) wrapping(w http.ResponseWriter, path string) {
	word := "spent"
	if len(s.wraps) > 0 {
		word = s.wraps[0]
	}
	switch {
	case word == "spent":
		refuse(w, 400, "wrapping token is not valid or does not exist")
	case word == "swapped":
		answer(w, map[string]any{"data": map[string]any{"creation_path": "sys/wrapping/wrap"}})
	case path == "sys/wrapping/lookup":
		answer(w, map[string]any{"data": map[string]any{"creation_path": "auth/tpm/ticket"}})
	default:
		next(&s.wraps)
		if word == "lost" {
			panic(http.ErrAbortHandler)
		}
		answer(w, map[string]any{"data": map[string]any{"ticket": base64.StdEncoding.EncodeToString(wrappedTicket)}})
	}
}

func answer(w http.ResponseWriter, body map[string]any) { _ = json.NewEncoder(w).Encode(body) }

func refuse(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	answer(w, map[string]any{"errors": []string{text}})
}

// asked counts requests whose path ends so.
func (s *server) asked(suffix string) (n int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, path := range s.paths {
		if strings.HasSuffix(path, suffix) {
			n++
		}
	}
	return n
}

// A prover is an agent as far as a login needs one.
type prover struct {
	*Agent
	logged bytes.Buffer
}

// newProver is an agent with a TPM and an event log, for these servers.
func newProver(t *testing.T, servers ...*server) *prover {
	t.Helper()
	dir := t.TempDir()
	ca, eventLog := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "log")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers[0].Certificate().Raw})))
	write(t, eventLog, "an event log")
	openbao := config.OpenBao{CAFile: ca, AuthPath: "auth/tpm", Role: "keylime", WantedName: "spire"}
	for _, s := range servers {
		openbao.Addresses = append(openbao.Addresses, s.URL)
	}
	client, err := bao.New(bao.Config{Addresses: openbao.Addresses, CAFile: ca, AuthPath: openbao.AuthPath})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	p := new(prover)
	p.Agent = &Agent{
		config: &config.Config{OpenBao: openbao}, bao: client, log: slog.New(slog.NewTextHandler(&p.logged, nil)),
		state: filepath.Join(dir, "state"), now: time.Now, memory: memory{turn: semaphore.NewWeighted(1)},
		tpm: host.Config{Device: tpmsim.Start(t).Device(), EventLog: eventLog, StateDir: filepath.Join(dir, "state")},
	}
	return p
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// login proves the host and one key.
func (p *prover) login(t *testing.T, ticket *TicketFile) (*bao.Session, error) {
	t.Helper()
	key, err := issuer.NewKey(t.Context(), issuer.ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newStopwatch()
	opened, err := p.openTPM(t.Context(), w.count)
	if err != nil {
		t.Fatal(err)
	}
	session, err := p.prove(t.Context(), opened, []*order{{key: key}}, ticket, w)
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
	return session, err
}
