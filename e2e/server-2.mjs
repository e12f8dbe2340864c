// An MCP server made with the second major version of the TypeScript SDK, as its
// guide has it: it speaks 2026-07-28, and to a client that opens with a
// handshake an older revision. The reference servers do not yet.
//
// Start it with loopback.mjs, which picks the port.
import { createServer } from 'node:http'
import { toNodeHandler } from '@modelcontextprotocol/node'
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server'
import * as z from 'zod'

const notes = new Map()

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: 'notes', version: '2.0.0' })
  server.registerTool(
    'read_note',
    {
      description: 'Reads a note.',
      inputSchema: z.object({ title: z.string() }),
      outputSchema: z.object({ text: z.string() }),
    },
    ({ title }) => {
      const text = notes.get(title) ?? ''
      return { content: [{ type: 'text', text }], structuredContent: { text } }
    },
  )
  server.registerTool(
    'write_note',
    {
      description: 'Writes a note.',
      inputSchema: z.object({ title: z.string(), text: z.string() }),
      outputSchema: z.object({ length: z.number() }),
    },
    ({ title, text }) => {
      notes.set(title, text)
      return { content: [{ type: 'text', text: `wrote ${title}` }], structuredContent: { length: text.length } }
    },
  )
  server.registerTool(
    'count',
    { description: 'Counts, and reports each step.', inputSchema: z.object({ to: z.number().int() }) },
    async ({ to }, ctx) => {
      const progressToken = ctx.mcpReq._meta?.progressToken
      for (let progress = 1; progress <= to; progress++) {
        if (progressToken !== undefined) {
          await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: to } })
        }
      }
      return { content: [{ type: 'text', text: `counted to ${to}` }] }
    },
  )
  return server
})

createServer(toNodeHandler(handler)).listen(0)
