package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// serve takes the place of http.ListenAndServe in the main.go of the MCP Go SDK's
// conformance server and is built together with it. What loopback.mjs is to the
// servers on Node: it listens on loopback, on a port that the system picks, says
// on standard output which one, and ends when its standard input does, so that
// it never outlives the test that started it.
func serve(_ string, h http.Handler) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening %d\n", ln.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(ln, h)
}
