// Gets a DPoP-bound token with openid-client, from discovery alone, and shows
// it to the resource. It knows the issuer's URL, the agent's name and key and
// the resource's URL; everything else it has to find out.
//
// Input (JSON on standard input): issuer, agent, keyFile (PKCS#8 PEM),
// resource, and optionally scope, discovery ("oauth2" or "oidc") and use (a
// JSON-RPC request to send to the resource with the token).
// Output: what the issuer answered, the token's header and claims, and what
// the resource answered.
import { text } from 'node:stream/consumers'
import * as client from 'openid-client'
import { keyPair } from './keys.mjs'

const input = JSON.parse(await text(process.stdin))

const key = await keyPair(input.keyFile)

try {
  const config = await client.discovery(
    new URL(input.issuer),
    input.agent,
    undefined,
    client.PrivateKeyJwt(key.privateKey),
    {
      algorithm: input.discovery ?? 'oauth2',
      // The test's issuer is on loopback, without TLS.
      execute: [client.allowInsecureRequests],
    },
  )
  const DPoP = client.getDPoPHandle(config, key)
  const parameters = { resource: input.resource }
  if (input.scope) parameters.scope = input.scope
  const tokens = await client.clientCredentialsGrant(config, parameters, { DPoP })

  const [header, claims] = tokens.access_token
    .split('.', 2)
    .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()))
  const output = {
    token_type: tokens.token_type,
    expires_in: tokens.expires_in,
    scope: tokens.scope,
    jkt: await DPoP.calculateThumbprint(),
    header,
    claims,
  }
  if (input.use) {
    const answer = await client.fetchProtectedResource(
      config,
      tokens.access_token,
      new URL(input.resource),
      'POST',
      JSON.stringify(input.use),
      new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream' }),
      { DPoP },
    )
    output.used = { status: answer.status, body: await answer.text() }
  }
  console.log(JSON.stringify(output))
} catch (err) {
  // A refusal is an answer too: the test looks at it.
  console.log(
    JSON.stringify({
      refused: {
        name: err.name,
        message: err.message,
        code: err.code,
        status: err.status,
        error: err.error,
        description: err.error_description,
      },
    }),
  )
}
