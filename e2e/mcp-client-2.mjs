// Calls tools with the second major version of the MCP TypeScript SDK's client
// as it comes, which speaks the revisions with a handshake and the one without.
//
// Input (JSON on standard input): url, or command and args; revision ("auto",
// the default: it asks the server; "legacy": a handshake; or a revision, which
// it insists on); and calls [{name, arguments}].
// Output: as of mcp-client.mjs.
import { text } from 'node:stream/consumers'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { hold } from './conversation.mjs'

const input = JSON.parse(await text(process.stdin))
const revision = input.revision || 'auto'
const client = new Client(
  { name: 'an-unmodified-client', version: '2.0.0' },
  { versionNegotiation: { mode: ['auto', 'legacy'].includes(revision) ? revision : { pin: revision } } },
)
const transport = input.url
  ? new StreamableHTTPClientTransport(new URL(input.url))
  : new StdioClientTransport({ command: input.command, args: input.args, stderr: 'inherit' })
try {
  await client.connect(transport)
} catch (err) {
  console.log(JSON.stringify({ refused: { name: err.name, code: err.code, message: err.message } }))
  process.exit(0)
}

const said = await hold(client, transport, input.calls, (params, options) => client.callTool(params, options))
const output = {
  protocol: client.getNegotiatedProtocolVersion(),
  session: transport.sessionId !== undefined,
  server: client.getServerVersion(),
  ...said,
}
await transport.terminateSession?.()
await client.close()
console.log(JSON.stringify(output))
