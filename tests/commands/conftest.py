"""The shop with judgments, measured once per session."""

import pytest

from gcl.cli import main
from helpers.judged_shop import write_shop
from helpers.page_shop import encoders, readable  # noqa: F401


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """A folder, its judgments, and evaluate(*words) -> the folder with what was measured on the shop."""
    folder = tmp_path_factory.mktemp("judged")
    rows = write_shop(folder)

    def evaluate(*words, data="judged"):
        out = tmp_path_factory.mktemp("measured")
        where = ["--config-dir", str(folder / "conf"), f"cache_dir={folder / 'cache'}", f"out={out}"]
        main(["evaluate", *where, *([f"data={data}"] if data else []), *words])
        return out

    return folder, rows, evaluate


@pytest.fixture(scope="session")
def plain(judged):
    return judged[2]("models=[tiny]")
