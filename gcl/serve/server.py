"""uvicorn with a time limit for what a client sends."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Sequence
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

READ_SECONDS = 20.0
"""Within this a request, header and body, has to be there: a picture of 10 MB at 4 Mbit/s."""


def serve(app: Any, sockets: Sequence[socket.socket], *, read_seconds: float = READ_SECONDS) -> None:
    """Answers at these sockets until interrupted."""

    class Protocol(_TimedProtocol):
        seconds = read_seconds

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every body that is malformed
    config = uvicorn.Config(app, http=Protocol, ws="none", log_level="error", server_header=False)
    try:
        uvicorn.Server(config).run(sockets=list(sockets))
    except KeyboardInterrupt:  # how the page is left
        pass


class _TimedProtocol(H11Protocol):
    """Cuts a connection whose request is not complete in time, however steadily its bytes come in.

    uvicorn itself limits only the silence between two requests. The clock starts with the connection, or with the
    first byte of a further request, and stops when the request has been read; the answer may take longer.
    """

    seconds: float
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        state = self.conn.their_state
        if state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
            self._start_clock()
        else:
            self._stop_clock()

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.seconds, self._cut)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _cut(self) -> None:
        self._clock = None
        if self.transport.is_closing():
            return
        silent = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]  # browsers connect beforehand
        if not silent and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
            sentence = f"The request was not complete within {self.seconds:g} seconds."
            body = json.dumps({"detail": sentence}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=408, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()
