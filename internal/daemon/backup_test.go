package daemon

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aBackup writes a small backup, which has the form of one and no database.
func aBackup(t testing.TB, kek []byte) []byte {
	t.Helper()
	db := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(db, []byte("not really a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := backup{kek: kek, small: map[string][]byte{LedgerKeyName: []byte("key\n"), backupCheckpoint: []byte("checkpoint\n")}}
	b.manifest = BackupManifest{Format: BackupFormat, Made: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Issuer: "https://a.example", Origin: "a.example/ledger", Entries: 1}
	var out bytes.Buffer
	if err := b.write(t.Context(), &out, db); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCheckBackup(t *testing.T) {
	t.Parallel()
	kek := bytes.Repeat([]byte{7}, kekSize)
	good := aBackup(t, kek)
	files := func(change func(name string, content []byte) (string, []byte)) []byte {
		var out bytes.Buffer
		w, r := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(good))
		for {
			h, err := r.Next()
			if err != nil {
				break
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if h.Name, content = change(h.Name, content); h.Name == "" {
				continue
			}
			h.Size = int64(len(content))
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	replaced := func(name, from, to string) []byte {
		return files(func(n string, b []byte) (string, []byte) {
			if n == name {
				b = bytes.Replace(b, []byte(from), []byte(to), 1)
			}
			return n, b
		})
	}
	without := func(name string) []byte {
		return files(func(n string, b []byte) (string, []byte) {
			if n == name {
				n = ""
			}
			return n, b
		})
	}
	for name, row := range map[string]struct {
		file []byte
		says string
	}{
		"whole":                {files(func(n string, b []byte) (string, []byte) { return n, b }), ""},
		"empty":                {nil, "it was cut"},
		"no tar":               {bytes.Repeat([]byte("garbage\n"), 1000), "not a backup"},
		"another format":       {replaced(backupManifest, "backup/1", "backup/2"), "does not say"},
		"a changed manifest":   {replaced(backupManifest, "https://a.example", "https://b.example"), "manifest was changed"},
		"a changed database":   {replaced(backupDatabase, "not really", "yes really"), "digest"},
		"a shorter database":   {replaced(backupDatabase, "not really", "really"), "cut or changed"},
		"a changed checkpoint": {replaced(backupCheckpoint, "checkpoint", "checkpoinT"), "digest"},
		"no database":          {without(backupDatabase), "is not where the manifest says"},
		"no key":               {without(LedgerKeyName), "is not where the manifest says"},
		"no end":               {without(backupEnd), "it was cut"},
		"another name": {files(func(n string, b []byte) (string, []byte) {
			return strings.Replace(n, backupEnd, "../../etc/passwd", 1), b
		}), "this is not a backup"},
	} {
		var db bytes.Buffer
		b, err := CheckBackup(bytes.NewReader(row.file), &db)
		if row.says != "" {
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s: %v, want %q", name, err, row.says)
			}
			continue
		}
		if err != nil || db.String() != "not really a database" {
			t.Fatalf("%s: %q %v", name, db.String(), err)
		}
		if err := b.sealed(kek); err != nil {
			t.Error(err)
		}
		if err := b.sealed(bytes.Repeat([]byte{8}, kekSize)); err == nil {
			t.Error("another key-encryption key takes it")
		}
	}
}

// Whoever has not the key-encryption key makes no other backup that is taken.
func FuzzCheckBackup(f *testing.F) {
	kek := bytes.Repeat([]byte{7}, kekSize)
	good := aBackup(f, kek)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		var db bytes.Buffer
		b, err := CheckBackup(bytes.NewReader(data), &db)
		if err != nil || b.sealed(kek) != nil {
			return
		}
		if db.String() != "not really a database" || string(b.small[LedgerKeyName]) != "key\n" || string(b.small[backupCheckpoint]) != "checkpoint\n" || b.Manifest.Issuer != "https://a.example" {
			t.Errorf("another backup is taken: %+v %q %q", b.Manifest, db.String(), b.small)
		}
	})
}
