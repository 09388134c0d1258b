"""Talking to a running ComfyUI as its page does: queue a graph, watch it, fetch what it made."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import websocket
from PIL import Image

Graph = dict[str, dict[str, Any]]
"""A graph in the API's form: node id -> {"class_type": ..., "inputs": {...}}."""


class Refused(Exception):
    """The server did not queue a graph; `reply` is what it said, with `error` and `node_errors`."""

    def __init__(self, reply: dict[str, Any]) -> None:
        super().__init__(json.dumps(reply))
        self.reply = reply


@dataclass
class Run:
    """What was seen of one queued graph until it ended.

    status: "success", "error" or "interrupted"; progress: (node, value, maximum) in the order they came;
    cached: nodes not executed again; executed: node -> its output for the page; previews: live pictures;
    seconds_of: node -> from its start to that of the next one or the end, by `clock`.
    """

    prompt_id: str
    status: str = ""
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    cached: set[str] = field(default_factory=set)
    executed: dict[str, dict[str, Any]] = field(default_factory=dict)
    previews: int = 0
    error: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_of: dict[str, float] = field(default_factory=dict)
    current: tuple[str, float] | None = None
    clock: Callable[[], float] = time.monotonic

    def enter(self, node: str | None) -> None:
        """The server went on to another node, None at the end."""
        now = self.clock()
        if self.current is not None:
            before, since = self.current
            self.seconds_of[before] = self.seconds_of.get(before, 0.0) + now - since
        self.current = None if node is None else (node, now)


class Client:
    """One page's connection to the server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.id = uuid.uuid4().hex

    def get(self, path: str, **query: str) -> Any:
        """The JSON under a path of the server."""
        return json.loads(self.get_bytes(path, **query))

    def get_bytes(self, path: str, **query: str) -> bytes:
        address = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as reply:
            return bytes(reply.read())

    def post(self, path: str, value: Mapping[str, Any]) -> Any:
        """The JSON answer, None for an empty one; Refused for an answer that says why not."""
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                body = reply.read()
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from error
        return json.loads(body) if body else None

    def queue(self, graph: Graph) -> str:
        """Queues a graph and returns its id; Refused where validation fails."""
        return str(self.post("/prompt", {"prompt": graph, "client_id": self.id})["prompt_id"])

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def settled(self, seconds: float = 60) -> dict[str, Any]:
        """The queue once it is empty, or as it is after so many seconds.

        A server tells that a prompt has ended a moment before it takes it off the queue.
        """
        deadline = time.monotonic() + seconds
        while True:
            queue: dict[str, Any] = self.get("/queue")
            if not any(queue.values()) or time.monotonic() > deadline:
                return queue
            time.sleep(0.2)

    def run(
        self,
        graph: Graph,
        timeout: float = 1800,
        watch: Callable[[Run], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Run:
        """Queues a graph and follows it over the websocket to its end.

        watch is called after every message with what is known so far (to interrupt at a step, say);
        clock: seconds by which the nodes are timed.
        TimeoutError after `timeout` seconds without an end.
        """
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.id}"
        connection = websocket.create_connection(address, timeout=timeout)
        started = time.monotonic()
        try:
            run = Run(self.queue(graph), clock=clock)
            while not run.status:
                left = timeout - (time.monotonic() - started)
                if left <= 0:
                    raise TimeoutError(f"the graph did not end within {timeout:.0f} s")
                connection.settimeout(left)
                self._take(run, connection.recv())
                if watch is not None:
                    watch(run)
        finally:
            connection.close()
        run.seconds = time.monotonic() - started
        return run

    def _take(self, run: Run, message: str | bytes) -> None:
        if isinstance(message, bytes):
            run.previews += 1
            return
        event = json.loads(message)
        kind, data = event["type"], event.get("data", {})
        if data.get("prompt_id") not in (None, run.prompt_id):
            return
        if kind == "progress":
            run.progress.append((str(data["node"]), int(data["value"]), int(data["max"])))
        elif kind == "execution_cached":
            run.cached |= set(data["nodes"])
        elif kind == "executing":
            run.enter(data["node"])
        elif kind == "executed":
            run.executed[str(data["node"])] = data["output"] or {}
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            run.status = kind.removeprefix("execution_")
            run.error = data if kind == "execution_error" else {}
            run.enter(None)

    def pictures(self, run: Run, node: str) -> list[Image.Image]:
        """The pictures that an output node showed."""
        return [
            Image.open(io.BytesIO(self.get_bytes("/view", **entry))).convert("RGB")
            for entry in run.executed[node]["images"]
        ]

    def upload(self, picture: Image.Image, name: str) -> str:
        """Puts a picture among the server's inputs, as a drop onto its page does; returns its name there."""
        data = io.BytesIO()
        picture.save(data, "PNG")
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        )
        tail = (
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue'
            f"\r\n--{boundary}--\r\n"
        )
        request = urllib.request.Request(
            f"{self.url}/upload/image",
            head.encode() + data.getvalue() + tail.encode(),
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return str(json.loads(reply.read())["name"])
