"""Servers on addresses of this machine, which answer the operator as pods do, or should not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from luthier_api.documents import TRAINER_PORT

LEAST = {"stage": "Training", "step": 30, "totalSteps": 120, "updatedAt": "2026-01-01T00:00:00Z"}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Behaviour = Callable[[socket.socket, threading.Event], None]
"""What an endpoint does with a connection; it goes on until the event."""


def answer(**changes: Any) -> bytes:
    return document(json.dumps({**LEAST, **changes}))


def document(text: str) -> bytes:
    body = text.encode()
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class Endpoint:
    """What a pod does with whoever connects; `behave` gets the connection and whether to go on."""

    def __init__(self, address: str, behave: Behaviour, port: int = TRAINER_PORT, path: str = "/progress") -> None:
        self.address, self._port = address, port
        self._begins = f"GET {path} HTTP/1.1\r\n".encode()
        self.asked = 0
        self._behave, self._over = behave, threading.Event()
        self._listener = socket.create_server((address, port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            connection, _ = self._listener.accept()
            if self._over.is_set():
                connection.close()
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                if connection.recv(4096).startswith(self._begins):
                    self.asked += 1
                    self._behave(connection, self._over)
            except OSError:
                return  # the operator has gone, as it should

    def close(self) -> None:
        self._over.set()
        socket.create_connection((self.address, self._port)).close()
        self._thread.join()
        self._listener.close()


def says(content: bytes) -> Behaviour:
    return lambda connection, _: connection.sendall(content)
