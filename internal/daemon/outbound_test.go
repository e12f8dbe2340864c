package daemon

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

// The list opens what it names; loopback is on it in development alone.
func TestOutboundAllow(t *testing.T) {
	t.Parallel()
	opened := strings.NewReplacer("https://hooks.example.com/x", "https://10.20.0.7/x", "kek:", "outbound: {allow: [10.20.0.0/16, \"fd12::/48\"]}\nkek:").Replace(goodConfig)
	c, err := readText(t, opened)
	if err != nil {
		t.Fatal(err)
	}
	dev := c
	dev.Dev = true
	for _, tt := range []struct {
		address string
		c       Config
		ok      bool
	}{
		{"10.20.0.7", c, true}, {"fd12::1", c, true}, {"10.21.0.7", c, false}, {"127.0.0.1", c, false}, {"::1", c, false},
		{"127.0.0.1", dev, true}, {"::1", dev, true}, {"10.20.0.7", dev, true}, {"10.21.0.7", dev, false}, {"169.254.169.254", dev, false},
		{"8.8.8.8", Config{}, true}, {"127.0.0.1", Config{}, false}, {"127.0.0.1", Config{Dev: true}, true},
	} {
		if err := tt.c.guard().Check(outbound.Elsewhere, netip.MustParseAddr(tt.address)); (err == nil) != tt.ok {
			t.Errorf("%s, dev %v: %v", tt.address, tt.c.Dev, err)
		}
	}
}

// A configuration has at most 40 leaves.
func TestLeaves(t *testing.T) {
	t.Parallel()
	if n := leaves(reflect.TypeFor[Config]()); n > 40 {
		t.Errorf("%d leaves", n)
	}
}

func leaves(of reflect.Type) (n int) {
	for i := range of.NumField() {
		f := of.Field(i)
		of := f.Type
		if of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		switch {
		case f.Tag.Get("yaml") == "-":
		case of.Kind() == reflect.Struct:
			n += leaves(of)
		default:
			n++
		}
	}
	return n
}
