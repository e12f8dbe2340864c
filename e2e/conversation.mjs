// What both MCP clients do once they are connected: list the tools, page by
// page, and make the calls, one after another.

// hold returns the names of the listed tools and, for each call of calls
// [{name, arguments}], its result or error and the progress that came before
// it. call(params, options) calls a tool.
//
// Progress is counted where the transport hands it to the client: the client
// itself forgets its handler when the answer arrives in one read with a notice,
// as it may on standard input and output, and drops the notice.
export async function hold(client, transport, calls, call) {
  let progress = []
  const onmessage = transport.onmessage
  transport.onmessage = (message, extra) => {
    if (message.method === 'notifications/progress') progress.push(message.params)
    onmessage(message, extra)
  }

  const tools = []
  let cursor
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor })
    tools.push(...page.tools.map((tool) => tool.name))
    cursor = page.nextCursor
  } while (cursor)

  const called = []
  for (const { name, arguments: args } of calls ?? []) {
    progress = []
    try {
      const result = await call({ name, arguments: args }, { onprogress() {} })
      called.push({ name, progress, result })
    } catch (err) {
      called.push({ name, progress, error: { code: err.code, message: err.message, data: err.data } })
    }
  }
  return { tools, calls: called }
}
