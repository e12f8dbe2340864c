"""An HTTP API that answers with what Python reads in a request: the segments of its
path, the parameters of its query and its JSON body."""
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        url = urlsplit(self.path)
        out = {
            "method": self.command,
            "path": [unquote(s, errors="strict") for s in url.path.split("/")[1:]],
            "query": parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query), errors="strict"),
            "body": json.loads(body.decode("utf-8")) if body else None,
        }
        text = json.dumps(out).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
