"""A stand-in for W&B's server: healthy, silent from the start, or silent once a run has begun."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

HOW = Literal["healthy", "silent", "silent later"]
PROJECT = {"id": "p", "name": "tests", "entity": {"id": "e", "name": "me"}}


def answer(query: str, variables: dict[str, Any]) -> dict[str, Any]:
    if query.startswith("mutation UpsertBucket"):
        name = variables["name"]
        bucket = {"id": "b", "name": name, "displayName": name, "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if query.startswith("mutation CreateRunFiles"):
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
    return {"model": None} if query.startswith("query RunResumeStatus") else {}


class WandbServer(ThreadingHTTPServer):
    """A context manager. `lines` is what the file stream holds, by file; lines sent again replace others."""

    daemon_threads = True

    def __init__(self, how: HOW):
        super().__init__(("127.0.0.1", 0), Answer)
        self.how, self.lines, self.ending = how, {}, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *arguments: object) -> None: ...  # a client that no longer waits


class Answer(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = json.loads(body or b"{}")
        if self.server.how == "silent" or (self.server.how == "silent later" and "query" not in asked):
            self.server.ending.wait(120)
        if "files" in asked:
            for name, part in asked["files"].items():
                lines, start = self.server.lines.setdefault(name, []), part["offset"]
                lines[start : start + len(part["content"])] = part["content"]
        told = answer(asked.get("query", "").strip(), asked.get("variables") or {})
        content = json.dumps({"data": told}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments: object) -> None: ...
