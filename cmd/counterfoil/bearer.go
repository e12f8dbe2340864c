package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/evidence"
)

func (a *app) bearerCommand() *cobra.Command {
	span := "30d"
	c := &cobra.Command{
		Use:   "bearer [RESOURCE] [--since 30d]",
		Short: "Show who still sends bearer credentials, and what one could do if it were stolen",
		Long: `For each resource that declares bearer credentials, or was sent some: the binding mode,
each credential with its agent, when and from where it was used, which tools a thief of
it could call now, and which ones have to send bound tokens before 'binding: require' is
safe. Credentials are named by their digest or their issuer and subject, never shown.

What was refused before anybody was known is not here: the ledger counts it
(counterfoil ledger tail --kind refused.aggregate).`,
		Example: "  counterfoil bearer\n  counterfoil bearer crm --since 90d --json",
		Args:    cobra.MaximumNArgs(1),
	}
	c.RunE = a.does(func(ctx context.Context, args []string) error {
		back, err := parseSpan(span)
		if err != nil {
			return err
		}
		q := url.Values{"since": {time.Now().Add(-back).UTC().Format(time.RFC3339)}}
		if len(args) == 1 {
			q.Set("resource", args[0])
		}
		var report evidence.BearerReport
		if err := a.admin(ctx, http.MethodGet, "/api/v1/bearer?"+q.Encode(), nil, &report); err != nil {
			return err
		}
		return a.print(report, func(w io.Writer) { printBearers(w, &report) })
	})
	c.Flags().StringVar(&span, "since", span, "how far to look back, such as 30d or 12h: a `time` without a date")
	c.AddCommand(a.bearerDigestCommand())
	return a.needsServer(c)
}

func (a *app) bearerDigestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "digest [-]",
		Short: "Print the digest of a static key, as a manifest declares it",
		Long: `Reads a static key from standard input and prints the line that declares it in a
resource's manifest. The key itself goes nowhere: a manifest, the ledger and the server
know its SHA-256 alone. A key that can be guessed can be guessed from that: it needs at
least 16 bytes, and should be random.`,
		Example: "  counterfoil bearer digest < old-api-key.txt",
		Args:    cobra.MaximumNArgs(1),
		RunE: a.does(func(_ context.Context, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				// Not repeated: it may be the secret.
				return usage("bearer digest takes only -, and the key on standard input: on the command line every local user could read it")
			}
			digest, err := a.bearerDigest()
			if err != nil {
				return err
			}
			return a.print(map[string]string{"key": digest}, func(w io.Writer) { fmt.Fprintln(w, digest) })
		}),
	}
}

const (
	leastBearerKey = 16
	mostBearerKey  = 8 << 10
)

// bearerDigest reads a static key. Its end of line is not a part of it.
func (a *app) bearerDigest() (string, error) {
	b, err := io.ReadAll(io.LimitReader(a.in, mostBearerKey+3))
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	key := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(key) < leastBearerKey:
		return "", fmt.Errorf("the key has %d bytes: at least %d are needed, as whoever has the digest could guess it", len(key), leastBearerKey)
	case len(key) > mostBearerKey:
		return "", fmt.Errorf("the key is longer than %d bytes, which no header may be", mostBearerKey)
	// RFC 6750, Section 2.1: what can stand behind "Authorization: Bearer".
	case strings.ContainsFunc(strings.TrimRight(key, "="), func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._~+/", r))
	}):
		return "", fmt.Errorf("the key has a character that no bearer token has (RFC 6750, Section 2.1)")
	}
	return digestOf(key), nil
}

// digestOf is a static key's digest, as a manifest declares it.
func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// parseSpan reads a time span; days are what a person thinks in here.
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 3650 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
		return 0, usage("--since %q is no span such as 30d or 12h", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > 3650*24*time.Hour {
		return 0, usage("--since %q is no span such as 30d or 12h", text)
	}
	return d, nil
}

func printBearers(w io.Writer, report *evidence.BearerReport) {
	if len(report.Resources) == 0 {
		fmt.Fprintln(w, "no resource takes bearer credentials, and none was sent since "+report.Since.Local().Format(time.DateOnly))
		return
	}
	for i := range report.Resources {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printBearerResource(w, &report.Resources[i], report.Since)
	}
}

func printBearerResource(w io.Writer, r *evidence.BearerResource, since time.Time) {
	mode := r.Binding
	if r.Binding != counterfoil.BindingRequire && !r.RequireFrom.IsZero() {
		mode += ", require from " + r.RequireFrom.Local().Format("2006-01-02 15:04")
	}
	fmt.Fprintf(w, "%s  %s\n", r.Name, mode)
	for i := range r.Credentials {
		printBearer(w, &r.Credentials[i])
	}
	day := since.Local().Format(time.DateOnly)
	switch {
	case r.Binding == counterfoil.BindingRequire:
		fmt.Fprintln(w, "  bound tokens are required; nothing that is listed here opens anything")
	case r.Safe:
		fmt.Fprintf(w, "  require is safe: nothing was used since %s\n", day)
	default:
		fmt.Fprintf(w, "  left before require is safe: %s, used since %s\n", counted(len(r.Left), "credential", "credentials"), day)
	}
}

func printBearer(w io.Writer, u *evidence.BearerUse) {
	fmt.Fprintf(w, "  %s  agent %s\n", visible(u.Bearer), u.Agent)
	switch {
	case u.Calls+u.Refused == 0:
		fmt.Fprintln(w, "    not used: its declaration can go")
	default:
		fmt.Fprintf(w, "    %s, %d refused, last %s\n", counted(u.Calls, "call", "calls"), u.Refused, u.Last.Local().Format("2006-01-02 15:04"))
	}
	for _, list := range []struct {
		name  string
		texts []evidence.CountedText
	}{{"from", u.From}, {"by", u.Agents}, {"called", u.Tools}} {
		if len(list.texts) == 0 {
			continue
		}
		var parts []string
		for _, t := range list.texts {
			parts = append(parts, fmt.Sprintf("%s ×%d", t.Text, t.Calls))
		}
		fmt.Fprintf(w, "    %-6s  %s\n", list.name, visible(strings.Join(parts, ", ")))
	}
	switch {
	case !u.Declared:
		fmt.Fprintln(w, "    stolen: opens nothing, it is not declared any more")
	case len(u.Opens) == 0:
		fmt.Fprintln(w, "    stolen: opens nothing")
	default:
		var parts []string
		for _, o := range u.Opens {
			parts = append(parts, o.Tool+" ("+strings.Join(bounds(o), ", ")+")")
		}
		fmt.Fprintf(w, "    stolen: opens %s\n", strings.Join(parts, ", "))
	}
}

// bounds says what stands between a thief and a tool.
func bounds(o evidence.BearerReach) []string {
	out := []string{o.Class, o.Tier}
	if o.People > 0 {
		out = append(out, "asks "+counted(o.People, "person", "people"))
	}
	if o.Networks {
		out = append(out, "from its networks")
	}
	if o.Condition {
		out = append(out, "on a condition")
	}
	return out
}
