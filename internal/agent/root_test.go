// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// A host that only verifies others renews nothing: it is due while another root is
// installed than its anchor, and looks again in a day when it is the same.
func TestRootIsDueWhenItIsAnother(t *testing.T) {
	now := time.Now()
	anchor := &x509.Certificate{SerialNumber: big.NewInt(0x0102), NotAfter: now.AddDate(-1, 0, 0)} // its end is no reason either
	c := config.Certificate{Name: "push-agent", Profile: "keylime-push-agent", Anchor: "/a"}
	a := &Agent{
		config: &config.Config{Certificates: []config.Certificate{c}}, now: func() time.Time { return now },
		anchors: map[string][]*x509.Certificate{"/a": {anchor, {SerialNumber: big.NewInt(9)}}},
	}
	for name, row := range map[string]struct {
		installed []install.Certificate
		due       bool
	}{
		"nothing":      {nil, true},
		"other name":   {[]install.Certificate{{Name: "push-agent", Serial: "01:02", NotAfter: anchor.NotAfter}}, true},
		"other serial": {[]install.Certificate{{Name: "root", Serial: "09", NotAfter: anchor.NotAfter}}, true},
		"other end":    {[]install.Certificate{{Name: "root", Serial: "01:02", NotAfter: now}}, true},
		"the anchor":   {[]install.Certificate{{Name: "root", Serial: "01:02", NotAfter: anchor.NotAfter}}, false},
	} {
		got := a.describeRoot(&c, &install.Installed{Certificates: row.installed})
		if got.Name != "push-agent" || got.Service != "keylime_push_model_agent.service" || got.RenewAt.After(now) == row.due {
			t.Errorf("%s: %+v", name, got)
		}
	}
	orders, err := a.orders(nil)
	if err != nil || len(orders) > 0 {
		t.Errorf("orders %v, %v", orders, err)
	}
	if orders, err = a.orders([]string{"push-agent"}); err != nil || len(orders) > 0 {
		t.Errorf("orders by name %v, %v", orders, err)
	}
}
