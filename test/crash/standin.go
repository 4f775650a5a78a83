// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"
)

// StandIn serves what verifier and registrar answer to probes. Like them it reads
// its files once.
func StandIn(args []string) error {
	flags := flag.NewFlagSet("standin", flag.ContinueOnError)
	listen := flags.String("listen", "", "address")
	certificate := flags.String("cert", "", "file")
	key := flags.String("key", "", "file")
	ca := flags.String("ca", "", "file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(bundle)
	server := &http.Server{
		Addr: *listen, Handler: answers(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven},
	}
	return server.ListenAndServeTLS("", "")
}

func answers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"code":200,"status":"Success","results":{"current_version":"2.6","supported_versions":["2.6"]}}`) //nolint:errcheck // the prober may have gone
	})
	mux.HandleFunc("GET /v2.6/agents/", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"code":200,"status":"Success","results":{"uuids":[]}}`) //nolint:errcheck // the prober may have gone
	})
	return mux
}
