package peers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Nginx runs nginx with those servers until the test ends and returns its URL. They are
// what its configuration has in http; LISTEN in them stands for the address that it
// listens at. Without nginx it skips the test and says so, or fails it when the run
// demands it.
func Nginx(t testing.TB, servers string) string {
	t.Helper()
	bin, err := nginx()
	if err != nil && os.Getenv(requireEnv) == "require" {
		t.Fatalf("%v: run make deps", err)
	}
	if err != nil {
		t.Skipf("not run, %v: make deps installs it", err)
	}
	// nginx takes a listener over from the nginx before it when it is replaced while it
	// runs: so the address is nobody else's at any time, and who connects before nginx
	// is ready waits.
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ln.Close()

	dir := t.TempDir()
	var temp strings.Builder
	for _, of := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s;\n", of, filepath.Join(dir, of))
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // the folder is the test's own
	}
	config := fmt.Sprintf("daemon off;\nworker_processes 1;\n%spid %s;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s%s\n}\n",
		user, filepath.Join(dir, "pid"), temp.String(), strings.ReplaceAll(servers, "LISTEN", address))
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-p", dir, "-c", path, "-e", "stderr")
	cmd.Env = []string{"NGINX=3;"}
	cmd.ExtraFiles = []*os.File{file}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		err := cmd.Process.Signal(syscall.SIGTERM)
		if waited := <-ended; err != nil || waited != nil {
			t.Errorf("nginx ended: %v, %v", err, waited)
		}
		if t.Failed() {
			t.Logf("nginx said:\n%s", said.String())
		}
	})
	return "http://" + address
}

// NginxAsDocumented is Nginx with the configuration of docs/points.md, where proxies
// ask at authz and what is behind nginx is at upstream, both URLs without a path.
func NginxAsDocumented(t testing.TB, authz, upstream string) string {
	t.Helper()
	dir, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "..", "docs", "points.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```nginx\n")
	config, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatal("docs/points.md has no configuration of nginx")
	}
	return Nginx(t, strings.NewReplacer("http://127.0.0.1:8422", authz, "http://UPSTREAM", upstream).Replace(config))
}

func nginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("nginx is not installed")
}
