"""The search service is tested on the shop of the page's tests, whose fixtures it shares."""

from helpers.page_shop import *  # noqa: F403
