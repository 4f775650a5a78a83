// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheckAcceptsBounds(t *testing.T) {
	label := strings.Repeat("a", 63)
	rows := map[string]func(*Request){
		"seed":             func(*Request) {},
		"shortest":         func(r *Request) { r.Name, r.CommonName, r.DNS, r.IP = "a", "a", nil, nil },
		"longest name":     func(r *Request) { r.DNS = []string{label + "." + label + "." + label + "." + label[:61]} },
		"longest common":   func(r *Request) { r.CommonName = label[:31] + "." + label[:32] },
		"digits in labels": func(r *Request) { r.CommonName = "4.example.0a" },
		"punycode":         func(r *Request) { r.CommonName = "xn--mnchen-3ya.example" },
		"common name too":  func(r *Request) { r.DNS = []string{r.CommonName} },
		"shortest ttl":     func(r *Request) { r.TTL = MinTTL },
		"longest ttl":      func(r *Request) { r.TTL = MaxTTL },
		"SPIFFE ID":        func(r *Request) { r.URI = "spiffe://example.org/a/b" },
	}
	for name, change := range rows {
		r := newWorld(t).request
		change(&r)
		if err := r.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	label := strings.Repeat("a", 63)
	ip := func(text string) func(*Request) {
		return func(r *Request) { r.IP = append(r.IP, netip.MustParseAddr(text)) }
	}
	dns := func(name string) func(*Request) {
		return func(r *Request) { r.DNS = append(r.DNS, name) }
	}
	uri := func(text string) func(*Request) { return func(r *Request) { r.URI = text } }
	rows := map[string]struct {
		change func(*Request)
		word   string // what the error must mention
	}{
		"no name":            {func(r *Request) { r.Name = "" }, "name"},
		"path as name":       {func(r *Request) { r.Name = "../x" }, "name"},
		"long name":          {func(r *Request) { r.Name = label + "a" }, "name"},
		"no common name":     {func(r *Request) { r.CommonName = "" }, "common name"},
		"long common name":   {func(r *Request) { r.CommonName = label + ".a" }, "common name"},
		"e-mail as common":   {func(r *Request) { r.CommonName = "root@example.org" }, "common name"},
		"wildcard":           {dns("*.example.org"), "wildcard"},
		"upper case":         {dns("Example.org"), "lower case"},
		"final dot":          {dns("example.org."), "dns"},
		"empty label":        {dns("a..b"), "dns"},
		"empty":              {dns(""), "dns"},
		"hyphen first":       {dns("-a.example"), "dns"},
		"hyphen last":        {dns("a-.example"), "dns"},
		"underscore":         {dns("a_b.example"), "dns"},
		"long label":         {dns(label + "a.example"), "dns"},
		"long DNS name":      {dns(strings.Repeat("a.", 127)), "dns"},
		"NUL":                {dns("a\x00.example"), "dns"},
		"umlaut":             {dns("münchen.example"), "dns"},
		"address as DNS":     {dns("10.10.2.62"), "under ip"},
		"IPv6 as DNS":        {dns("::1"), "dns"},
		"DNS name twice":     {dns("localhost"), "twice"},
		"too many DNS names": {func(r *Request) { r.DNS = many(33) }, "33"},
		"invalid address":    {func(r *Request) { r.IP = []netip.Addr{{}} }, "ip"},
		"zone":               {ip("fe80::1%eth0"), "zone"},
		"IPv4 in IPv6":       {ip("::ffff:10.10.2.62"), "10.10.2.62"},
		"unspecified":        {ip("0.0.0.0"), "ip"},
		"multicast":          {ip("ff02::1"), "ip"},
		"address twice":      {ip("10.10.2.62"), "twice"},
		"too many addresses": {func(r *Request) { r.IP = make([]netip.Addr, 33) }, "33"},
		"https URI":          {uri("https://example.org/a"), "SPIFFE"},
		"no path":            {uri("spiffe://example.org"), "path"},
		"query":              {uri("spiffe://example.org/a?b"), "SPIFFE"},
		"glob":               {uri("spiffe://example.org/*"), "SPIFFE"},
		"long URI":           {uri("spiffe://example.org/" + strings.Repeat("a", 2048)), "uri"},
		"no usage":           {func(r *Request) { r.Usage = 0 }, "usage"},
		"unknown usage":      {func(r *Request) { r.Usage = 3 }, "usage"},
		"no ttl":             {func(r *Request) { r.TTL = 0 }, "ttl"},
		"long ttl":           {func(r *Request) { r.TTL = MaxTTL + time.Second }, "ttl"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := newWorld(t).request
			row.change(&r)
			err := r.Check()
			if err == nil || !strings.Contains(err.Error(), row.word) {
				t.Errorf("error %v, want one about %q", err, row.word)
			}
		})
	}
}

func many(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	return names
}
