// Command legacy serves an HTTP API that knows one static bearer token and repeats
// whatever it is sent: what an upstream may be that Counterfoil holds the secret of.
//
//	legacy --token FILE [--listen 127.0.0.1:9001]
//
// When it takes requests it prints one line, "ready url=…".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/examples/legacy/legacyserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "legacy:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("legacy", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9001", "loopback `address` to listen on; port 0 picks a free one")
	file := flags.String("token", "", "`file` with the one token that it takes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil || !addr.Addr().IsLoopback() {
		return fmt.Errorf("--listen %s: an example listens on loopback only, like 127.0.0.1:9001", *listen)
	}
	if *file == "" {
		return errors.New("--token is needed: a file with the token that it takes")
	}
	token, err := os.ReadFile(*file)
	if err != nil {
		return fmt.Errorf("reading the token: %w", err)
	}
	secret := strings.TrimSpace(string(token))
	if secret == "" {
		return fmt.Errorf("%s holds no token", *file)
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	srv := &http.Server{Handler: legacyserver.New(secret).Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Printf("ready url=http://%s\n", ln.Addr())
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}
