// Puts an MCP server that speaks on standard input and output behind streamable
// HTTP, because a gateway's upstream is a URL: the SDK's two transports, back to
// back, and one process of the server for each session. Messages pass unread.
//
// Arguments: the server's command and its arguments. Start it with loopback.mjs,
// which picks the port.
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'

const [command, ...args] = process.argv.slice(2)
const sessions = new Map()

// begin joins a new session and a new process of the server.
async function begin() {
  const server = new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' })
  const client = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, client),
    onsessionclosed: (id) => sessions.delete(id),
  })
  client.onmessage = (message) => server.send(message)
  server.onmessage = (message) => client.send(message)
  client.onclose = () => server.close()
  server.onclose = () => client.close()
  await Promise.all([client.start(), server.start()])
  return client
}

createServer(async (req, res) => {
  const id = req.headers['mcp-session-id']
  const session = id === undefined ? await begin() : sessions.get(id)
  if (session === undefined) {
    res.writeHead(404).end()
    return
  }
  await session.handleRequest(req, res)
}).listen(0)
