// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// The alerts by which servers refuse a client certificate (RFC 8446, section 6.2).
const (
	alertHandshakeFailure  tls.AlertError = 40
	alertBadCertificate    tls.AlertError = 42
	alertUnsupported       tls.AlertError = 43
	alertCertificateUnkown tls.AlertError = 46
	alertUnknownCA         tls.AlertError = 48
	alertAccessDenied      tls.AlertError = 49
	alertRequired          tls.AlertError = 116
)

// ErrNotRefused means that a server accepted a client certificate that must not
// open its door.
var ErrNotRefused = errors.New("accepts a server certificate as client")

// ErrOpen means that a server has a door that is open to clients without any
// certificate.
var ErrOpen = errors.New("answers a client that has no certificate")

// ErrUnknownCA means that a server does not know the CA of its own certificate:
// it will refuse every client, however right.
var ErrUnknownCA = errors.New("does not trust the CA of the installed certificates")

// Served makes a complete handshake and checks that the installed leaf is
// served, under the standard verification and up to the root. A server that
// then asks for a client certificate has done its part.
func Served(ctx context.Context, t Target) error {
	asked := false
	conn, err := t.handshake(ctx, nil, &asked)
	if err == nil {
		return conn.NetConn().Close() // no close_notify: nothing was said
	}
	// The demand for a client certificate may end the handshake before we have
	// written the last of it.
	if alert, isAlert := alertOf(err); asked && (hungUp(err) || isAlert && refusesClient(alert)) {
		return nil
	}
	return err
}

// Refuses presents own, a certificate without clientAuth, and checks that the
// server ends the conversation because of it. ErrNotRefused and ErrUnknownCA
// are the two ways this goes wrong at a server that works; where clients have a CA
// of their own, that it does not know this one is the refusal.
func Refuses(ctx context.Context, t Target, own tls.Certificate) error {
	leafOnly := own
	leafOnly.Certificate = own.Certificate[:1] // the server must know the intermediate itself
	asked, err := t.ending(ctx, &leafOnly)
	alert, isAlert := alertOf(err)
	switch {
	case err == nil || asked && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: %w", t.Address, ErrNotRefused)
	case !asked:
		return err
	case isAlert && alert == alertUnknownCA && t.Apart:
		return nil
	case isAlert && alert == alertUnknownCA:
		return fmt.Errorf("%s: %w", t.Address, ErrUnknownCA)
	case hungUp(err) || isAlert && alert != alertRequired && refusesClient(alert):
		return nil
	}
	return err
}

// Demands shows no certificate, and checks that the server asks for one and ends
// the conversation because of it: what an agent has to do. ErrOpen is a server that
// does not.
func Demands(ctx context.Context, t Target) error {
	asked, err := t.ending(ctx, nil)
	alert, isAlert := alertOf(err)
	switch {
	case err == nil || asked && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: %w", t.Address, ErrOpen)
	case asked && (hungUp(err) || isAlert && refusesClient(alert)):
		return nil
	}
	return err
}

// ending plays a client with this certificate, or with none, and returns how the
// server ends the conversation: nil where it did not ask for a certificate.
func (t Target) ending(ctx context.Context, client *tls.Certificate) (asked bool, err error) {
	conn, err := t.handshake(ctx, client, &asked)
	if err == nil && asked {
		// In TLS 1.3 the answer comes behind the handshake. Nothing is written
		// before it is read: unread bytes would turn the alert into a reset.
		_, err = conn.Read(make([]byte, 1))
	}
	if conn != nil {
		conn.NetConn().Close()
	}
	return asked, err
}

// hungUp reports that the other side closed the connection, with or without a
// reset.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func refusesClient(alert tls.AlertError) bool {
	switch alert {
	case alertHandshakeFailure, alertBadCertificate, alertUnsupported, alertCertificateUnkown, alertAccessDenied, alertRequired:
		return true
	}
	return false
}

// handshake connects and shakes hands, offering client when it is asked for a
// certificate. The connection has a deadline. By the time a server's demand is
// answered, crypto/tls has verified its certificate and its possession of the
// key, in TLS 1.3 its Finished too: asked means all of that.
func (t Target) handshake(ctx context.Context, client *tls.Certificate, asked *bool) (*tls.Conn, error) {
	config, err := t.config()
	if err != nil {
		return nil, err
	}
	offer := always(client)
	config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*asked = true
		return offer(request)
	}
	tcp, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(tcp, config)
	err = errors.Join(tcp.SetDeadline(time.Now().Add(dialTimeout)), conn.HandshakeContext(ctx))
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("%s: %w", t.Address, t.explain(err))
	}
	return conn, nil
}

// always offers this certificate, or none: the default would hold it back from a
// server that lists other CAs, and the reason would be lost.
func always(client *tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if client == nil {
		client = &tls.Certificate{}
	}
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
}

// alertOf returns the alert that the server sent, if err is one.
func alertOf(err error) (tls.AlertError, bool) {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return 0, false
	}
	// crypto/tls keeps its alert type to itself; the text is the same.
	for code := range 256 {
		if alert := tls.AlertError(code); alert.Error() == remote.Err.Error() {
			return alert, true
		}
	}
	return 0, false
}
