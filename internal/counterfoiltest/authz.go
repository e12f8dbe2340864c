package counterfoiltest

// AuthzAddr is where proxies ask whether a request may be passed on: host and port. It
// is empty unless an option says authz.listen.
func (s *System) AuthzAddr() string { return s.daemon.AuthzAddr() }
