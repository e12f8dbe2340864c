package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

func (a *app) serveCommand() *cobra.Command {
	var file, public, management, logLevel string
	var dev, confirmClock bool
	c := &cobra.Command{
		Use:   "serve (--config FILE | --dev [--data DIR] [--public URL] [--management URL])",
		Short: "Run the server: issuer, gateway and ledger",
		Long: `Runs the server. With --dev it needs no file: plain HTTP on loopback, keys made on
the first start. It prints one line when it takes requests:

  ready public=URL management=URL data=DIR

SIGTERM drains: no new requests, those in flight finish and are recorded, the
last checkpoint is signed.`,
		Example: `  counterfoil serve --dev --data ./data
  counterfoil serve --config /etc/counterfoil/counterfoil.yaml`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&file, "config", "", "configuration `file`")
	c.Flags().BoolVar(&dev, "dev", false, "no file, plain HTTP on loopback")
	c.Flags().StringVar(&a.data, "data", envOr("COUNTERFOIL_DATA", defaultData), "with --dev: the data `folder` (COUNTERFOIL_DATA)")
	c.Flags().StringVar(&public, "public", "", "with --dev: the public `URL` (port 0 picks a free one and keeps it)")
	c.Flags().StringVar(&management, "management", "", "with --dev: the management `URL`")
	c.Flags().BoolVar(&confirmClock, "confirm-clock", false, "start although the clock is before the ledger's last entry")
	c.Flags().StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		var level slog.Level
		if err := level.UnmarshalText([]byte(logLevel)); err != nil {
			return usage("--log-level: %q is none of debug, info, warn, error", logLevel)
		}
		cfg, err := serveConfig(file, dev, a.data, public, management)
		if err != nil {
			return err
		}
		cfg.ConfirmClock = confirmClock
		log := slog.New(slog.NewJSONHandler(a.streams.err, &slog.HandlerOptions{Level: level}))
		d, err := daemon.Open(ctx, cfg, daemon.Options{Log: log, Version: versionString()})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "ready public=%s management=%s data=%s\n", d.PublicURL(), d.ManagementURL(), d.Data())
		return errors.Join(d.Run(ctx), d.Close())
	})
	return c
}

func serveConfig(file string, dev bool, data, public, management string) (daemon.Config, error) {
	switch {
	case file == "" && !dev:
		return daemon.Config{}, usage("either --config FILE or --dev is needed")
	case file != "" && (dev || public != "" || management != ""):
		return daemon.Config{}, usage("--config goes without --dev, --public and --management: put the addresses into the file")
	case file != "":
		return daemon.ReadConfig(file)
	}
	return daemon.Config{
		Dev:        true,
		Data:       data,
		Public:     daemon.Listener{URL: public},
		Management: daemon.Listener{URL: management},
	}, nil
}
