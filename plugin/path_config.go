// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/vendors"
	"funlab.casa/omen/attest/verify"
)

// config is what an operator says about the whole mount. Without roots, or
// without audiences, nobody gets in.
type config struct {
	BuiltinRoots    bool     `json:"builtin_roots"`
	HardwareRoots   string   `json:"hardware_roots"`
	FirmwareRoots   string   `json:"firmware_roots"`
	VirtualRoots    string   `json:"virtual_roots"`
	EKIntermediates string   `json:"ek_intermediates"`
	Audiences       []string `json:"audiences"`
	PendingLimit    int      `json:"pending_limit"`
	MaxEventLog     int      `json:"max_event_log"`

	// sum identifies the configuration as stored.
	sum [sha256.Size]byte
}

func (c *config) stamp(sum [sha256.Size]byte) { c.sum = sum }

// Bounds of the configuration, and what it says until an operator says otherwise.
const (
	maxBundle      = 1 << 20 // bytes of PEM
	maxAudiences   = 64
	defaultPending = 100
	maxPending     = 10_000
)

func defaultConfig() *config {
	return &config{Audiences: []string{}, PendingLimit: defaultPending, MaxEventLog: attest.MaxEventLog}
}

// bundles are the PEM fields by name.
func (c *config) bundles() map[string]*string {
	return map[string]*string{
		"hardware_roots": &c.HardwareRoots, "firmware_roots": &c.FirmwareRoots, "virtual_roots": &c.VirtualRoots,
		"ek_intermediates": &c.EKIntermediates,
	}
}

func (b *backend) pathConfig() *framework.Path {
	return &framework.Path{
		Pattern:      "config",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       configFields(),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:     b.readConfig,
				Summary:      "Read the configuration of the mount.",
				Responses:    ok(configFields()),
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "configuration"},
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.writeConfig,
				Summary:                     "Configure the mount.",
				Responses:                   noContent(),
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "configure"},
			},
		},
		HelpSynopsis:    configSynopsis,
		HelpDescription: configDescription,
	}
}

func configFields() map[string]*framework.FieldSchema {
	roots := func(class string) *framework.FieldSchema {
		return &framework.FieldSchema{
			Type:        framework.TypeString,
			Description: "PEM bundle of root certificates to believe for TPMs of class " + class + ".",
		}
	}
	return map[string]*framework.FieldSchema{
		"builtin_roots": {
			Type: framework.TypeBool, Default: false,
			Description: "Believe the vendors of the built-in bundle, each for its class.",
		},
		"hardware_roots": roots("hardware: chips"),
		"firmware_roots": roots("firmware: TPMs in the platform's firmware"),
		"virtual_roots":  roots("virtual: TPMs of hypervisors and emulators"),
		"ek_intermediates": {
			Type:        framework.TypeString,
			Description: "PEM bundle of vendors' intermediate certificates that hosts need not send.",
		},
		"audiences": {
			Type: framework.TypeCommaStringSlice,
			Description: "Names under which hosts dial this mount, each https://host:port|namespace/|auth/mount, " +
				"with an empty namespace for the root one. Empty: nobody gets in.",
		},
		"pending_limit": {
			Type: framework.TypeInt, Default: defaultPending,
			Description: "How many hosts can wait for approval. When so many wait, others are refused.",
		},
		"max_event_log": {
			Type: framework.TypeInt, Default: attest.MaxEventLog,
			Description: "Longest event log to read, in bytes; at most 1048576.",
		},
	}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	c, err := getConfig(ctx, reader{storage: req.Storage})
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"builtin_roots": c.BuiltinRoots, "audiences": c.Audiences,
		"pending_limit": c.PendingLimit, "max_event_log": c.MaxEventLog,
	}
	for name, bundle := range c.bundles() {
		data[name] = *bundle
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	return answer(b.change(ctx, req.Storage, func(s logical.Storage) error {
		c, err := getConfig(ctx, reader{storage: s})
		if err != nil {
			return err
		}
		c.set(d)
		if err := c.check(); err != nil {
			return mistake(err.Error())
		}
		return save(ctx, s, configKey, c)
	}))
}

