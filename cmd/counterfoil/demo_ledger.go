package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

func (d *demo) exportFile() string { return filepath.Join(d.dir, "ledger.export") }

func (d *demo) verifyFile(path string) (verified, error) {
	return verifyExport(path, filepath.Join(d.app.data, daemon.LedgerKeyName), "", nil)
}

// ledger verifies an export with the public key alone.
func (d *demo) ledger() error {
	if err := d.quiet().exportLedger(d.ctx, d.exportFile()); err != nil {
		return err
	}
	report, err := d.verifyFile(d.exportFile())
	if err != nil {
		return err
	}
	o := outcome{
		tried: "counterfoil ledger verify, with the export and the log's public key alone", want: allowed, got: allowed,
		answered: fmt.Sprintf("%d entries, root %s; %d assertions of people verified, %d calls let run by them", report.Size, report.Root, report.People.Assertions, report.People.Calls),
		why:      "every decision above, and its outcome, is a leaf of a signed Merkle tree; what people signed is checked against the passkeys that the log enrolled",
	}
	if report.People.Assertions != 5 || report.People.Calls != 3 {
		o.got = "incomplete"
	}
	d.tell("The ledger, verified offline", o)
	return nil
}

// tampered verifies it again with one byte of a refusal changed.
func (d *demo) tampered() error {
	return d.tellChanged("A ledger that somebody touched", "the same, after one byte of a refusal's entry was changed",
		`"code":"tool_not_granted"`, `"code":"tool_not_grantee"`, "an entry cannot be changed, moved or taken out without the root changing")
}

// forged verifies it again with another decision in what somebody signed.
func (d *demo) forged() error {
	return d.tellChanged("A no that somebody turned into a yes", "the same, after cy's no was changed into a yes where the assertion is recorded",
		`"decision":"deny"`, `"decision":"approve"`, "a passkey signs the decision together with the digest: even whoever holds the log's own key cannot make up what a person signed")
}

// tellChanged verifies an export in which one text was replaced by another.
func (d *demo) tellChanged(title, tried, before, after, why string) error {
	data, err := os.ReadFile(d.exportFile())
	if err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	changed := bytes.Replace(data, []byte(before), []byte(after), 1)
	if bytes.Equal(changed, data) {
		return fmt.Errorf("the export does not have %s", before)
	}
	path := d.exportFile() + ".changed"
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		return fmt.Errorf("writing the changed export: %w", err)
	}
	o := outcome{tried: tried, want: "detected", got: "detected", why: why}
	if _, err := d.verifyFile(path); err == nil {
		o.got, o.answered = "verified", "the change went unnoticed"
	} else {
		o.answered = err.Error()
	}
	d.tell(title, o)
	return nil
}
