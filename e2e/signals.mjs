// Reads security event tokens as a receiver of shared signals does that has nothing
// but the issuer's URL: it finds the transmitter's configuration, fetches the
// published keys, and verifies each token with jose.
//
// Input (JSON on standard input): issuer, audience, sets (an array of tokens).
// Output: the configuration, and of each token its header and claims, or why jose does
// not take it.
import { text } from 'node:stream/consumers'
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'

const input = JSON.parse(await text(process.stdin))
const issuer = new URL(input.issuer)
const path = issuer.pathname === '/' ? '' : issuer.pathname
const response = await fetch(new URL(`/.well-known/ssf-configuration${path}`, issuer))
const configuration = await response.json()
const keys = createRemoteJWKSet(new URL(configuration.jwks_uri))
const sets = []
for (const set of input.sets) {
  try {
    const { payload, protectedHeader } = await jwtVerify(set, keys, {
      issuer: configuration.issuer,
      audience: input.audience,
      typ: 'secevent+jwt',
      algorithms: ['RS256'],
      requiredClaims: ['iss', 'iat', 'jti', 'aud', 'sub_id', 'events'],
    })
    sets.push({ header: protectedHeader, claims: payload })
  } catch (err) {
    let typ
    try {
      typ = decodeProtectedHeader(set).typ
    } catch {}
    sets.push({ refused: err.code ?? err.message, typ })
  }
}
process.stdout.write(JSON.stringify({ status: response.status, configuration, sets }))
