package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

func (a *app) ledgerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "ledger",
		Short:   "The record of every decision: tail, show, receipt, export, verify",
		Example: "  counterfoil ledger tail\n  counterfoil ledger export -o ledger.export && counterfoil ledger verify ledger.export --key ledger.pub",
	}
	group(c, "ledger needs a subcommand: tail, show, receipt, export or verify",
		a.needsServer(a.ledgerTailCommand()), a.needsServer(a.ledgerShowCommand()), a.needsServer(a.ledgerReceiptCommand()),
		a.needsServer(a.ledgerExportCommand()), a.ledgerVerifyCommand())
	return c
}

func (a *app) ledgerTailCommand() *cobra.Command {
	var count int
	var follow bool
	var agent, tool, kind, code string
	c := &cobra.Command{
		Use:     "tail",
		Short:   "Show the newest entries",
		Example: "  counterfoil ledger tail -n 50 --agent payroll\n  counterfoil ledger tail --follow --json",
		Args:    cobra.NoArgs,
	}
	c.Flags().IntVarP(&count, "lines", "n", 20, "how many, at most 1000")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as entries come, until interrupted")
	c.Flags().StringVar(&agent, "agent", "", "only this agent's")
	c.Flags().StringVar(&tool, "tool", "", "only this tool's, as resource/tool")
	c.Flags().StringVar(&kind, "kind", "", "only this kind, such as call.decided")
	c.Flags().StringVar(&code, "code", "", "only refusals and faults of this code")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if count < 1 || count > 1000 {
			return usage("-n: %d is not between 1 and 1000", count)
		}
		wanted := map[string]string{"agent": agent, "tool": tool, "kind": kind, "code": code}
		q := url.Values{"limit": {strconv.Itoa(count)}}
		for name, v := range wanted {
			if v != "" {
				q.Set(name, v)
			}
		}
		newest, size, err := a.entries(ctx, q)
		if err != nil {
			return err
		}
		slices.Reverse(newest)
		if err := a.printEntries(newest, nil); err != nil || !follow {
			return err
		}
		return a.follow(ctx, size, wanted)
	})
	return c
}

// follow prints entries from an index on as they come, until interrupted.
func (a *app) follow(ctx context.Context, next int64, wanted map[string]string) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
		more, _, err := a.entries(ctx, url.Values{"from": {strconv.FormatInt(next, 10)}, "limit": {"1000"}})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		next += int64(len(more))
		if err := a.printEntries(more, wanted); err != nil {
			return err
		}
	}
}

// entries asks for entries and says how many the log has.
func (a *app) entries(ctx context.Context, q url.Values) ([]jsontext.Value, int64, error) {
	var answer struct {
		Entries []jsontext.Value `json:"entries"`
		Size    int64            `json:"size"`
	}
	err := a.admin(ctx, http.MethodGet, "/api/v1/ledger/entries?"+q.Encode(), nil, &answer)
	return answer.Entries, answer.Size, err
}

// printEntries prints those that are wanted; a nil wanted is all of them.
func (a *app) printEntries(entries []jsontext.Value, wanted map[string]string) error {
	for _, raw := range entries {
		e, err := ledger.Parse(raw)
		if err != nil {
			return fmt.Errorf("reading an entry: %w", err)
		}
		is := map[string]string{"agent": e.Agent, "tool": e.Tool, "kind": string(e.Kind), "code": string(e.Code)}
		skip := false
		for name, v := range wanted {
			skip = skip || v != "" && v != is[name]
		}
		switch {
		case skip:
		case a.json:
			fmt.Fprintf(a.out, "%s\n", raw)
		default:
			fmt.Fprintln(a.out, line(e))
		}
	}
	return nil
}

// line is an entry for a person: what happened, to whom, how it was decided.
func line(e *ledger.Entry) string {
	at := e.Time
	if t, err := e.When(); err == nil {
		at = t.Local().Format("2006-01-02 15:04:05.000")
	}
	parts := []string{fmt.Sprintf("%6d  %s  %-17s", e.Index, at, e.Kind)}
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if e.Agent != "" {
		add(e.Agent)
	} else {
		add(e.Actor)
	}
	add(e.Tool)
	if e.Tool == "" {
		add(e.Resource)
	}
	switch {
	case e.Kind == ledger.CallFinished: // its outcome says more
	case e.Code != "":
		add(e.Decision + " " + string(e.Code))
	case e.Decision != "":
		add(e.Decision)
	}
	if e.Kind == ledger.CallFinished {
		add(fmt.Sprintf("%s (of %d)", e.Outcome, e.Of))
	}
	if e.Kind == ledger.RefusedAggregate {
		if codes, ok := e.Detail["codes"].(map[string]any); ok {
			for _, code := range slices.Sorted(maps.Keys(codes)) {
				add(fmt.Sprintf("%s ×%v", code, codes[code]))
			}
		}
		if n, ok := e.Detail["count"]; ok {
			add(fmt.Sprintf("×%v", n))
		}
	}
	add(e.Reason)
	return visible(strings.Join(parts, "  "))
}

// visible keeps what others wrote from steering a terminal.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\uFFFD'
		}
		return r
	}, s)
}

