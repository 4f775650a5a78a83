// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// listening serves figures and gives the address.
func listening(t *testing.T) (m *Metrics, address string, stop func()) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address = free.Addr().String()
	must(t, free.Close())
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	m = New("v", "", slog.New(slog.DiscardHandler))
	m.Observed(observed())
	must(t, m.Listen(ctx, address))
	return m, address, cancel
}

// ask sends a request as it stands and returns status and body.
func ask(t *testing.T, address, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.WriteString(conn, request); err != nil {
		return 0, ""
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body) // who sends too much may see a reset behind the answer
	return response.StatusCode, string(body)
}

// TestListen: GET /metrics at this host, and nothing else.
func TestListen(t *testing.T) {
	m, address, _ := listening(t)
	_, port, _ := net.SplitHostPort(address)
	line := func(first, host string) string { return fmt.Sprintf("%s HTTP/1.1\r\nHost: %s\r\n\r\n", first, host) }
	for _, row := range []struct {
		request string
		status  int
	}{
		{line("GET /metrics", address), 200},
		{line("GET /metrics", "localhost:"+port), 200},
		{line("GET /metrics", "[::1]:"+port), 200},
		{line("GET /metrics", "evil.example:"+port), 421},
		{line("GET /metrics", "10.10.2.62:"+port), 421},
		{line("GET /metrics", ""), 421},
		{line("GET /", address), 404},
		{line("GET /metrics/", address), 404},
		{line("GET /debug/pprof/", address), 404},
		{line("POST /metrics", address), 405},
		{line("HEAD /metrics", address), 405},
		{"GET /metrics HTTP/1.1\r\nHost: " + address + "\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
	} {
		status, body := ask(t, address, row.request)
		if status != row.status {
			t.Errorf("%.60q: %d, not %d", row.request, status, row.status)
		}
		text, err := m.Text()
		must(t, err)
		if row.status == 200 && body != string(text) || row.status != 200 && strings.Contains(body, "omen_") {
			t.Errorf("%.60q: %s", row.request, body)
		}
	}
}

// TestListenEnds with its context, and leaves the port free.
func TestListenEnds(t *testing.T) {
	m, address, stop := listening(t)
	if err := m.Listen(t.Context(), address); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port of somebody else: %v", err)
	}
	stop()
	deadline := time.Now().Add(10 * time.Second)
	for err := m.Listen(t.Context(), address); err != nil; err = m.Listen(t.Context(), address) {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestSlowCallersAreLeft: who sends nothing does not keep a place for ever.
func TestSlowCallersAreLeft(t *testing.T) {
	_, address, _ := listening(t)
	for range atOnce + 2 {
		conn, err := net.Dial("tcp", address)
		must(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\n")
		must(t, err)
	}
	if status, _ := ask(t, address, "GET /metrics HTTP/1.1\r\nHost: "+address+"\r\n\r\n"); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestListenOnTheLoopbackAlone(t *testing.T) {
	var log bytes.Buffer
	m := New("v", "", slog.New(slog.NewTextHandler(&log, nil)))
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "localhost:0", "192.0.2.1:9464", "x"} {
		if err := m.Listen(t.Context(), address); err == nil {
			t.Errorf("listens at %s", address)
		}
	}
}
