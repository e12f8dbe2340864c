//go:build !linux

package daemon

import (
	"net"
	"os"
	"strconv"
)

// peerActor names who is at the other end of a unix socket: "uid:N". Where the
// kernel is not asked, the socket's mode is: only our own user can open it.
func peerActor(c net.Conn) string {
	if _, ok := c.(*net.UnixConn); !ok {
		return ""
	}
	return "uid:" + strconv.Itoa(os.Getuid())
}
