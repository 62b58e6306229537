"""URLs as messages and files may show them."""

from __future__ import annotations

import re

HIDDEN = "***"
_LOGIN = re.compile(r"//[^/@\s]+@")
_KEYS = re.compile(
    r"([?&;](?:[^=&#\s]*(?:signature|token|secret|passw|credential|api[_-]?key|access[_-]?key|session)[^=&#\s]*"
    r"|sig|key|auth|pwd|jwt|hmac)=)[^&#\s]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """A text without the passwords and keys of the URLs in it.

    >>> masked("https://ann:pw@shop.example/1.jpg?X-Amz-Signature=5f3c&size=2: HTTP 403")
    'https://***@shop.example/1.jpg?X-Amz-Signature=***&size=2: HTTP 403'
    """
    return _KEYS.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"//{HIDDEN}@", text)) if "//" in text else text
