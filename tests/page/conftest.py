"""The fixtures of the pages' tests stand in page_shop.py, where tests can import its helpers by a name of their own."""

from page_shop import *  # noqa: F403
