// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/test/testca"
)

const testAgent = "d432fbb3-d2f1-4a97-9ef7-75bd81c00000"

// keylimeOf plays verifier and registrar for what the real ones cannot be brought
// to within a test: an agent that failed long ago, one that stands still. A test
// with the real ones and a real agent is test/attestation.
type keylimeOf struct {
	mu          sync.Mutex
	state       probe.Attestation
	moves       bool // each question, also the registrar's, finds another attestation
	reactivated int
	agent       net.Addr
	registered  []byte // PEM
}

func (k *keylimeOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var results any
	switch r.Method + " " + r.URL.Path {
	case "GET /version":
		results = map[string]any{"current_version": "2.6"}
	case "GET /v2.6/agents/" + testAgent:
		if k.moves && k.state.Goes() {
			k.state.Count++
			k.state.Last = time.Now().Unix()
		}
		address := k.agent.(*net.TCPAddr)
		results = struct {
			probe.Attestation
			probe.Registration
		}{k.state, probe.Registration{IP: address.IP.String(), Port: address.Port, Certificate: string(k.registered)}}
	case "PUT /v2.6/agents/" + testAgent + "/reactivate":
		k.reactivated++
		k.state.State = 3
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
}

// set changes the state and forgets what was asked.
func (k *keylimeOf) set(state probe.Attestation, moves bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state, k.moves, k.reactivated = state, moves, 0
}

func (k *keylimeOf) asked() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reactivated
}

// newWatchOf is a watch of a host with an installed set, over a played Keylime and
// an agent that serves what is registered.
func newWatchOf(t *testing.T) (*host, *watch, *keylimeOf) {
	t.Helper()
	h := newHost(t)
	h.must(h.renew(h.all()...))
	server, client := loaded(t, h.ca, testca.Server()), loaded(t, h.ca, testca.Client())
	agent := loaded(t, h.ca, testca.Server())
	k := &keylimeOf{registered: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: agent.Leaf.Raw})}
	k.agent = serveTLS(t, agent, k).Addr()
	address := serveTLS(t, server, k).Addr().String()
	asks, err := probe.NewClient(probe.Target{Address: address, Leaf: server.Leaf, Bundle: h.ca.Bundle()}, &client)
	h.must(err)
	changed, err := h.installer.switched()
	h.must(err)
	return h, &watch{
		installer: h.installer, tenant: "tenant", own: client, bundle: h.ca.Bundle(),
		verifier: asks, registrar: asks, changed: changed, patience: 3 * time.Second,
	}, k
}

