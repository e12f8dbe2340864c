package authority

import (
	"strings"
	"testing"
)

// A tool that loses its class is as good as gone: tomorrow it could have another, which
// nobody would wait for. One that had none is nobody's to guard.
func TestAToolThatLosesItsClass(t *testing.T) {
	t.Parallel()
	text := func(pay, export string) string {
		return "kind: Resource\nname: raw\ntype: http\nenvironment: prod\nupstream: http://127.0.0.1:9100\ntools:\n" +
			"  - {name: pay, method: POST, path: /pay" + pay + "}\n  - {name: export, method: GET, path: /export" + export + "}\n"
	}
	before := registryOf(t, nil, wideBase+"\n---\n"+text(", class: payout", ""))
	for _, tt := range []struct{ pay, export, says string }{
		{", class: payout", "", ""},
		{", class: payout", ", class: read", ""},
		{"", "", "Resource raw: pay leaves class payout"},
	} {
		found := widening(before, registryOf(t, before, text(tt.pay, tt.export)))
		if tt.says == "" && len(found) > 0 || tt.says != "" && (len(found) != 1 || !strings.HasPrefix(found[0].String(), tt.says)) {
			t.Errorf("%q %q: %q", tt.pay, tt.export, found)
		}
	}
}
