package credential

import "testing"

// What reading costs beside verifying: see BenchmarkVerify in resource.

func BenchmarkParse(b *testing.B) {
	proof := []string{compact(keyA, proofHeader, proofBody)}
	token := compact(keyB, tokenHeader, tokenWithout())
	assertion := compact(keyA, assertionHeader, assertionBody)
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"proof", func() error { _, err := ParseProof(proof); return err }},
		{"token", func() error { _, err := ParseToken(token); return err }},
		{"assertion", func() error { _, err := ParseAssertion(assertion); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
