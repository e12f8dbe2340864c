// A service of somebody else's that takes Counterfoil's tokens with
// express-oauth2-jwt-bearer. docs/resource-servers.md shows the functions as they are.
//
// Arguments: the issuer's URL. The service is http://127.0.0.1:PORT/api; below
// /api/library it leaves out what the library does not do.
import express from 'express'
import { auth, requiredScopes } from 'express-oauth2-jwt-bearer'
import { decodeJwt, decodeProtectedHeader, calculateJwkThumbprint } from 'jose'

// protect takes bound tokens of one issuer for one audience, each with a proof.
export function protect(issuer, audience) {
  return [
    onlyHost(new URL(audience).host),
    auth({
      issuerBaseURL: issuer,
      audience,
      strict: true, // typ at+jwt, and client_id and jti are there (RFC 9068)
      tokenSigningAlg: 'ES256',
      clockTolerance: 5,
      dpop: { enabled: true, required: true, iatOffset: 60, iatLeeway: 5 },
    }),
    once(65),
  ]
}

// onlyHost refuses what was sent to another name: the library takes the URL that a
// proof is for out of the Host header, which is the sender's.
function onlyHost(host) {
  return (req, res, next) => (req.headers.host === host ? next() : res.sendStatus(421))
}

// once refuses a proof that was used before. It knows those of this one process; with
// several, keep them where all can see (SET key NX EX in Redis). It comes after auth.
function once(seconds) {
  const seen = new Map() // until when each is remembered, oldest first
  return async (req, res, next) => {
    const proof = req.headers.dpop
    const key = `${await calculateJwkThumbprint(decodeProtectedHeader(proof).jwk)} ${decodeJwt(proof).jti}`
    const now = Date.now()
    for (const [old, until] of seen) {
      if (until > now) break
      seen.delete(old)
    }
    if (seen.has(key)) {
      return res.status(401).set('WWW-Authenticate', 'DPoP error="invalid_dpop_proof"').end()
    }
    seen.set(key, now + (seconds + 5) * 1000)
    next()
  }
}

const [issuer] = process.argv.slice(2)
const app = express()
const server = app.listen(0, () => {
  const audience = `http://127.0.0.1:${server.address().port}/api`
  const checks = protect(issuer, audience)
  const account = (req, res) => res.json({ agent: req.auth.payload.client_id, account: req.params.id })
  app.get('/api/accounts/:id', checks, requiredScopes('get_account'), account)
  app.delete('/api/accounts/:id', checks, requiredScopes('close_account'), account)
  app.get('/api/library/:id', checks.slice(1, 2), account)
})
