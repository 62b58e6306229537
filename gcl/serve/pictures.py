"""Pictures that somebody sends: files, data URLs, and addresses where the server may fetch them."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass

from gcl.data.catalog import Download
from gcl.data.images import READ, BadImage, check_image
from gcl.data.masked import masked
from gcl.data.tables.fetch import Failure, fetch
from gcl.data.tables.quarantine import Bad
from gcl.serve.limits import PICTURE_PIXELS
from gcl.serve.refusal import BadRequest

PICTURE_BYTES = 10_000_000
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(;[\w.+-]+=[\w.+-]+)*(;base64)?,", re.IGNORECASE)


@dataclass(frozen=True)
class Pictures:
    """urls: whether addresses are fetched, none of a private network among them."""

    urls: bool = False

    def given(self, text: str) -> bytes | None:
        """The picture that a data URL or an address leads to; None: it is another text.

        Raises BadRequest: the data URL is damaged, or the address is not fetched.
        """
        if _ADDRESS.fullmatch(text.strip()):
            return self._fetched(text.strip())
        if not text.lstrip()[:5].lower() == "data:":
            return None
        head = _DATA.match(text.lstrip())
        if head is None or not head[3]:
            raise BadRequest("A picture as a data URL is written data:image/jpeg;base64,…")
        try:
            data = b64decode(text.lstrip()[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest(
                "The data URL's base64 is damaged: it has other signs than A to Z, 0 to 9, + and /."
            ) from None
        return checked(data)

    def required(self, text: str) -> bytes:
        """The same where a picture has to be. Raises BadRequest."""
        data = self.given(text)
        if data is None:
            raise BadRequest("A picture is a data URL, data:image/jpeg;base64,…; this is a text.")
        return data

    def _fetched(self, address: str) -> bytes:
        if not self.urls:
            raise BadRequest(
                "This server fetches no addresses: send the picture as a data URL, data:image/jpeg;base64,…, or start "
                "it with gcl search urls=true."
            )
        try:
            data = fetch(address, Download(timeout=10.0, max_bytes=PICTURE_BYTES))
        except Failure as failure:
            said = re.split("[:;,] data[.]download", str(failure))[0]  # what a catalog's settings would change
            raise BadRequest(f"The picture at {masked(address)[:200]} cannot be fetched: {said}.") from failure
        return checked(data)


def checked(data: bytes) -> bytes:
    """A picture that can be searched with. Raises BadRequest for others."""
    if len(data) > PICTURE_BYTES:
        sentence = f"The picture has {len(data) / 1e6:.1f} MB; the limit is {PICTURE_BYTES / 1e6:.0f} MB."
        raise BadRequest(sentence, 413)
    found = check_image(data, max_pixels=PICTURE_PIXELS, limit="the limit")
    if isinstance(found, Bad):
        raise refused(found)
    return data


def refused(error: Bad | BadImage) -> BadRequest:
    """What is said of a picture that cannot be used."""
    bad = error.bad if isinstance(error, BadImage) else error
    sentence = f"The picture cannot be used: {bad}."
    if bad.reason == "image has too many pixels":
        return BadRequest(sentence, 413)
    return BadRequest(sentence if READ in sentence else f"{sentence} Pictures are read as {READ}.", 415)
