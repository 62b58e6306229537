"""What clients of engines that take JSON over HTTP share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import requests  # which wandb brings

Results = list[tuple[str, dict[str, Any]]]  # (id, payload), best first


class Web:
    """A server, over one connection. A password of the address is HTTP's own, or a key.

    key: the header of the key, as `X-API-KEY: `. refusals: what is in an answer of success that says that something was
    refused.
    """

    def __init__(self, address: str, *, key: str = "", refusals: Sequence[str] = ()) -> None:
        self.key, self.refusals, self._session = key, refusals, requests.Session()
        place = urlsplit(address)
        self._base = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path.rstrip('/')}"
        self._session.headers["Content-Type"] = "application/json"
        if place.password is not None:
            user, password = unquote(place.username or ""), unquote(place.password)
            name, _, scheme = key.partition(": ")
            if key:
                self._session.headers[name] = scheme + password
            else:
                self._session.auth = (user, password)

    def send(self, method: str, path: str, body: Any = None, *, missing: Sequence[int] = ()) -> Any:
        """What the server answers; None for a status in `missing`. body: text, or what becomes JSON.

        Raises ValueError for any other status that is not of success, and where something was refused; ConnectionError.
        """
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body, allow_nan=False)
        try:
            answer = self._session.request(method, self._base + path, data=text.encode(), timeout=600)
        except requests.ConnectionError as error:
            reason = str(getattr(error.args[0], "reason", error)).rpartition(": ")[2]
            raise ConnectionError(f"no answer at {self._base}: {reason}") from error
        if answer.status_code in missing and answer.text[:1] in ("", "{"):  # and not a page of some other server
            return None
        if answer.status_code in missing or not answer.ok:
            told = " ".join(answer.text.split())[:500]
            raise ValueError(f"it answered {method} {path} with {answer.status_code}: {told}")
        for at in (answer.text.find(refusal) for refusal in self.refusals):
            if at >= 0:
                at = max(at, answer.text.find('"error":', at + 1))  # of the first document that was refused
                raise ValueError(f"it refused some of {method} {path}: {answer.text[max(0, at - 300) :][:800]}")
        try:
            return answer.json()
        except ValueError:  # several lines of JSON
            return None

    def close(self) -> None:
        self._session.close()
