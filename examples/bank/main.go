// Command bank serves the example bank: an MCP server with the tools
// get_balance, list_payees and pay, its money in a SQLite file.
//
//	bank [--listen 127.0.0.1:9000] [--db FILE]
//
// It asks nobody who they are. That is the gateway's part, so it listens on
// loopback only. When it takes requests it prints one line, "ready url=…".
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
	"path/filepath"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "bank:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bank", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9000", "loopback `address` to listen on; port 0 picks a free one")
	db := flags.String("db", "", "SQLite `file`, made when it is not there; without one the bank forgets everything at its end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil || !addr.Addr().IsLoopback() {
		return fmt.Errorf("--listen %s: the bank knows no logins, so it listens on loopback only, like 127.0.0.1:9000", *listen)
	}
	if *db == "" {
		dir, err := os.MkdirTemp("", "bank-")
		if err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
		defer os.RemoveAll(dir)
		*db = filepath.Join(dir, "bank.db")
	}
	bank, err := bankserver.Open(*db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bank.Close()) }()
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/mcp", bank.Handler())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	fmt.Printf("ready url=http://%s/mcp\n", ln.Addr())

	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	// Streams of sessions end only by being cut, so a short grace is enough:
	// a payment is one transaction of milliseconds.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		return srv.Close()
	}
	return nil
}
