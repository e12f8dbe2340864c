package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

// TestARestorationSaysWhatIsMissing: of each thing that it needs, by name, and makes
// nothing before all of them are there.
func TestARestorationSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		have     []string // in the folder
		noFolder bool
		args     []string
		want     string // empty: nothing is missing
	}{
		"no folder":                     {noFolder: true, want: "there is no folder "},
		"no ledger":                     {have: []string{"kek"}, want: "holds no ledger"},
		"no key":                        {have: []string{"counterfoil.db"}, want: "there is no key-encryption key"},
		"no backup":                     {have: []string{"counterfoil.db", "kek"}, args: []string{"--from", "DIR/other.backup"}, want: "there is no backup at "},
		"a backup, no folder, no key":   {noFolder: true, args: []string{"--from", "BACKUP"}, want: "there is no key-encryption key"},
		"no key where --kek says":       {have: []string{"counterfoil.db", "kek"}, args: []string{"--kek", "DIR/other"}, want: "which --kek names"},
		"all of it":                     {have: []string{"counterfoil.db", "kek"}},
		"a backup and a key, no folder": {noFolder: true, args: []string{"--from", "BACKUP", "--kek", "BACKUP"}},
		"one that was broken off":       {have: []string{"restore.plan"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			backup := filepath.Join(t.TempDir(), "a.backup")
			touch := func(path string) {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			touch(backup)
			if !tc.noFolder {
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range tc.have {
				touch(filepath.Join(dir, name))
			}
			var req daemon.RestoreRequest
			args := []string{"restore", "--data", dir, "--reason", "x"}
			for i, arg := range tc.args {
				arg = strings.NewReplacer("DIR", dir, "BACKUP", backup).Replace(arg)
				args = append(args, arg)
				switch {
				case i%2 == 0:
				case tc.args[i-1] == "--from":
					req.From = arg
				default:
					req.KEK = arg
				}
			}
			err := restorable(&daemon.Config{Data: dir}, &req)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "urandom") {
				t.Errorf("%v", err)
			}
			var out, errs bytes.Buffer
			if code := run(t.Context(), args, streams{strings.NewReader(""), &out, &errs}); code != exitFailed || !strings.Contains(errs.String(), tc.want) {
				t.Errorf("%d %s", code, &errs)
			}
			if _, err := os.Stat(dir); tc.noFolder && err == nil {
				t.Error("it made the folder")
			}
		})
	}
}
