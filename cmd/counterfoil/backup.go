package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

func (a *app) backupCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "backup --out FILE",
		Short: "Write state and ledger to one file, while the server runs",
		Long: `Asks the running server for a backup: its database as it is at one moment, the
ledger's key (sealed), and what else its data folder needs. The file is read to its
end and checked before it takes the name. counterfoil restore reads it.

What is not in it, and what a restoration needs beside it: the key-encryption key, the
upstreams' credentials that are files (secrets_dir), and the programs of providers_dir.
Credentials that are stored are in it, sealed. Keep copies of the rest apart from it.`,
		Example: "  counterfoil backup --out /backups/counterfoil-$(date +%F).backup",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVarP(&out, "out", "o", "", "the `file`; one that is there is replaced once the new one is whole")
	must(c.MarkFlagRequired("out"))
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		b, err := a.writeBackup(ctx, out)
		if err != nil {
			return err
		}
		m := b.Manifest
		made := backupMade{
			File: out, SHA256: b.SHA256, Issuer: m.Issuer, Origin: m.Origin, Entries: m.Entries, Without: m.Without,
		}
		return a.print(made, func(w io.Writer) {
			fmt.Fprintf(w, "wrote      %s\nsha256     %s\nlog        %s\nentries    %d\n", made.File, made.SHA256, made.Origin, made.Entries)
			a.note("Not in it: %s. Keep copies of them, apart from the backups: without them it cannot be restored.", strings.Join(made.Without, ", "))
		})
	})
	return a.needsServer(c)
}

// backupMade is what the command prints.
type backupMade struct {
	File    string   `json:"file"`
	SHA256  string   `json:"sha256"`
	Issuer  string   `json:"issuer"`
	Origin  string   `json:"origin"`
	Entries int64    `json:"entries"`
	Without []string `json:"without"`
}

// writeBackup writes the backup beside its place first, and gives it its name once it
// is whole and on the disk: a break leaves the backup of before.
func (a *app) writeBackup(ctx context.Context, path string) (*daemon.ReadBackup, error) {
	// What is only sealed is in it, but also everything that agents ever did.
	tmp, err := os.CreateTemp(filepath.Dir(path), ".backup-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("writing the backup: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	resp, err := a.adminRaw(ctx, http.MethodGet, "/api/v1/backup", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(tmp, resp.Body); err != nil {
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the backup: %w", err)
	}
	b, err := daemon.CheckBackup(tmp, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("the backup that the server sent is not whole: %w; the server's log has the cause", err)
	}
	if err := tmp.Sync(); err != nil {
		return nil, fmt.Errorf("writing the backup: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return nil, fmt.Errorf("writing the backup: %w", err)
	}
	return b, nil
}
