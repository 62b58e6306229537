"""Where an engine is. An address may have a password in it: messages and files show it without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from gcl.data.masked import HIDDEN, masked
from gcl.errors import ConfigError, sentence_of
from gcl.exports.engines.engine import Collection, Engine, Layout
from gcl.files.digest import text_sha256
from gcl.files.progress import doing


class Place:
    """An engine's database in a folder, or its server at an address. reached: whether it has answered."""

    def __init__(self, engine: Engine, folder: Path, url: str | None) -> None:
        self.engine, self.folder, self.url, self.reached = engine, folder, url, False

    @property
    def shown(self) -> str:
        """As messages and files may show it."""
        return str(self.folder) if self.url is None else shown(self.url)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """An engine's errors have many types, and name the address that they were given: raises ConfigError."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            said = " ".join(hidden(sentence_of(error), self.url).split())
            told = f"{self.engine.title} ({self.shown}): {said}"
            if self.url is not None and not self.reached:
                told += "" if told.endswith((".", "?", "!")) else "."
                told += " Is it running there, and does url=… have the login that it asks for?"
            raise ConfigError(told) from error

    @contextmanager
    def opened(self, layout: Layout) -> Iterator[Collection]:
        """A collection, which need not be there yet."""
        with self.errors(), doing(f"Opening {self.engine.title}"):
            collection = self.engine.collection(layout, self.folder, self.url)
        try:
            yield collection
        except BaseException:
            with suppress(Exception):  # the first error counts
                collection.close()
            raise
        with self.errors():
            collection.close()


def check_address(url: str, engine: Engine) -> None:
    """Raises ConfigError for an engine that has none, and for what is no address."""
    if not engine.url:
        raise ConfigError(
            f"url={shown(url)}: {engine.title} has no address, it is {engine.explanation}: leave url= out."
        )
    if "://" not in url:
        raise ConfigError(f"url=…: the address of {engine.title} begins like {engine.url}.")


def shown(url: str) -> str:
    """An address without login and query.

    >>> shown("postgresql://ann:pw@localhost/shop?sslpassword=pw")
    'postgresql://localhost/shop'
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return HIDDEN
    place, *further = re.split("[?#;]", rest, maxsplit=1)
    if any("@" in part for part in further):  # of a login that is not written as one should
        return f"{scheme}://{HIDDEN}"
    return f"{scheme}://{place.rpartition('@')[2]}"


def hidden(text: str, url: str | None) -> str:
    """What an engine says of an address, without its secrets.

    >>> hidden("no route to postgresql://ann:pw@localhost/shop", "postgresql://ann:pw@localhost/shop")
    'no route to postgresql://localhost/shop'
    """
    if url is None:
        return text
    login = url.partition("://")[2].rpartition("@")[0]
    password = login.partition(":")[2]
    for secret, other in ((url, shown(url)), (f"{login}@", ""), (password, HIDDEN), (unquote(password), HIDDEN)):
        text = text.replace(secret, other) if secret.strip("@") else text
    return masked(text)


def place_id(url: str) -> str:
    """What tells two places apart, with nothing to guess passwords by."""
    return text_sha256(masked(url))
