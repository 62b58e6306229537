"""One real browser for all tests that look at a page."""

import os
import shutil

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def chromium():
    """A real browser; the test is skipped where there is none, and fails for it where CI is set."""
    program = os.environ.get("GCL_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program, missing = None, "the Python package playwright is not installed (pip install 'gcl-trainer[dev]')"
    else:
        missing = "chromium is not installed (apt-get install chromium, or GCL_CHROMIUM=/path/to/it)"
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"No browser to test the page in: {missing}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)  # headless, with a new empty profile
        yield browser
        browser.close()
