// Calls tools with the MCP TypeScript SDK's client as it comes: it knows a URL,
// or a command as of a desktop client's configuration, and nothing of keys,
// tokens or proofs. This is the SDK's first major version, mcp-client-2.mjs the
// second.
//
// Input (JSON on standard input): url, or command and args; and calls [{name,
// arguments}].
// Output: the protocol revision and server that answered, the names of the
// listed tools, and for each call its result or error and the progress
// notifications that came with it.
import { text } from 'node:stream/consumers'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { hold } from './conversation.mjs'

const input = JSON.parse(await text(process.stdin))
const client = new Client({ name: 'an-unmodified-client', version: '1.0.0' })
const transport = input.url
  ? new StreamableHTTPClientTransport(new URL(input.url))
  : new StdioClientTransport({ command: input.command, args: input.args, stderr: 'inherit' })
// The client tells its transport which revision was agreed on, and keeps it
// from everybody else.
let protocol
const setProtocolVersion = transport.setProtocolVersion?.bind(transport)
transport.setProtocolVersion = (version) => {
  protocol = version
  setProtocolVersion?.(version)
}
await client.connect(transport)

const said = await hold(client, transport, input.calls, (params, options) => client.callTool(params, undefined, options))
const output = {
  protocol,
  session: transport.sessionId !== undefined,
  server: client.getServerVersion(),
  ...said,
}
await transport.terminateSession?.()
await client.close()
console.log(JSON.stringify(output))
