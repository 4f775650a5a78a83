// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	versions := flag.String("supported-version", "2.1,2.2,2.3,2.4,2.5,2.6", "API versions to claim, the newest last; one alone is told as agents before 0.2.9 do")
	flag.Parse()
	log.SetFlags(log.LstdFlags)
	log.SetPrefix("keylime_agent (stand-in): ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*versions, ",")); err != nil {
		log.Printf("error: %v", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

// run follows the Rust agent's order: configuration as root, privileges, and
// only then the files that the unprivileged user must be able to read.
func run(ctx context.Context, versions []string) error {
	log.Print("this is not Keylime's agent: it stands in for it")
	c, err := loadConfig()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.IP, strconv.Itoa(c.Port)))
	if err != nil {
		return err
	}
	if err := dropTo(c.RunAs); err != nil {
		return errors.Join(fmt.Errorf("run as %s: %w", c.RunAs, err), listener.Close())
	}
	server := &http.Server{Handler: answers(c, versions), ReadHeaderTimeout: 10 * time.Second}
	if c.MTLS {
		if server.TLSConfig, err = c.tlsConfig(); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	return serve(ctx, server, listener)
}

func serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			log.Printf("Listening on https://%s", listener.Addr())
			failed <- server.ServeTLS(listener, "", "")
			return
		}
		log.Printf("Listening on http://%s", listener.Addr())
		failed <- server.Serve(listener)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}
