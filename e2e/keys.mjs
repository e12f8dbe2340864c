// Reads an agent's key the way the OAuth clients want it: as Web Crypto keys.
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'

const algorithms = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256' },
  'P-384': { name: 'ECDSA', namedCurve: 'P-384' },
  Ed25519: { name: 'Ed25519' },
}

// keyPair reads a PKCS#8 PEM file.
export async function keyPair(file) {
  const pem = readFileSync(file)
  const privateJwk = createPrivateKey(pem).export({ format: 'jwk' })
  const publicJwk = createPublicKey(pem).export({ format: 'jwk' })
  const algorithm = algorithms[privateJwk.crv]
  return {
    privateKey: await crypto.subtle.importKey('jwk', privateJwk, algorithm, false, ['sign']),
    publicKey: await crypto.subtle.importKey('jwk', publicJwk, algorithm, true, ['verify']),
  }
}
