// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"funlab.casa/omen/install/internal/cell"
)

// TestMain makes the test binary a Keylime service when it is started under the
// name of one. It reads its files once, as they all do.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "keylime_") {
		if err := standIn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(cell.Main(m))
}

// standIn serves what verifier, registrar and agent answer to probes.
func standIn(args []string) error {
	flags := flag.NewFlagSet("standin", flag.ExitOnError)
	listen := flags.String("listen", "", "")
	certificate := flags.String("cert", "", "")
	key := flags.String("key", "", "")
	ca := flags.String("ca", "", "")
	demand := flags.Bool("demand", false, "a client certificate is demanded (the agent)")
	lax := flags.Bool("lax", false, "any certificate of the CA opens the door")
	idle := flags.Bool("idle", false, "listen nowhere (the agent that pushes)")
	open := flags.Bool("open", false, "the list of agents is for everybody")
	plain := flags.String("plain", "", "answer this to /version, without TLS (the agent before mTLS)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *idle {
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		<-ended
		return nil
	}
	server := &http.Server{Addr: *listen, Handler: standInRoutes(*plain, *open)}
	if *plain != "" {
		return server.ListenAndServe()
	}
	pool, pair, err := readOnce(*ca, *certificate, *key)
	if err != nil {
		return err
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	if *demand {
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if *lax {
		server.TLSConfig.ClientAuth = tls.RequestClientCert
	}
	return server.ListenAndServeTLS("", "")
}

func readOnce(ca, certificate, key string) (*x509.CertPool, tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, pair, err
	}
	text, err := os.ReadFile(ca)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool, pair, err
}

func standInRoutes(plain string, open bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		if plain != "" {
			fmt.Fprint(w, plain)
			return
		}
		fmt.Fprint(w, `{"code":200,"status":"Success","results":{"current_version":"2.6","supported_versions":["2.5","2.6"]}}`)
	})
	mux.HandleFunc("GET /v2.6/agents/", func(w http.ResponseWriter, r *http.Request) {
		if !open && len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"code":200,"status":"Success","results":{"uuids":[]}}`)
	})
	return mux
}