func loaded(t *testing.T, ca *testca.CA, usages []x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	chain, key := ca.Issue(t, testca.Want{Name: "somebody.test", IPs: []string{"127.0.0.1"}, Usages: usages})
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func serveTLS(t *testing.T, pair tls.Certificate, handler http.Handler) net.Listener {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener
}

// attested is the answer to the second question about the agent.
func (w *watch) attested(t *testing.T) Finding {
	t.Helper()
	found := w.judge(t.Context(), testAgent)
	if len(found) != 2 || found[0].Err != nil || found[0].Agent != testAgent {
		t.Fatalf("found %+v", found)
	}
	return found[1]
}

func TestAgentsAreWatched(t *testing.T) {
	_, w, k := newWatchOf(t)
	now := time.Now().Unix()
	const lost = "internal.verifier.not_reachable"
	for name, c := range map[string]struct {
		state probe.Attestation
		moves bool
		want  string // in the detail, or in the error
		wrong bool
	}{
		"attested":      {probe.Attestation{State: 3, Count: 41, Interval: "10s"}, true, "; operational_state 3 (Get Quote)", false},
		"provided":      {probe.Attestation{State: 5, Count: 41, Interval: "10s"}, true, "operational_state 5 (Provide V)", false},
		"after a fault": {probe.Attestation{State: 3, Count: 41, Interval: "10s", Event: lost}, true, ", then ", false},
		"stands still":  {probe.Attestation{State: 3, Count: 41, Interval: "2s", Last: now + 60}, false, "attestation_count stays at 41 for 2s", true},
		"too long ago":  {probe.Attestation{State: 3, Count: 41, Interval: "1s", Last: now - 60}, false, "last successful attestation", true},
		"retries":       {probe.Attestation{State: 4, Count: 41, Interval: "1s", Last: now}, false, "operational_state 4 (Get Quote (retry))", true},
		"refused":       {probe.Attestation{State: 9, Count: 41, Interval: "1h", Last: now, Event: "pcr_validation.invalid_pcr_16"}, false, "operational_state 9 (Invalid Quote)", true},
		"failed":        {probe.Attestation{State: 7, Count: 41, Interval: "1h", Last: now, Event: "pcr_validation.invalid_pcr_16"}, false, "operational_state 7 (Failed)", true},
		"slow verifier": {probe.Attestation{State: 3, Count: 41, Interval: "5m", Last: now - 60}, false, "attestation_count 41, 1m", false},
		"long lost":     {probe.Attestation{State: 7, Event: lost, Interval: "10s", Last: now - 24*3600}, false, "since before certificates changed", true},
	} {
		t.Run(name, func(t *testing.T) {
			k.set(c.state, c.moves)
			found := w.attested(t)
			said := found.Detail
			if found.Err != nil {
				said = found.Err.Error()
			}
			if (found.Err != nil) != c.wrong || !strings.Contains(said, c.want) {
				t.Errorf("found %+v", found)
			}
			if found.Did != "" || k.asked() != 0 {
				t.Errorf("reactivated: %s", found.Did)
			}
		})
	}
}

// TestLostAgentIsReactivatedOnce: once for each change of certificates, also by two
// that look at the same time.
func TestLostAgentIsReactivatedOnce(t *testing.T) {
	h, w, k := newWatchOf(t)
	lost := probe.Attestation{State: 7, Event: "internal.verifier.not_reachable", Count: 5, Interval: "2s", Last: time.Now().Unix()}
	for _, again := range []string{"first change", "next change"} {
		k.set(lost, true)
		found := w.attested(t)
		if found.Err != nil || k.asked() != 1 || !strings.HasPrefix(found.Did, "reactivated: ") || !strings.Contains(found.Detail, "then ") {
			t.Fatalf("%s: %d times: %+v", again, k.asked(), found)
		}
		if healthy := w.attested(t); healthy.Err != nil || healthy.Did != "" || k.asked() != 1 {
			t.Errorf("%s: %d times: %+v", again, k.asked(), healthy)
		}
		k.set(lost, true)
		if found = w.attested(t); found.Err == nil || k.asked() != 0 || !strings.Contains(found.Err.Error(), "is not twice") {
			t.Errorf("%s: %d times: %+v", again, k.asked(), found)
		}
		if hint := remedy.Of(found.Err); !strings.Contains(hint, "keylime_tenant -c reactivate --uuid "+testAgent) {
			t.Errorf("hint: %s", hint)
		}
		h.must(h.renew(h.all()...))
		changed, err := h.installer.switched()
		h.must(err)
		if !changed.After(w.changed) {
			t.Fatalf("changed %s, then %s", w.changed, changed)
		}
		w.changed, lost.Last = changed, time.Now().Unix()
	}
	k.set(lost, true)
	other := &watch{
		installer: w.installer, tenant: w.tenant, own: w.own, bundle: w.bundle,
		verifier: w.verifier, registrar: w.registrar, changed: w.changed, patience: w.patience,
	}
	var group sync.WaitGroup
	for _, one := range []*watch{w, other} {
		group.Go(func() { one.judge(t.Context(), testAgent) })
	}
	group.Wait()
	if k.asked() != 1 {
		t.Errorf("reactivated %d times by two at once", k.asked())
	}
}

// TestLostAgentThatServesSomethingElse is not reactivated: it would be lost again.
func TestLostAgentThatServesSomethingElse(t *testing.T) {
	h, w, k := newWatchOf(t)
	k.set(probe.Attestation{State: 7, Event: "internal.verifier.not_reachable", Interval: "2s", Last: time.Now().Unix()}, true)
	other := loaded(t, h.ca, testca.Server())
	k.registered = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Leaf.Raw})
	found := w.judge(t.Context(), testAgent)
	var wrong *probe.WrongLeafError
	if len(found) != 2 || !errors.As(found[0].Err, &wrong) || found[1].Err == nil || k.asked() != 0 {
		t.Errorf("%d times: %+v", k.asked(), found)
	}
}
