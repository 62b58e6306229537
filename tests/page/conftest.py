"""The fixtures of the pages' tests; helpers/page_shop.py also holds what the tests import by name."""

from helpers.page_shop import *  # noqa: F403
