// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAuthValueDoesNotShow(t *testing.T) {
	value, err := NewAuthValue([]byte("do not tell"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("open", "auth", value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("open", "auth", value, "config", Config{OwnerAuth: value})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb+" "+verb, value, Config{OwnerAuth: value})
	}
	if _, err := json.Marshal(struct{ Auth AuthValue }{value}); err == nil {
		t.Error("was serialised")
	}
	out.WriteString(value.String() + value.GoString())
	for _, form := range []string{"do not tell", hex.EncodeToString([]byte("do not tell")), "100 111 32 110"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the value shows in %s", out.String())
		}
	}
}

func TestNewAuthValueBounds(t *testing.T) {
	for name, value := range map[string][]byte{"too long": bytes.Repeat([]byte{1}, 65), "zero byte": {1, 0, 2}} {
		if _, err := NewAuthValue(value); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := NewAuthValue(bytes.Repeat([]byte{1}, 64)); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.EBUSY: ErrBusy, unix.EACCES: ErrDenied, unix.EPERM: ErrDenied, unix.ENOENT: ErrAbsent,
		unix.ENODEV: ErrAbsent, unix.ENXIO: ErrAbsent, unix.ECONNREFUSED: ErrAbsent,
	} {
		err := explain(&fs.PathError{Op: "open", Path: "/dev/tpmrm0", Err: errno})
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
	if err := explain(unix.EIO); errors.Is(err, ErrAbsent) || !errors.Is(err, unix.EIO) {
		t.Errorf("EIO becomes %v", err)
	}
}

func TestCommandName(t *testing.T) {
	for want, command := range map[string][]byte{
		"Quote":      {0x80, 2, 0, 0, 0, 10, 0, 0, 0x01, 0x58},
		"0x20000001": {0x80, 2, 0, 0, 0, 10, 0x20, 0, 0, 1},
		"malformed":  {0x80, 2},
	} {
		if got := CommandName(command); got != want {
			t.Errorf("CommandName(%x) = %q, want %q", command, got, want)
		}
	}
}

func TestTrimCertificate(t *testing.T) {
	der := []byte{0x30, 0x03, 0x02, 0x01, 0x05}
	wrap := func(length byte, content []byte) []byte {
		return append([]byte{0x10, 0x01, 0x00, 0, length}, content...)
	}
	for name, content := range map[string][]byte{
		"plain":             der,
		"padded with 0xff":  append(bytes.Clone(der), 0xff, 0xff),
		"padded with zeros": append(bytes.Clone(der), 0, 0),
		"TCG header":        append(wrap(5, der), 0xff, 0xff),
	} {
		if got, err := trimCertificate(content); err != nil || !bytes.Equal(got, der) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	for name, content := range map[string][]byte{
		"empty": {}, "erased": bytes.Repeat([]byte{0xff}, 64), "zeros": make([]byte, 64), "cut": der[:3],
		"header claims too much": wrap(6, der), "not a sequence": {0x02, 0x01, 0x05},
	} {
		if got, err := trimCertificate(content); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}
