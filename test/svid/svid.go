// SPDX-License-Identifier: Apache-2.0

package svid

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// PlayVariable says what a program that starts itself again is to do.
const PlayVariable = "OMEN_SVID_PLAY"

// What it can do. Each prints its lines, and "code NAME" with the status that it ends in.
const (
	Watch   = "watch"   // print each SVID and bundle, and talk to itself with them, until TERM
	Fetch   = "fetch"   // print the SVID once
	Bundles = "bundles" // print the bundles once
	JWT     = "jwt"     // ask for a JWT-SVID
	Bare    = "bare"    // ask for the SVID without the security header
)

// Play does what the environment says, and reports that it says something. The socket is
// where SPIFFE_ENDPOINT_SOCKET is.
func Play() (code int, done bool) {
	what := os.Getenv(PlayVariable)
	if what == "" {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	plays := map[string]func(context.Context, io.Writer) error{Watch: watch, Fetch: fetch, Bundles: bundles, JWT: jwt, Bare: bare}
	play := plays[what]
	if play == nil {
		fmt.Fprintf(os.Stderr, "no play %q\n", what)
		return 2, true
	}
	err := play(ctx, os.Stdout)
	fmt.Printf("code %s\n", status.Code(err))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// watch is a workload as go-spiffe has them: one source, whatever it holds.
func watch(ctx context.Context, out io.Writer) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	for {
		updated := source.Updated()
		own, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		peer, err := talk(ctx, source, own)
		if err != nil {
			return fmt.Errorf("talk: %w", err)
		}
		fmt.Fprintf(out, "svid %s %x talked to %x\n", own.ID, own.Certificates[0].SerialNumber.Bytes(), peer)
		select {
		case <-ctx.Done():
			return nil
		case <-updated:
		}
	}
}

type both interface {
	x509svid.Source
	x509bundle.Source
}

// talk has the workload shake hands with itself, each side verifying the other by the
// bundle of the source, and gives the serial number that was seen.
func talk(ctx context.Context, source both, own *x509svid.SVID) ([]byte, error) {
	same := tlsconfig.AuthorizeID(own.ID)
	l, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, same))
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	heard := make(chan error, 1)
	go func() { heard <- hear(l) }()
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: tlsconfig.MTLSClientConfig(source, source, same)}
	c, err := dialer.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	word := make([]byte, 4)
	_, err = io.ReadFull(c, word)
	if err = errors.Join(err, <-heard); err != nil {
		return nil, err
	}
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Bytes(), nil
}

// hear says something to who has shown its certificate.
func hear(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "omen")
	return err
}

func fetch(ctx context.Context, out io.Writer) error {
	own, err := workloadapi.FetchX509SVID(ctx)
	if err == nil {
		fmt.Fprintf(out, "svid %s %x\n", own.ID, own.Certificates[0].SerialNumber.Bytes())
	}
	return err
}

func bundles(ctx context.Context, out io.Writer) error {
	set, err := workloadapi.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	for _, bundle := range set.Bundles() {
		for _, root := range bundle.X509Authorities() {
			fmt.Fprintf(out, "bundle %s %s\n", bundle.TrustDomain(), root.Subject.CommonName)
		}
	}
	return nil
}

func jwt(ctx context.Context, _ io.Writer) error {
	_, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "omen"})
	return err
}

func bare(ctx context.Context, _ io.Writer) error {
	c, err := grpc.NewClient(os.Getenv(workloadapi.SocketEnv), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stream, err := workload.NewSpiffeWorkloadAPIClient(c).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}
