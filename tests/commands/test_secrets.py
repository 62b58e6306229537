"""No password, key or token is in a file that gcl writes, or in what it says: every byte of a run is looked at."""

import base64
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import gcl
from gcl.cli import main
from gcl.config.compose import load_config
from helpers.hub_server import TOKEN, served
from helpers.trained_shop import write_shop

LITERAL, NAMED, PASSWORD = "typed5ecret4711", "named5ecret4712", "url5ecret4713"
SECRETS = [LITERAL, NAMED, PASSWORD, TOKEN]
FORMS = [form for secret in SECRETS for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1])]


class Shop(SimpleHTTPRequestHandler):
    """Serves a folder: tables to who knows the password, images to who has both keys."""

    def log_message(self, *words):
        pass

    def do_GET(self):
        login = self.headers.get("Authorization", "").removeprefix("Basic ")
        knows = login and base64.b64decode(login).decode() == f"ann:{PASSWORD}"
        keyed = self.headers.get("X-Key") == LITERAL and self.headers.get("X-Other") == f"Bearer {NAMED}"
        if knows if self.path.endswith(".csv") else keyed:
            super().do_GET()
        else:
            self.send_error(401)

    do_HEAD = do_GET


@contextmanager
def serving(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Shop, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def found_in(*places: Path) -> list[str]:
    """Where a secret stands: files and their names."""
    files = [path for place in places for path in [place, *place.rglob("*")] if path.is_file()]
    assert files
    return [f"{path}: {form!r}" for path in files for form in FORMS if form in path.read_bytes() + str(path).encode()]


@pytest.fixture
def shop(tmp_path):
    """(the words that name a catalog behind passwords and keys, its host)"""
    folder = write_shop(tmp_path / "shop", products=24)
    for table in [folder / "products.csv"]:
        table.write_text(table.read_text().replace("images/", "http://HOST/images/"))
    with serving(folder) as host:
        table.write_text(table.read_text().replace("HOST", host))
        yield [
            "--config-dir", str(folder / "conf"), "data=shop", f"data.products=http://ann:{PASSWORD}@{host}/products.csv",
            f"data.pairs=http://ann:{PASSWORD}@{host}/pairs.csv", f"data.download.headers.X-Key={LITERAL}",
            "data.download.headers.X-Other=Bearer $SHOP_KEY", f"data.download.hosts=[{host}]",
            "data.download.private=true", f"cache_dir={tmp_path / 'cache'}",
        ], host  # fmt: skip


@pytest.mark.slow
def test_no_secret_is_left_by_preparing_training_measuring_and_pushing(shop, tmp_path):
    words, host = shop
    run, out, pushed = tmp_path / "run", tmp_path / "measured", tmp_path / "model"
    with served() as (hub, address):
        variables = {
            "SHOP_KEY": NAMED, "HF_TOKEN": TOKEN, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(gcl.__file__).parent.parent),
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}

        def call(*arguments, online=False):
            done = subprocess.run(
                [sys.executable, "-m", "gcl", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=900,
                env=kept | variables | ({} if online else {"HF_HUB_OFFLINE": "1"}),
            )  # fmt: skip
            said = (done.stdout + done.stderr).encode()
            assert not any(form in said for form in FORMS), said.decode()
            return done

        logger = ["logger=wandb"] if shutil.which("wandb") else []
        training = ["model=tiny", "trainer=cpu", "train.batch_size=8", "train.max_steps=2", "train.workers=0"]
        for arguments in (
            ["prepare", *words],
            ["train", *words, *training, *logger, f"run_dir={run}"],
            ["evaluate", *words, f"run={run}", f"out={out}"],
            ["export", f"run={run}", f"out={pushed}", "formats=[open_clip]", "license=mit", "latency=0.2"],
        ):
            done = call(*arguments)
            assert done.returncode == 0, done.stderr
        assert "HTTP 401" not in "".join(path.read_text() for path in (tmp_path / "cache").rglob("bad_images.csv"))
        done = call("push", f"out={pushed}", "push=shop/model", online=True)
        assert done.returncode == 0 and hub.tokens - {""} == {TOKEN}, done.stderr
        for arguments in (["prepare", *[word.replace(PASSWORD, PASSWORD + "x") for word in words]],
                          ["evaluate", f"run={run}", f"out={tmp_path / 'again'}"]):  # fmt: skip
            assert call(*arguments).returncode == 2
    assert found_in(run, tmp_path / "cache", out, pushed, *tmp_path.glob("outputs")) == []
    assert len((run / "config.yaml").read_text().split("***@" + host)) == 3


def test_a_run_s_config_keeps_references_and_says_what_it_has_left_out(shop, tmp_path, monkeypatch, capfd):
    words, host = shop
    monkeypatch.setenv("SHOP_KEY", NAMED)
    monkeypatch.setattr("sys.argv", ["gcl", "prepare", *words])
    main(["prepare", *words])
    from gcl.config.compose import Overrides, flatten, save_config
    from gcl.files.atomic import write_json
    from gcl.run.environment import describe_environment

    settings = words[2:]
    config = Overrides(settings, words[1]).config()
    assert config.data.download.headers == {"X-Key": LITERAL, "X-Other": "Bearer $SHOP_KEY"}
    save_config(config, tmp_path / "run" / "config.yaml")
    write_json(tmp_path / "run" / "flat.json", flatten(config))
    write_json(tmp_path / "run" / "environment.json", describe_environment())
    assert found_in(tmp_path / "run", tmp_path / "cache") == []
    written = (tmp_path / "run" / "config.yaml").read_text()
    assert "Bearer $SHOP_KEY" in written and f"http://***@{host}/products.csv" in written
    again = load_config(tmp_path / "run" / "config.yaml").data
    said = capfd.readouterr()
    assert not any(form in (said.out + said.err).encode() for form in FORMS)
    with pytest.raises(ValueError, match=r"data.products: .*\*\*\* where a password or key was.*data=…"):
        from gcl.data.prepare.prepare import prepare

        prepare(again, tmp_path / "cache")