// set takes over the fields that a write names.
func (c *config) set(d *framework.FieldData) {
	for name, bundle := range c.bundles() {
		if v, ok := d.GetOk(name); ok {
			*bundle = v.(string)
		}
	}
	if v, ok := d.GetOk("builtin_roots"); ok {
		c.BuiltinRoots = v.(bool)
	}
	if v, ok := d.GetOk("audiences"); ok {
		c.Audiences = v.([]string)
	}
	if v, ok := d.GetOk("pending_limit"); ok {
		c.PendingLimit = v.(int)
	}
	if v, ok := d.GetOk("max_event_log"); ok {
		c.MaxEventLog = v.(int)
	}
}

// getConfig reads the configuration; one that was never written admits nobody.
func getConfig(ctx context.Context, r reader) (*config, error) {
	c, err := get[config](ctx, r, configKey)
	if err != nil || c != nil {
		return c, err
	}
	return defaultConfig(), nil
}

func (c *config) check() error {
	for name, bundle := range c.bundles() {
		if len(*bundle) > maxBundle {
			return fmt.Errorf("%s has at most %d bytes", name, maxBundle)
		}
	}
	if _, err := c.parseRoots(); err != nil {
		return fmt.Errorf("roots and ek_intermediates are PEM bundles of certificates: %w", err)
	}
	if c.PendingLimit < 0 || c.PendingLimit > maxPending {
		return fmt.Errorf("pending_limit is 0 to %d", maxPending)
	}
	if c.MaxEventLog < 0 || c.MaxEventLog > attest.MaxEventLog {
		return fmt.Errorf("max_event_log is 0 to %d", attest.MaxEventLog)
	}
	return c.checkAudiences()
}

func (c *config) checkAudiences() error {
	if len(c.Audiences) > maxAudiences {
		return fmt.Errorf("at most %d audiences", maxAudiences)
	}
	for i, audience := range c.Audiences {
		if err := checkAudience(audience); err != nil {
			return fmt.Errorf("audience %d: %w", i+1, err)
		}
		if slices.Contains(c.Audiences[:i], audience) {
			return fmt.Errorf("audience %d is there twice", i+1)
		}
	}
	return nil
}

// parseRoots reads the operator's roots, and the built-in ones where wanted.
func (c *config) parseRoots() (*verify.Roots, error) {
	roots := map[attest.EKClass][]byte{
		attest.ClassHardware: []byte(c.HardwareRoots),
		attest.ClassFirmware: []byte(c.FirmwareRoots),
		attest.ClassVirtual:  []byte(c.VirtualRoots),
	}
	intermediates := []byte(c.EKIntermediates)
	if c.BuiltinRoots {
		for class := range roots {
			roots[class] = append(roots[class], vendors.Roots(class)...)
		}
		intermediates = append(intermediates, vendors.Intermediates()...)
	}
	return verify.ParseRoots(roots, intermediates)
}

// checkAudience refuses what a host would spell in another way: it would never
// match.
func checkAudience(audience string) error {
	parts := strings.Split(audience, "|")
	if len(audience) > attest.MaxAudience || len(parts) != 3 {
		return fmt.Errorf("is not https://host:port|namespace/|auth/mount")
	}
	canonical, err := attest.Audience(parts[0], parts[1], parts[2])
	if err != nil {
		return err
	}
	if canonical != audience {
		return fmt.Errorf("is written %s", canonical)
	}
	return nil
}

// trust keeps the parsed roots of the stored configuration. It goes by the hash of
// what is stored, so that no change of the configuration can be missed.
type trust struct {
	mu    sync.Mutex
	sum   [sha256.Size]byte
	roots *verify.Roots
}

func (t *trust) parse(c *config) (*verify.Roots, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.roots != nil && t.sum == c.sum {
		return t.roots, nil
	}
	roots, err := c.parseRoots()
	if err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored roots: %v", err)
	}
	t.sum, t.roots = c.sum, roots
	return roots, nil
}

const (
	configSynopsis    = "Say which TPM vendors to believe and by which addresses hosts dial this mount."
	configDescription = `
A host gets in only if its TPM's endorsement key certificate chains to a root
that is configured here, of a class that the role takes, and if it proved itself
for one of audiences: the address it dials, as the agent's configuration spells
it. A proof made for another server, namespace
or mount is refused. Fields that a write leaves out keep their value.
`
)