func (a *app) ledgerShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show INDEX", Short: "Show one entry whole", Example: "  counterfoil ledger show 42", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			return a.printIndexed(ctx, "/api/v1/ledger/entries/", args[0])
		}),
	}
}

func (a *app) ledgerReceiptCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "receipt INDEX",
		Short:   "Print an entry with the proof that it is in the log",
		Long:    "Prints one entry, the path from it to the tree's root and the signed checkpoint: all that somebody else needs to verify it, without the log.",
		Example: "  counterfoil ledger receipt 42 > receipt.json && counterfoil ledger verify receipt.json --key ledger.pub",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			return a.printIndexed(ctx, "/api/v1/ledger/receipts/", args[0])
		}),
	}
}

// printIndexed prints what the server has at an index: as it came with --json,
// indented without.
func (a *app) printIndexed(ctx context.Context, path, index string) error {
	if _, err := strconv.ParseUint(index, 10, 63); err != nil {
		return usage("%q is not an index: entries are numbered from 0", index)
	}
	var raw jsontext.Value
	if err := a.admin(ctx, http.MethodGet, path+index, nil, &raw); err != nil {
		return err
	}
	if !a.json {
		if err := raw.Indent(); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
	}
	_, err := fmt.Fprintf(a.out, "%s\n", raw)
	return err
}

func (a *app) ledgerExportCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "export [-o FILE]",
		Short:   "Write the whole log to one file that can be verified anywhere",
		Example: "  counterfoil ledger export -o ledger.export",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			if out != "" && out != "-" {
				if err := a.exportLedger(ctx, out); err != nil {
					return err
				}
				a.note("wrote %s; verify it with: counterfoil ledger verify %s --key %s", out, out, filepath.Join(a.data, daemon.LedgerKeyName))
				return nil
			}
			return a.copyLedger(ctx, a.out)
		}),
	}
	c.Flags().StringVarP(&out, "output", "o", "-", "the `file`, or - for standard output")
	return c
}

func (a *app) copyLedger(ctx context.Context, w io.Writer) error {
	resp, err := a.adminRaw(ctx, http.MethodGet, "/api/v1/ledger/export", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	return nil
}

// exportLedger writes the export beside its place first, so that a break leaves
// no half of one.
func (a *app) exportLedger(ctx context.Context, path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	defer os.Remove(tmp.Name())
	err = a.copyLedger(ctx, tmp)
	if cerr := tmp.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("writing the export: %w", cerr)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	return nil
}

func (a *app) ledgerVerifyCommand() *cobra.Command {
	var key, checkpoint string
	c := &cobra.Command{
		Use:   "verify FILE|URL --key FILE [--checkpoint FILE]",
		Short: "Verify an export, a receipt or a log's URL, with the public key alone",
		Long: `Verifies that a log is whole and is the one that its key signed: every entry of an
export, one entry of a receipt, one
approval of a proof that the console gives, or the published hashes of a server's URL. It
asks no server and trusts none. Ends with 0 when all is well, with 1 when not.

In an export it also verifies what people signed: every assertion against the public
key that the log enrolled and every member of its challenge, and for every call that
was allowed above routine, that the people of its rule said yes.

The key is the log's public key, a file (the server keeps it as ledger.pub in its
data folder) or the text itself. With --checkpoint, a checkpoint that you kept
from earlier, a log that was cut or rebuilt since is refused too, even when the
log's own key signed it.`,
		Example: "  counterfoil ledger verify ledger.export --key ledger.pub --checkpoint kept-in-june",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			report, err := a.verify(ctx, args[0], key, checkpoint)
			if err != nil {
				return fmt.Errorf("%s does not verify: %w", args[0], err)
			}
			return a.print(report, func(w io.Writer) {
				fmt.Fprintf(w, "verified   %s\nlog        %s\nentries    %d\nroot       %s\n", report.Of, report.Origin, report.Size, report.Root)
				if report.First != "" {
					fmt.Fprintf(w, "from       %s\nto         %s\n", report.First, report.Last)
				}
				printRestorations(w, report.Restored)
				if p := report.People; p != nil {
					fmt.Fprintf(w, "people     %s enrolled, %s verified, %s let run by them\n",
						counted(p.Passkeys, "passkey", "passkeys"), counted(p.Assertions, "assertion", "assertions"), counted(p.Calls, "call", "calls"))
				}
				if report.Extends != nil {
					fmt.Fprintf(w, "extends    the checkpoint of %d entries\n", *report.Extends)
				} else {
					a.note("Without --checkpoint this shows that the log's key signed it, not that nothing was cut or rebuilt by whoever holds that key.")
				}
			})
		}),
	}
	c.Flags().StringVar(&key, "key", "", "the log's public key: a `file` or its text")
	c.Flags().StringVar(&checkpoint, "checkpoint", "", "a `file` with a checkpoint that the log must extend")
	must(c.MarkFlagRequired("key"))
	return c
}

