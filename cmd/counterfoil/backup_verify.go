package main

import (
	"fmt"
	"io"

	"github.com/counterfoil/counterfoil/ledger"
)

// printRestorations says where a log went on from a copy of an older one, and what is
// known to be lost.
func printRestorations(w io.Writer, list []ledger.Restoration) {
	for i := range list {
		r := &list[i]
		fmt.Fprintf(w, "restored   at entry %d (%s) by %s: %s\n", r.Index, r.Time, visible(r.Actor), visible(r.Reason))
		fmt.Fprintf(w, "           what is before it is from the log %s, as it was with %s\n", visible(r.From), counted(int(r.Index), "entry", "entries"))
		if lost := r.Lost(); lost > 0 {
			fmt.Fprintf(w, "           of that log %s to entry %d are lost, which a checkpoint of it signed, and any after\n", counted(int(lost), "entry", "entries"), r.Known-1)
		} else {
			fmt.Fprintln(w, "           what that log had after them is lost; no newer checkpoint of it was kept")
		}
	}
}
