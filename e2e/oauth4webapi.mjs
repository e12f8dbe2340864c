// Gets a DPoP-bound token with oauth4webapi and shows it to the resource, one
// protocol step at a time, the way its documentation has it. It starts from the
// resource's URL and finds the issuer out.
//
// Input (JSON on standard input): agent, keyFile (PKCS#8 PEM), resource, use (a
// JSON-RPC request for the resource), and what to do otherwise than one should:
// audience (of the assertion, instead of the issuer), proofKeyFile (signs the
// proof of the token request), showKeyFile (signs the proof at the resource),
// showTo (another resource's URL, which gets this one's token). With about (other: an
// agent, otherKeyFile) it then asks about the token and revokes it: first as that
// other agent, then as itself.
// Output: what was found and got, each use_dpop_nonce that came in between, what the
// issuer said of the token before and after it was revoked, and at the first refusal
// where it was and what it said.
import { text } from 'node:stream/consumers'
import * as oauth from 'oauth4webapi'
import { keyPair } from './keys.mjs'

const input = JSON.parse(await text(process.stdin))
// The test's servers are on loopback, without TLS.
const http = { [oauth.allowInsecureRequests]: true }
const output = { nonces: [] }
let where

// withNonce makes a request once more when it was turned away for its nonce.
async function withNonce(request) {
  try {
    return await request()
  } catch (err) {
    if (!oauth.isDPoPNonceError(err)) throw err
    output.nonces.push(where)
    return await request()
  }
}

try {
  where = 'resource metadata'
  const resource = new URL(input.resource)
  const rs = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, http))
  output.resource = rs

  where = 'issuer metadata'
  const issuer = new URL(rs.authorization_servers[0])
  const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...http }))
  output.issuer = as.issuer

  where = 'token'
  const key = await keyPair(input.keyFile)
  const client = { client_id: input.agent }
  const authentication = oauth.PrivateKeyJwt(key.privateKey, {
    [oauth.modifyAssertion](_header, payload) {
      if (input.audience) payload.aud = input.audience
    },
  })
  const DPoP = oauth.DPoP(client, input.proofKeyFile ? await keyPair(input.proofKeyFile) : key)
  const tokens = await withNonce(async () =>
    oauth.processClientCredentialsResponse(
      as,
      client,
      await oauth.clientCredentialsGrantRequest(as, client, authentication, { resource: input.resource }, { DPoP, ...http }),
    ),
  )
  output.token_type = tokens.token_type
  output.expires_in = tokens.expires_in
  output.scope = tokens.scope
  output.jkt = await DPoP.calculateThumbprint()

  where = 'resource'
  const show = input.showKeyFile ? oauth.DPoP(client, await keyPair(input.showKeyFile)) : DPoP
  const answer = await withNonce(() =>
    oauth.protectedResourceRequest(
      tokens.access_token,
      'POST',
      new URL(input.showTo ?? input.resource),
      new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream' }),
      JSON.stringify(input.use),
      {
        DPoP: show,
        ...http,
        async [oauth.customFetch](url, options) {
          // The peer is a resource server too: what it sends, it would take.
          if (!input.showKeyFile && !input.showTo) {
            const claims = await oauth.validateJwtAccessToken(as, new Request(url, options), input.resource, {
              requireDPoP: true,
              ...http,
            })
            output.claims = claims
          }
          return fetch(url, options)
        },
      },
    ),
  )
  output.used = { status: answer.status, body: await answer.text() }

  if (input.about) {
    // introspect asks about the token, for JSON or for a signed JWT, whose signature
    // is checked with the keys that the issuer publishes.
    const introspect = async (who, auth, requestJwtResponse) => {
      const response = await oauth.introspectionRequest(as, who, auth, tokens.access_token, { requestJwtResponse, ...http })
      const type = response.headers.get('content-type')
      const said = await oauth.processIntrospectionResponse(as, who, response)
      if (requestJwtResponse) await oauth.validateApplicationLevelSignature(as, response, http)
      return { type, said }
    }
    const revoke = async (who, auth) =>
      oauth.processRevocationResponse(await oauth.revocationRequest(as, who, auth, tokens.access_token, http))
    const other = { client_id: input.about.other }
    const otherKey = await keyPair(input.about.otherKeyFile)

    where = 'about, another agent'
    output.about = { other: await introspect(other, oauth.PrivateKeyJwt(otherKey.privateKey), false) }
    output.about.otherJWT = await introspect(other, oauth.PrivateKeyJwt(otherKey.privateKey), true)
    await revoke(other, oauth.PrivateKeyJwt(otherKey.privateKey))
    where = 'about'
    output.about.before = await introspect(client, authentication, false)
    output.about.beforeJWT = await introspect(client, authentication, true)
    where = 'revocation'
    await revoke(client, authentication)
    await revoke(client, authentication) // once more: it is revoked, which is no error
    where = 'about, revoked'
    output.about.after = await introspect(client, authentication, false)
    output.about.afterJWT = await introspect(client, authentication, true)
    where = 'resource, revoked'
    const again = await oauth
      .protectedResourceRequest(
        tokens.access_token,
        'POST',
        new URL(input.resource),
        new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream' }),
        JSON.stringify(input.use),
        { DPoP, ...http },
      )
      .catch((err) => err.response)
    output.about.used = { status: again.status, body: await again.text() }
  }
} catch (err) {
  // A refusal is an answer too: the test looks at it.
  const challenge = err.cause?.[0]
  const body = challenge ? await err.response.json() : err.cause
  output.refused = {
    where,
    code: body?.code,
    name: err.name,
    message: err.message,
    status: err.status ?? err.response?.status,
    error: err.error ?? challenge?.parameters?.error,
    scheme: challenge?.scheme,
    description: err.error_description ?? challenge?.parameters?.error_description,
  }
}
console.log(JSON.stringify(output))
