package credential

// ClaimedAudience returns aud, and of several the first; Check takes no token that
// has several. It is for who wants to know whom a token is for, not to use it.
func (t *SignedToken) ClaimedAudience() string { return t.claims.Audience }
