package manifest

import (
	"slices"
	"strings"
	"unicode"
)

// Classes that are suggested. Those beside read and write are the ones that have a
// lowest tier.
const (
	classRead  = "read"
	classWrite = "write"
)

// effects are words of what cannot be taken back, each list with the class that it
// suggests, the stricter ones first.
var effects = []struct {
	class string
	words []string
}{
	{"payout", []string{"pay", "payment", "payout", "transfer", "refund", "disburse", "disbursement", "remit", "remittance", "withdraw", "withdrawal"}},
	{"key-operation", []string{"key", "apikey", "keypair", "secret", "token", "certificate", "cert"}},
	{"admin-change", []string{"admin", "administrator", "superuser", "role", "permission", "privilege", "acl", "iam"}},
	{"credential-reset", []string{"password", "passcode", "passkey", "credential", "mfa", "2fa", "otp", "totp", "reset"}},
}

// acts are first words of names that do something, whatever the method is.
var acts = []string{
	"activate", "add", "approve", "assign", "cancel", "change", "create", "deactivate", "delete", "disable", "disburse", "enable", "execute", "generate", "grant", "invite", "issue",
	"pay", "post", "purge", "put", "refund", "regenerate", "remit", "remove", "renew", "replace", "reset", "revoke", "rotate", "run", "send", "set", "start", "stop", "submit",
	"transfer", "trigger", "unlock", "update", "withdraw",
}

// suggest says which class an operation looks as if it were of: a guess from its method
// and its words, for a person to decide on.
func suggest(method, operationID, path, summary string) string {
	name := wordsOf(operationID)
	if (method == "GET" || method == "HEAD") && (len(name) == 0 || !slices.Contains(acts, name[0])) {
		return classRead
	}
	words := slices.Concat(name, wordsOf(path), wordsOf(summary))
	for _, e := range effects {
		if slices.ContainsFunc(e.words, func(w string) bool { return slices.Contains(words, w) }) {
			return e.class
		}
		// Whoever takes away people's accounts decides who may do anything at all.
		ends := method == "DELETE" || slices.Contains(words, "delete") || slices.Contains(words, "remove") || slices.Contains(words, "deactivate")
		if e.class == "admin-change" && ends && (slices.Contains(words, "user") || slices.Contains(words, "account") || slices.Contains(words, "member")) {
			return e.class
		}
	}
	return classWrite
}

// wordsOf takes a name or a text apart: at what is neither letter nor digit, and where a
// capital begins a word. Plurals are their singulars.
func wordsOf(s string) []string {
	var out []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			out = append(out, singular(strings.ToLower(string(word))))
		}
		word = word[:0]
	}
	runes := []rune(s)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			continue
		case unicode.IsUpper(r) && i > 0 && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsUpper(runes[i-1]) && unicode.IsLower(runes[i+1])):
			end()
		}
		word = append(word, r)
	}
	end()
	return out
}

func singular(w string) string {
	switch {
	case len(w) > 4 && strings.HasSuffix(w, "ies"):
		return w[:len(w)-3] + "y"
	case len(w) > 3 && strings.HasSuffix(w, "s") && !strings.HasSuffix(w, "ss"):
		return w[:len(w)-1]
	}
	return w
}
