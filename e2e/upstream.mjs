// An HTTP API that answers with what Node reads in a request: the segments of its path,
// the parameters of its query and its JSON body.
import http from "node:http";
import readline from "node:readline";

const server = http.createServer((req, res) => {
  const chunks = [];
  req.on("data", (c) => chunks.push(c));
  req.on("end", () => {
    const url = new URL(req.url, "http://upstream.example");
    const query = {};
    for (const name of url.searchParams.keys()) query[name] = url.searchParams.getAll(name);
    const body = Buffer.concat(chunks).toString("utf8");
    const out = {
      method: req.method,
      path: url.pathname.split("/").slice(1).map(decodeURIComponent),
      query,
      body: body === "" ? null : JSON.parse(body),
    };
    const text = JSON.stringify(out);
    res.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
    res.end(text);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
readline.createInterface({ input: process.stdin }).on("close", () => process.exit(0));