// verified is what a verification found.
type verified struct {
	Of      string `json:"of"` // export, receipt or published hashes
	Origin  string `json:"origin"`
	Size    int64  `json:"size"`
	Root    string `json:"root"`
	First   string `json:"first,omitzero"`
	Last    string `json:"last,omitzero"`
	Extends *int64 `json:"extends,omitzero"`

	Restored []ledger.Restoration `json:"restored,omitzero"` // of an export

	People *peopleProof `json:"people,omitzero"` // of an export
}

func reportOf(of string, r ledger.Report) verified {
	v := verified{Of: of, Origin: r.Origin, Size: r.Size, Root: r.Hash.String(), First: r.First, Last: r.Last, Restored: r.Restored}
	if r.Earlier >= 0 {
		v.Extends = &r.Earlier
	}
	return v
}

func (a *app) verify(ctx context.Context, what, key, checkpoint string) (verified, error) {
	if strings.HasPrefix(what, "https://") || strings.HasPrefix(what, "http://") {
		return verifyURL(ctx, strings.TrimSuffix(what, "/"), key, checkpoint)
	}
	return verifyExport(what, key, checkpoint, a.progress())
}

// progress shows how far a long verification is, where somebody watches.
func (a *app) progress() func(int64) {
	f, ok := a.streams.err.(*os.File)
	if !ok || a.json || !isTerminal(f) {
		return nil
	}
	return func(n int64) { fmt.Fprintf(f, "\r%d entries", n) }
}

// verifyExport verifies a file: an export or a receipt.
func verifyExport(path, key, checkpoint string, progress func(int64)) (verified, error) {
	opt, err := verifyOptions(key, checkpoint)
	if err != nil {
		return verified{}, err
	}
	opt.Progress = progress
	f, err := os.Open(path)
	if err != nil {
		return verified{}, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	if proof, is := peekProof(r); is {
		return verifyProof(proof, opt)
	}
	if receipt, is := peekReceipt(r); is {
		return verifyReceipt(receipt, opt)
	}
	var people humanProof
	opt.Each = people.add
	report, err := ledger.VerifyExport(r, opt)
	if err != nil {
		return verified{}, err
	}
	v := reportOf("export", report)
	v.People = people.report()
	return v, nil
}

// maxReceipt bounds a receipt's file, in bytes.
const maxReceipt = 2 << 20

// peekReceipt reads r as a receipt, if it is one; otherwise r is unread.
func peekReceipt(r *bufio.Reader) ([]byte, bool) {
	head, err := r.Peek(len(`{"format"`))
	if err != nil || string(head) == `{"format"` {
		return nil, false
	}
	if head[0] != '{' {
		return nil, false
	}
	b, err := io.ReadAll(io.LimitReader(r, maxReceipt))
	return b, err == nil
}

func verifyReceipt(b []byte, opt ledger.VerifyOptions) (verified, error) {
	if opt.Earlier != nil {
		return verified{}, errors.New("--checkpoint goes with an export or a URL: a receipt has one entry and cannot show that a log extends another")
	}
	receipt, err := ledger.ParseReceipt(b)
	if err != nil {
		return verified{}, err
	}
	e, err := receipt.Verify(opt.Verifier)
	if err != nil {
		return verified{}, err
	}
	c, err := ledger.OpenCheckpoint([]byte(receipt.Checkpoint), opt.Verifier)
	if err != nil {
		return verified{}, err
	}
	return verified{Of: fmt.Sprintf("receipt of entry %d (%s)", e.Index, e.Kind), Origin: c.Origin, Size: c.Size, Root: c.Hash.String(), First: e.Time, Last: e.Time}, nil
}

func verifyOptions(key, checkpoint string) (ledger.VerifyOptions, error) {
	verifier, err := logKey(key)
	if err != nil {
		return ledger.VerifyOptions{}, err
	}
	opt := ledger.VerifyOptions{Verifier: verifier}
	if checkpoint != "" {
		if opt.Earlier, err = os.ReadFile(checkpoint); err != nil {
			return opt, fmt.Errorf("reading the checkpoint: %w", err)
		}
	}
	return opt, nil
}

// logKey reads a log's public key: the text, or a file with it.
func logKey(key string) (note.Verifier, error) {
	text := key
	if b, err := os.ReadFile(key); err == nil {
		text = string(b)
	} else if !strings.Contains(key, "+") {
		return nil, fmt.Errorf("reading the log's public key: %w", err)
	}
	return ledger.ParseVerifier(strings.TrimSpace(text))
}

// verifyURL verifies the hashes that a server publishes.
func verifyURL(ctx context.Context, base, key, checkpoint string) (verified, error) {
	opt, err := verifyOptions(key, checkpoint)
	if err != nil {
		return verified{}, err
	}
	if !strings.HasSuffix(base, "/ledger") {
		base += "/ledger"
	}
	fetch := func(ctx context.Context, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/"+path, nil)
		if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", path, err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, fmt.Errorf("asking for %s: %w", path, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("asking for %s: the server answered %s", path, resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	}
	signed, err := fetch(ctx, "checkpoint")
	if err != nil {
		return verified{}, err
	}
	report, err := ledger.VerifyTiles(ctx, signed, fetch, opt)
	if err != nil {
		return verified{}, err
	}
	return reportOf("published hashes", report), nil
}
