// Package bankserver is a small bank behind the Model Context Protocol: a real
// server on the official Go SDK, with its money in SQLite, so that a payment
// that was executed shows and one that was refused does not.
//
// It is what an upstream looks like: it knows nothing of agents, tokens or
// approvals, trusts whoever reaches it and must therefore be reachable by the
// gateway alone. Listen on loopback.
//
// It speaks the revisions 2025-11-25, with sessions, and 2026-07-28, without,
// at the same address.
//
// The example is a separate program, which is why it opens SQLite itself and
// does not go through the product's store: an upstream has its own database.
package bankserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// PayingAccount is the account that payments leave.
const PayingAccount = "operating"

const schema = `
CREATE TABLE IF NOT EXISTS accounts (
	name     TEXT PRIMARY KEY,
	currency TEXT NOT NULL,
	cents    INTEGER NOT NULL CHECK (cents >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS payees (
	name    TEXT PRIMARY KEY,
	company TEXT NOT NULL,
	iban    TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS payments (
	id       INTEGER PRIMARY KEY,
	at       TEXT NOT NULL,
	payee    TEXT NOT NULL REFERENCES payees (name),
	currency TEXT NOT NULL,
	cents    INTEGER NOT NULL CHECK (cents > 0)
) STRICT;
INSERT INTO accounts VALUES ('operating', 'EUR', 25000000), ('reserve', 'EUR', 100000000)
	ON CONFLICT DO NOTHING;
INSERT INTO payees VALUES
	('acme',    'Acme Supplies GmbH',   'DE89370400440532013000'),
	('globex',  'Globex Logistics BV',  'NL91ABNA0417164300'),
	('initech', 'Initech Software SAS', 'FR1420041010050500013M02606')
	ON CONFLICT DO NOTHING;
`

// A Bank is an open bank. It is safe for concurrent use.
type Bank struct {
	db      *sql.DB
	servers *servers
}

// An Account is a name and what is in it.
type Account struct {
	Account  string `json:"account"`
	Balance  Amount `json:"balance"`
	Currency string `json:"currency"`
}

// A Payee is somebody whom the bank can pay.
type Payee struct {
	Name    string `json:"name"`
	Company string `json:"company"`
	IBAN    string `json:"iban"`
}

// A Payment is a payment that was executed.
type Payment struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"`
	To       string    `json:"to"`
	Amount   Amount    `json:"amount"`
	Currency string    `json:"currency"`
}

// Open opens the bank in the database file at path and makes it, with two
// accounts and three payees, when it is not there. Close it.
func Open(path string) (*Bank, error) {
	// A path may hold "?" or "%": as part of a file URI it is escaped. Writes
	// begin as such, so that two of them queue and none fails in the middle.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening the bank: %w", err)
	}
	if _, err := db.Exec(schema); err != nil {
		return nil, fmt.Errorf("opening the bank in %s: %w", path, errors.Join(err, db.Close()))
	}
	b := &Bank{db: db}
	b.servers = newServers(b)
	return b, nil
}

// Close ends the MCP sessions and closes the database.
func (b *Bank) Close() error {
	b.servers.close()
	if err := b.db.Close(); err != nil {
		return fmt.Errorf("closing the bank: %w", err)
	}
	return nil
}

// Balance returns what is in an account.
func (b *Bank) Balance(ctx context.Context, account string) (Account, error) {
	a := Account{Account: account}
	err := b.db.QueryRowContext(ctx, `SELECT cents, currency FROM accounts WHERE name = ?`, account).Scan(&a.Balance, &a.Currency)
	if errors.Is(err, sql.ErrNoRows) {
		return Account{}, fmt.Errorf("there is no account %q", account)
	}
	if err != nil {
		return Account{}, fmt.Errorf("reading an account: %w", err)
	}
	return a, nil
}

// Payees returns everybody whom the bank can pay, by name.
func (b *Bank) Payees(ctx context.Context) ([]Payee, error) {
	rows, err := b.db.QueryContext(ctx, `SELECT name, company, iban FROM payees ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("reading payees: %w", err)
	}
	defer rows.Close()
	all := []Payee{}
	for rows.Next() {
		var p Payee
		if err := rows.Scan(&p.Name, &p.Company, &p.IBAN); err != nil {
			return nil, fmt.Errorf("reading payees: %w", err)
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading payees: %w", err)
	}
	return all, nil
}

// Payments returns every executed payment, oldest first.
func (b *Bank) Payments(ctx context.Context) ([]Payment, error) {
	rows, err := b.db.QueryContext(ctx, `SELECT id, at, payee, cents, currency FROM payments ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("reading payments: %w", err)
	}
	defer rows.Close()
	all := []Payment{}
	for rows.Next() {
		var p Payment
		var at string
		if err := rows.Scan(&p.ID, &at, &p.To, &p.Amount, &p.Currency); err != nil {
			return nil, fmt.Errorf("reading payments: %w", err)
		}
		if p.At, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return nil, fmt.Errorf("reading payment %d: %w", p.ID, err)
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading payments: %w", err)
	}
	return all, nil
}

// Pay executes one payment out of PayingAccount. The debit and the payment are
// one transaction: a crash leaves both or neither.
func (b *Bank) Pay(ctx context.Context, to string, amount Amount, currency string) (Payment, Account, error) {
	fail := func(err error) (Payment, Account, error) { return Payment{}, Account{}, err }
	if amount <= 0 {
		return fail(errors.New("the amount must be more than zero"))
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return fail(fmt.Errorf("beginning a payment: %w", err))
	}
	defer tx.Rollback() // after the commit it does nothing

	from := Account{Account: PayingAccount}
	if err := tx.QueryRowContext(ctx, `SELECT cents, currency FROM accounts WHERE name = ?`, PayingAccount).
		Scan(&from.Balance, &from.Currency); err != nil {
		return fail(fmt.Errorf("reading the paying account: %w", err))
	}
	var known int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM payees WHERE name = ?`, to).Scan(&known); err != nil {
		return fail(fmt.Errorf("reading the payee: %w", err))
	}
	switch {
	case known == 0:
		return fail(fmt.Errorf("there is no payee %q", to))
	case currency != from.Currency:
		return fail(fmt.Errorf("the account is in %s; a payment in %q is not possible", from.Currency, currency))
	case amount > from.Balance:
		return fail(fmt.Errorf("the account holds %s %s, which is less than %s", from.Balance, from.Currency, amount))
	}
	p := Payment{At: time.Now().UTC(), To: to, Amount: amount, Currency: currency}
	res, err := tx.ExecContext(ctx, `INSERT INTO payments (at, payee, currency, cents) VALUES (?, ?, ?, ?)`,
		p.At.Format(time.RFC3339Nano), to, currency, int64(amount))
	if err != nil {
		return fail(fmt.Errorf("recording the payment: %w", err))
	}
	if p.ID, err = res.LastInsertId(); err != nil {
		return fail(fmt.Errorf("recording the payment: %w", err))
	}
	from.Balance -= amount
	if _, err := tx.ExecContext(ctx, `UPDATE accounts SET cents = cents - ? WHERE name = ?`, int64(amount), PayingAccount); err != nil {
		return fail(fmt.Errorf("debiting the account: %w", err))
	}
	if err := tx.Commit(); err != nil {
		return fail(fmt.Errorf("committing the payment: %w", err))
	}
	return p, from, nil
}
