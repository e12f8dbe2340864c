package store

import (
	"context"
	"database/sql/driver"
)

// AnybodyEnrolled reports whether a passkey was ever enrolled, by whomever, be it
// ended or its person gone: no row of a passkey is ever deleted.
func (s *Store) AnybodyEnrolled(ctx context.Context) (ever bool, err error) {
	err = s.readRows(ctx, sqliteTexts[anyPasskey], func([]driver.Value) error {
		ever = true
		return nil
	})
	return ever, err
}
