// SPDX-License-Identifier: Apache-2.0

//go:build long && amd64

package vm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"funlab.casa/omen/test/world"
)

// A guest is the system on a computer: QEMU's guest agent there does what is asked over a
// serial line (its "Guest Agent Protocol Reference").
type guest struct {
	socket     string
	connection net.Conn
	answers    *json.Decoder
}

// await waits until the guest answers. dead says why it never will.
func (g *guest) await(ctx context.Context, dead func() error) error {
	var gone error
	err := world.Await(ctx, func(ctx context.Context) error {
		if gone = dead(); gone != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return g.dial(ctx)
	})
	return errors.Join(gone, err)
}

// dial opens the line. What the guest had to say on an earlier one may come first.
func (g *guest) dial(ctx context.Context) (err error) {
	if err := g.hangUp(); err != nil {
		return err
	}
	if g.connection, err = new(net.Dialer).DialContext(ctx, "unix", g.socket); err != nil {
		return err
	}
	g.answers = json.NewDecoder(g.connection)
	id := rand.Int32()
	var got int32
	if err := g.call(ctx, "guest-sync", map[string]any{"id": id}, &got); err != nil {
		return err
	}
	for got != id {
		if err := g.read(&got); err != nil {
			return err
		}
	}
	return nil
}

// hangUp closes the line.
func (g *guest) hangUp() error {
	if g.connection == nil {
		return nil
	}
	err := g.connection.Close()
	g.connection = nil
	return err
}

func (g *guest) call(ctx context.Context, command string, arguments map[string]any, answer any) error {
	deadline, _ := ctx.Deadline()
	if err := g.connection.SetDeadline(deadline); err != nil {
		return err
	}
	question := map[string]any{"execute": command, "arguments": arguments}
	if err := json.NewEncoder(g.connection).Encode(question); err != nil {
		return err
	}
	return g.read(answer)
}

func (g *guest) read(answer any) error {
	var said struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Description string `json:"desc"`
		} `json:"error"`
	}
	if err := g.answers.Decode(&said); err != nil {
		return err
	}
	if said.Error != nil {
		return errors.New("guest agent: " + said.Error.Description)
	}
	return json.Unmarshal(said.Return, answer)
}

// A run is how a command stands.
type run struct {
	Exited bool   `json:"exited"`
	Code   int    `json:"exitcode"`
	Signal int    `json:"signal"`
	Out    []byte `json:"out-data"`
	Err    []byte `json:"err-data"`
}

// Run runs a command in the guest, and waits for it.
func (g *guest) Run(ctx context.Context, arguments ...string) ([]byte, error) {
	if g.connection == nil {
		if err := g.dial(ctx); err != nil {
			return nil, err
		}
	}
	var started struct {
		PID int `json:"pid"`
	}
	err := g.call(ctx, "guest-exec", map[string]any{
		"path": arguments[0], "arg": arguments[1:], "capture-output": true,
		"env": []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root"},
	}, &started)
	if err != nil {
		return nil, errors.Join(err, g.hangUp())
	}
	done, err := g.wait(ctx, started.PID)
	if err != nil {
		return nil, errors.Join(err, g.hangUp())
	}
	output := append(done.Out, done.Err...)
	if done.Code != 0 || done.Signal != 0 {
		return output, fmt.Errorf("exit code %d, signal %d: %s", done.Code, done.Signal, output)
	}
	return output, nil
}

func (g *guest) wait(ctx context.Context, pid int) (done run, err error) {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		err = g.call(ctx, "guest-exec-status", map[string]any{"pid": pid}, &done)
		if err != nil || done.Exited {
			return done, err
		}
		select {
		case <-ctx.Done():
			return done, ctx.Err()
		case <-tick.C:
		}
	}
}
