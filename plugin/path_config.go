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
	"funlab.casa/omen/attest/verify"
)

// config is what an operator says about the whole mount. Without roots, or
// without audiences, nobody gets in.
type config struct {
	EKRoots         string   `json:"ek_roots"`
	EKIntermediates string   `json:"ek_intermediates"`
	Audiences       []string `json:"audiences"`
}

// Bounds of the configuration.
const (
	maxBundle    = 1 << 20 // bytes of PEM
	maxAudiences = 64
)

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
	return map[string]*framework.FieldSchema{
		"ek_roots": {
			Type:        framework.TypeString,
			Description: "PEM bundle of the TPM vendors' root certificates to believe. Empty: nobody gets in.",
		},
		"ek_intermediates": {
			Type:        framework.TypeString,
			Description: "PEM bundle of vendors' intermediate certificates that hosts need not send.",
		},
		"audiences": {
			Type: framework.TypeCommaStringSlice,
			Description: "Names under which hosts dial this mount, each https://host:port|namespace/|auth/mount, " +
				"with an empty namespace for the root one. Empty: nobody gets in.",
		},
	}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	c, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"ek_roots":         c.EKRoots,
		"ek_intermediates": c.EKIntermediates,
		"audiences":        c.Audiences,
	}}, nil
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	c, err := loadConfig(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if v, ok := d.GetOk("ek_roots"); ok {
		c.EKRoots = v.(string)
	}
	if v, ok := d.GetOk("ek_intermediates"); ok {
		c.EKIntermediates = v.(string)
	}
	if v, ok := d.GetOk("audiences"); ok {
		c.Audiences = v.([]string)
	}
	if err := c.check(); err != nil {
		return logical.ErrorResponse("%s", err.Error()), nil
	}
	return done(save(ctx, req.Storage, configKey, c))
}

// loadConfig reads the configuration; one that was never written admits nobody.
func loadConfig(ctx context.Context, s logical.Storage) (*config, error) {
	c, err := load[config](ctx, s, configKey)
	if err != nil || c != nil {
		return c, err
	}
	return &config{Audiences: []string{}}, nil
}

func (c *config) check() error {
	if len(c.EKRoots) > maxBundle || len(c.EKIntermediates) > maxBundle {
		return fmt.Errorf("ek_roots and ek_intermediates have at most %d bytes each", maxBundle)
	}
	if _, err := verify.ParseRoots([]byte(c.EKRoots), []byte(c.EKIntermediates)); err != nil {
		return fmt.Errorf("ek_roots and ek_intermediates are PEM bundles of certificates: %w", err)
	}
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

// vendors keeps the parsed roots of the stored configuration. It goes by the
// text itself, so that no change of the configuration can be missed.
type vendors struct {
	mu    sync.Mutex
	text  [sha256.Size]byte
	roots *verify.Roots
}

func (v *vendors) parse(c *config) (*verify.Roots, error) {
	text := sha256.Sum256(fmt.Appendf(nil, "%d %s%s", len(c.EKRoots), c.EKRoots, c.EKIntermediates))
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.roots != nil && v.text == text {
		return v.roots, nil
	}
	roots, err := verify.ParseRoots([]byte(c.EKRoots), []byte(c.EKIntermediates))
	if err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored roots: %v", err)
	}
	v.text, v.roots = text, roots
	return roots, nil
}

const (
	configSynopsis    = "Say which TPM vendors to believe and by which addresses hosts dial this mount."
	configDescription = `
A host gets in only if its TPM's endorsement key certificate chains to one of
ek_roots and if it proved itself for one of audiences: the address it dials, as
the agent's configuration spells it. A proof made for another server, namespace
or mount is refused. Fields that a write leaves out keep their value.
`
)
