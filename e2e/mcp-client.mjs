// Calls tools with the MCP TypeScript SDK's client as it comes: it knows a URL
// and nothing of keys, tokens or proofs.
//
// Input (JSON on standard input): url, and calls [{name, arguments}].
// Output: the protocol revision and server that answered, the names of the
// listed tools, and for each call its result or error and the progress
// notifications that came with it.
import { text } from 'node:stream/consumers'
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const input = JSON.parse(await text(process.stdin))
const client = new Client({ name: 'an-unmodified-client', version: '1.0.0' })
const transport = new StreamableHTTPClientTransport(new URL(input.url))
await client.connect(transport)

const tools = []
let cursor
do {
  const page = await client.listTools({ cursor })
  tools.push(...page.tools.map((tool) => tool.name))
  cursor = page.nextCursor
} while (cursor)

const calls = []
for (const { name, arguments: args } of input.calls ?? []) {
  const progress = []
  try {
    const result = await client.callTool({ name, arguments: args }, undefined, {
      onprogress: (notification) => progress.push(notification),
    })
    calls.push({ name, progress, result })
  } catch (err) {
    calls.push({ name, progress, error: { code: err.code, message: err.message, data: err.data } })
  }
}

const output = {
  protocol: transport.protocolVersion,
  session: transport.sessionId !== undefined,
  server: client.getServerVersion(),
  tools,
  calls,
}
await transport.terminateSession()
await client.close()
console.log(JSON.stringify(output))
