"""One real browser for all tests that look at a page."""

import os
import shutil
from importlib.resources import files

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"  # in a container /dev/shm may have 64 MB
).split()
TIMEOUT = 900_000  # milliseconds that guard against hanging; a busy machine may need many


@pytest.fixture(scope="session")
def chromium():
    """A real browser; the test is skipped where there is none, and fails for it where CI is set."""
    program = os.environ.get("GCL_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
    )
    try:
        import axe_playwright_python  # noqa: F401
        from playwright.sync_api import expect, sync_playwright
    except ImportError as error:
        program, missing = None, f"the package {error.name} is not installed (pip install 'gcl-trainer[dev]')"
    else:
        missing = "chromium is not installed (apt-get install chromium, or GCL_CHROMIUM=/path/to/it)"
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"No browser to test the page in: {missing}.")
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:  # headless, with a new empty profile
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=TIMEOUT)
        yield browser
        browser.close()


def axe_findings(page) -> list[tuple[str, str]]:
    """What axe-core finds on a page as it stands: [(rule, the first element that breaks it)]."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run().then((found) => found.violations)")
    return [(one["id"], one["nodes"][0]["html"]) for one in found]
