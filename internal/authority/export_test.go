package authority

// Bounds that the tests go to.
const (
	MaxReports = maxReports
	MaxExpired = maxExpired
)
