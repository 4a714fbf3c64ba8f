"""A real HTTP server on this machine that speaks OpenAI's protocol for embeddings and for chats."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tasks.config.index import EmbedderConfig

Answer = Callable[[Sequence[str]], list[dict[str, Any]]]
"""From the texts of a request to the response's `data`; for a chat, to one message."""


def numbered(vectors: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Vectors in the form of the protocol."""
    return [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]


def two_numbers(texts: Sequence[str]) -> list[dict[str, Any]]:
    return numbered([[3.0, 4.0 * len(text)] for text in texts])


def _respond(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    if "input" in body:
        return {"data": answer(body["input"]), "object": "list"}
    if "lora_name" in body:
        return {}
    [said] = answer([turn["content"] for turn in body["messages"]])
    likely = [{"token": "", "logprob": each, "top_logprobs": []} for each in said.pop("logprobs", ())]
    reason, model = said.pop("finish_reason", "stop"), said.pop("model", "m")
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **said}}
    if likely and body.get("logprobs"):
        choice["logprobs"] = {"content": likely, "refusal": None}
    used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": used}


@dataclass
class Served:
    """Answers with the failures (HTTP statuses) first, and records what it was asked."""

    answer: Answer
    failures: list[int]
    asked: list[dict[str, Any]] = field(default_factory=list)
    config: EmbedderConfig = field(default_factory=EmbedderConfig)
    """Of an embedder that asks here."""


@contextmanager
def serve(answer: Answer = two_numbers, failures: Sequence[int] = (), **config: Any) -> Iterator[Served]:
    """An endpoint while it lasts; `config` are more settings of the embedder that asks it."""
    served = Served(answer, list(failures))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body | {"path": self.path, "key": self.headers["Authorization"]})
            status = served.failures.pop(0) if served.failures else 200
            content: dict[str, Any] = _respond(served.answer, body) if status == 200 else {"error": {}}
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After-Ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        given = {"kind": "openai", "model": "small", "base_url": f"http://127.0.0.1:{server.server_port}/v1"}
        served.config = EmbedderConfig.model_validate(given | config)
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
