package daemon

import (
	"net"
	"strconv"
	"syscall"
)

// peerActor names who is at the other end of a unix socket: "uid:N", taken
// from the kernel.
func peerActor(c net.Conn) string {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ""
	}
	actor := ""
	err = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			actor = "uid:" + strconv.FormatUint(uint64(cred.Uid), 10)
		}
	})
	if err != nil {
		return ""
	}
	return actor
}
