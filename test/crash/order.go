// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"funlab.casa/omen/install"
)

// Act is what an order asks for.
type Act string

// The acts.
const (
	Install Act = "install" // install, reload, probe
	Refuse  Act = "refuse"  // install, reload, and roll back as after a failed probe
	Unseal  Act = "unseal"  // what a host does at boot
)

// Order is one installation, as the tests hand it to the program.
type Order struct {
	Root       string // the host's root directory
	Act        Act
	Inseparate bool // renameat2 has no RENAME_EXCHANGE
	Items      []Item
}

// Item is an install.Item that can be written down: its keys are worth nothing.
type Item struct {
	Name, Profile          string
	Chain, Key, Sealed, CA string // PEM; Sealed is what seal makes
	Service                install.Service
}

// The words that the program prints as it goes.
const (
	SaysProbing = "probing" // Install and Reload have returned
	SaysProven  = "proven"  // Probe has returned, and nothing was wrong
)

// errRefused is what a probe would say.
var errRefused = errors.New("refused, as ordered")

// Load reads an order from a file.
func Load(path string) (Order, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Order{}, err
	}
	var order Order
	return order, json.Unmarshal(text, &order)
}

// Perform carries an order out as the agent would.
func (o Order) Perform(ctx context.Context, say io.Writer) error {
	if o.Inseparate {
		if err := forbidExchange(); err != nil {
			return fmt.Errorf("forbid RENAME_EXCHANGE: %w", err)
		}
	}
	installer := &install.Installer{Root: o.Root, Outage: 10 * time.Second}
	if o.Act == Unseal {
		_, err := installer.Unseal(ctx, unseal)
		return err
	}
	change, err := installer.Install(ctx, o.items())
	if err != nil {
		return err
	}
	if err = change.Reload(ctx); err == nil {
		err = o.probe(ctx, change, say)
	}
	if err != nil {
		return errors.Join(err, change.RollBack(ctx), change.Close())
	}
	fmt.Fprintln(say, SaysProven)
	return change.Close()
}

func (o Order) probe(ctx context.Context, change *install.Change, say io.Writer) error {
	if o.Act == Refuse {
		return errRefused
	}
	fmt.Fprintln(say, SaysProbing)
	return change.Probe(ctx)
}

func (o Order) items() []install.Item {
	var items []install.Item
	for _, i := range o.Items {
		item := install.Item{Name: i.Name, Profile: i.Profile, Chain: []byte(i.Chain), Key: install.KeyPEM(i.Key), CA: []byte(i.CA), Service: i.Service}
		if i.Sealed != "" {
			item.Sealed = []byte(i.Sealed)
		}
		items = append(items, item)
	}
	return items
}

// seal stands for the TPM: it wraps a key so that it is no key any more.
func seal(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }

func unseal(_ context.Context, sealed []byte, _ *x509.Certificate) (install.KeyPEM, error) {
	key, err := base64.StdEncoding.DecodeString(string(sealed))
	return install.KeyPEM(key), err
}
