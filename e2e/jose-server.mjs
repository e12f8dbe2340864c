// A service of somebody else's that takes Counterfoil's tokens with nothing but a JWT
// library. docs/resource-servers.md shows verifier as it is.
//
// Arguments: the issuer's URL. The service is http://127.0.0.1:PORT/api.
import { createHash } from 'node:crypto'
import http from 'node:http'
import { EmbeddedJWK, calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } from 'jose'

// verifier returns a function that says whose request it is, and throws where it is
// nobody's: RFC 9068, Section 4, and RFC 9449, Section 4.3.
export function verifier(issuer, audience) {
  const keys = createRemoteJWKSet(new URL(`${issuer}/oauth/jwks`))
  const origin = new URL(audience).origin // of configuration: the Host header is the sender's
  const seen = new Map() // used proofs and until when, oldest first; of this one process
  return async function verify(method, path, headers) {
    const [scheme, token, more] = (headers.authorization ?? '').split(' ')
    if (scheme.toLowerCase() !== 'dpop' || !token || more !== undefined) throw new Error('no token')
    const { payload: claims } = await jwtVerify(token, keys, {
      issuer,
      audience,
      typ: 'at+jwt',
      algorithms: ['ES256'],
      clockTolerance: 5,
      requiredClaims: ['exp', 'iat', 'jti', 'client_id', 'cnf'],
    })

    // The proof is one header. Node joins several with a comma, which no JWT has.
    const { payload: proof, protectedHeader } = await jwtVerify(headers.dpop ?? '', EmbeddedJWK, {
      typ: 'dpop+jwt',
      algorithms: ['ES256', 'ES384', 'Ed25519', 'PS256'],
      maxTokenAge: 60, // seconds
      clockTolerance: 5,
      requiredClaims: ['jti', 'htm', 'htu', 'ath'],
    })
    const jkt = await calculateJwkThumbprint(protectedHeader.jwk)
    if (jkt !== claims.cnf.jkt) throw new Error('the token is bound to another key')
    if (proof.htm !== method) throw new Error('the proof is for another method')
    if (proof.htu !== origin + path.split('?')[0]) throw new Error('the proof is for another URL')
    if (proof.ath !== createHash('sha256').update(token).digest('base64url')) throw new Error('the proof is for another token')

    const now = Date.now()
    for (const [old, until] of seen) {
      if (until > now) break
      seen.delete(old)
    }
    const key = `${jkt} ${proof.jti}`
    if (seen.has(key)) throw new Error('the proof was used before')
    seen.set(key, now + 70_000)
    return claims
  }
}

const [issuer] = process.argv.slice(2)
let verify
const server = http.createServer(async (req, res) => {
  const answer = (status, body) => res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body))
  let claims
  try {
    claims = await verify(req.method, req.url, req.headers)
  } catch (err) {
    res.setHeader('WWW-Authenticate', 'DPoP error="invalid_token"')
    return answer(401, { error: err.message })
  }
  const tool = { GET: 'get_account', DELETE: 'close_account' }[req.method]
  if (!(claims.scope ?? '').split(' ').includes(tool)) return answer(403, { error: 'insufficient_scope' })
  answer(200, { agent: claims.client_id, account: req.url.split('/').at(-1) })
})
server.listen(0, () => {
  verify = verifier(issuer, `http://127.0.0.1:${server.address().port}/api`)
})
