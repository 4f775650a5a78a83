// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What gRPC needs of HTTP/2 for one call with one request and a stream of answers: see
// doc/PROTOCOL-HTTP2.md of grpc/grpc.

// code is a status code of gRPC.
type code int

const (
	invalidArgument   code = 3
	permissionDenied  code = 7
	resourceExhausted code = 8
	unimplemented     code = 12
	unavailable       code = 14
)

// status is how a call ends that does not go well. Its words are ours and plain ASCII.
type status struct {
	code code
	says string
}

// Error gives the words.
func (s *status) Error() string { return s.says }

const (
	contentType = "application/grpc"
	maxRequest  = 4 << 10 // both requests are empty messages
	patience    = 10 * time.Second
)

// isCall reports that a request is a call of gRPC.
func isCall(r *http.Request) bool {
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return r.Method == http.MethodPost && (kind == contentType || strings.HasPrefix(kind, contentType+"+"))
}

// readRequest reads the one message of a request, and looks no further into it: what
// it may hold is not known today.
func readRequest(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(r.Body, head); err != nil {
		return &status{invalidArgument, "no request"}
	}
	switch size := binary.BigEndian.Uint32(head[1:]); {
	case head[0] != 0:
		return &status{unimplemented, "compression is not used"}
	case size > maxRequest:
		return &status{resourceExhausted, "the request is too large"}
	default:
		if _, err := io.CopyN(io.Discard, r.Body, int64(size)); err != nil {
			return &status{invalidArgument, "half a request"}
		}
	}
	return control.SetReadDeadline(time.Time{})
}

// send writes one message and has it leave. Who does not take it in time is left.
func send(w http.ResponseWriter, message []byte) error {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	frame := make([]byte, 5, 5+len(message))
	binary.BigEndian.PutUint32(frame[1:], uint32(len(message)))
	frame = append(frame, message...)
	defer clear(frame) // it may hold a key
	if _, err := w.Write(frame); err != nil {
		return err
	}
	if err := control.Flush(); err != nil {
		return err
	}
	return control.SetWriteDeadline(time.Time{})
}

// end ends a call with the status that err is.
func end(w http.ResponseWriter, err error) {
	number, says := unavailable, "the connection failed"
	var s *status
	switch {
	case err == nil:
		number, says = 0, ""
	case errors.As(err, &s):
		number, says = s.code, s.says
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(int(number)))
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", strings.ReplaceAll(says, "%", "%25"))
}
