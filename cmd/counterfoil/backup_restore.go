package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

func (a *app) restoreCommand() *cobra.Command {
	var file string
	var req daemon.RestoreRequest
	c := &cobra.Command{
		Use:   "restore (--config FILE | --data DIR) [--from FILE] --reason TEXT",
		Short: "Put a stopped server's folder back into order from a backup or an older database",
		Long: `Restores the data folder of a server that is stopped: from a backup (--from), or from
the older database that you copied into the folder.

An old database does not know what was revoked, used or changed since. So everything
that it holds of authority is void afterwards: every token, open task and open approval,
codes, changes that wait, the issuer's signing keys. All agents, all people and all
resources are suspended, until you resume those that you know to be right.

The log goes on with a new key and a new name, as the entries since are lost: tell
whoever keeps its public key. What was in the folder is moved aside, never removed.
When it is broken off, run it again.`,
		Example: `  counterfoil restore --config /etc/counterfoil/counterfoil.yaml --from counterfoil.backup --reason "the disk died"
  counterfoil restore --data ./data --reason "put back last night's copy"`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&file, "config", "", "the server's configuration `file`")
	c.Flags().StringVar(&a.data, "data", envOr("COUNTERFOIL_DATA", defaultData), "without --config: the data `folder` (COUNTERFOIL_DATA)")
	c.Flags().StringVar(&req.From, "from", "", "a backup's `file`; without it the database that is in the folder is restored")
	c.Flags().StringVar(&req.KEK, "kek", "", "`file` of the key-encryption key, where it is not in its place yet")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	c.Flags().BoolVar(&req.MoveAside, "move-aside", false, "go on although the database that is there is sound and not known to be old; it is moved aside")
	c.Flags().BoolVar(&req.ConfirmClock, "confirm-clock", false, "go on although the clock is before the ledger's last entry")
	must(c.MarkFlagRequired("reason"))
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		cfg := daemon.Config{Dev: true, Data: a.data}
		if file != "" {
			if c.Flags().Changed("data") {
				return usage("--config goes without --data: the file names the folder")
			}
			var err error
			if cfg, err = daemon.ReadConfig(file); err != nil {
				return err
			}
		}
		if err := restorable(&cfg, &req); err != nil {
			return err
		}
		req.Actor = "uid:" + strconv.Itoa(os.Getuid())
		done, err := daemon.Restore(ctx, cfg, req)
		if err != nil {
			return err
		}
		next := nextSteps(done, file)
		return a.print(restoredReport{done, next}, func(w io.Writer) { printRestored(w, done, next) })
	})
	return c
}

// restoredReport is what the command prints.
type restoredReport struct {
	daemon.Restored
	Next []string `json:"next"` // commands, in order
}

// nextSteps are the commands that let everybody back in.
func nextSteps(done daemon.Restored, config string) []string {
	serve := "counterfoil serve --dev --data " + quoted(done.Data)
	if config != "" {
		serve = "counterfoil serve --config " + quoted(config)
	}
	out := []string{serve}
	for _, name := range done.Voided.People {
		out = append(out, "counterfoil person resume "+quoted(name)+" --data "+quoted(done.Data))
	}
	for _, name := range done.Voided.Resources {
		out = append(out, "counterfoil resource resume "+quoted(name)+" --data "+quoted(done.Data))
	}
	for _, agent := range done.Agents {
		out = append(out, "counterfoil agent resume "+quoted(agent.Name)+" --data "+quoted(done.Data))
	}
	return out
}

// quoted writes a word for a shell.
func quoted(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./:@%+=", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func printRestored(w io.Writer, done daemon.Restored, next []string) {
	if done.Again {
		fmt.Fprintln(w, "An earlier restoration was broken off; it is finished now.")
	}
	fmt.Fprintf(w, "restored   %s\nfrom       %s\nlog        %s, %d entries of %s\n", done.Data, done.Source, done.Origin, done.Index, done.From)
	switch {
	case done.Lost > 0:
		fmt.Fprintf(w, "lost       %s that a checkpoint knows of (%d to %d), and any after them\n", counted(int(done.Lost), "entry", "entries"), done.Index, done.Known-1)
	default:
		fmt.Fprintln(w, "lost       whatever happened since: no checkpoint is kept that is newer")
	}
	v := &done.Voided
	fmt.Fprintln(w, "void       every token and session of before, and")
	for _, of := range []struct {
		n         int
		one, many string
	}{
		{len(v.Tasks), "open task", "open tasks"}, {len(v.Approvals), "open approval", "open approvals"}, {v.Codes, "enrolment code", "enrolment codes"},
		{len(v.Proposals), "change that waited", "changes that waited"}, {len(v.Streams), "stream of shared signals", "streams of shared signals"},
		{len(v.Keys), "key that was being replaced", "keys that were being replaced"}, {len(v.SigningKeys), "signing key of the issuer", "signing keys of the issuer"},
	} {
		if of.n > 0 {
			fmt.Fprintf(w, "           %s\n", counted(of.n, of.one, of.many))
		}
	}
	for _, person := range done.People {
		fmt.Fprintf(w, "suspended  person %s, with %s\n", visible(person.Name), passkeysOf(person))
	}
	for _, name := range v.Resources {
		fmt.Fprintf(w, "suspended  resource %s\n", visible(name))
	}
	for _, agent := range done.Agents {
		fmt.Fprintf(w, "suspended  agent %s, with %s\n", visible(agent.Name), instancesOf(agent))
	}
	for _, path := range done.Kept {
		fmt.Fprintf(w, "kept       %s\n", path)
	}
	for _, need := range done.Needs {
		fmt.Fprintf(w, "first      %s\n", need)
	}
	fmt.Fprint(w, `
Nothing that was revoked or changed after the copy was made is known to it: instances,
passkeys, grants, resources. Look through them before you let anybody in: ask each person
about the passkeys above, apply your manifests again, and revoke what must not come back
(counterfoil revoke), which ends a person's passkeys too. Verify the log with the new
ledger.pub from now on. Then, for each that you know to be right:

`)
	for _, command := range next {
		fmt.Fprintf(w, "  %s\n", command)
	}
}

func passkeysOf(person daemon.RestoredPerson) string {
	if len(person.Passkeys) == 0 {
		return "no passkey"
	}
	out := make([]string, len(person.Passkeys))
	for i, p := range person.Passkeys {
		out[i] = p.ID + " (" + p.How + ", " + p.Enrolled.UTC().Format("2006-01-02 15:04") + ")"
	}
	return visible(counted(len(out), "passkey", "passkeys") + ": " + strings.Join(out, ", "))
}

func instancesOf(agent daemon.RestoredAgent) string {
	if len(agent.Instances) == 0 {
		return "no instance"
	}
	return counted(len(agent.Instances), "instance", "instances") + ": " + strings.Join(agent.Instances, ", ")
}
