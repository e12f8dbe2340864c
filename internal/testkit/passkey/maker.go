package passkey

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// A Maker makes authenticators and vouches for them: packed attestation with a
// certificate (WebAuthn Level 3, Section 8.2).
type Maker struct {
	Root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// The certificates' life holds every clock that a test has.
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// NewMaker returns a maker with a root certificate of its own.
func NewMaker(name string) *Maker {
	key := NewKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name + " root"}, NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &Maker{Root: certify(template, template, key, key), key: key}
}

// Pool returns the pool of the maker's root alone.
func (m *Maker) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(m.Root)
	return pool
}

// oidAAGUID is id-fido-gen-ce-aaguid (WebAuthn Level 3, Section 8.2.1).
var oidAAGUID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}

// statement vouches for data with a certificate for authenticators of a model.
func (m *Maker) statement(data []byte, aaguid [16]byte) []byte {
	model, err := asn1.Marshal(aaguid[:])
	must(err)
	key := NewKey()
	cert := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject: pkix.Name{
			Country: []string{"SE"}, Organization: []string{"Maker"},
			OrganizationalUnit: []string{"Authenticator Attestation"}, CommonName: "Authenticator",
		},
		NotBefore: notBefore, NotAfter: notAfter, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: oidAAGUID, Value: model}},
	}, m.Root, key, m.key)
	return cborMap(
		cborPair{cborText("alg"), cborInt(-7)},
		cborPair{cborText("sig"), cborBytes(sign(key, data))},
		cborPair{cborText("x5c"), cborArray(cborBytes(cert.Raw))},
	)
}

func certify(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return cert
}
