"""What the README and docs/ tell people to type is understood, their YAML is a catalog, their links lead somewhere."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from PIL import Image

from gcl.cli import main, parse_options
from gcl.commands.registry import COMMANDS
from gcl.config.compose import Overrides, options_from
from gcl.exports.engines.registry import ENGINES
from helpers.pages import ELSEWHERE, blocks, commands_of, text_of
from helpers.trained_shop import write_shop

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
GENERATED = {"commands.md", "configuration.md"}  # by .ci/docs
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in GENERATED),
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

COMMAND_LINES = [(page, command) for page in PAGES for command in dict.fromkeys(commands_of(page))]


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """A folder with every YAML that a page gives a file name."""
    folder = tmp_path_factory.mktemp("site") / "conf"
    (folder / "data").mkdir(parents=True)
    for page in reversed(PAGES):  # the README's come last and win
        for block in blocks(page, "yaml"):
            (folder / "data" / f"{file_of(block)}.yaml").write_text(block)
    (folder / "data" / "shoes.yaml").write_text(blocks(ROOT / "README.md", "yaml")[0])  # a part of the documented mix
    return str(folder)


def file_of(block: str) -> str:
    named = re.match(r"# \w+/data/(\w+)\.yaml\n", block)
    assert named, f"a YAML block begins with its file's name, for example # conf/data/my_catalog.yaml:\n{block}"
    return named[1]


def test_pages_say_something_to_type():
    assert len(COMMAND_LINES) > 80 and {page.name for page, _ in COMMAND_LINES} >= {"README.md", "catalogs.md"}


def test_the_readme_begins_with_installing_the_demo_and_the_tests():
    lines = text_of(PAGES[0]).splitlines()
    commands = [line.partition("  #")[0].strip() for line in lines if line.startswith("    ")]
    assert commands[1:3] == ["pip install -e . && python train.py", 'pip install -e ".[dev]" && pytest']
    assert len(lines) <= 160


@pytest.mark.parametrize(("page", "command"), COMMAND_LINES, ids=lambda value: getattr(value, "name", value))
def test_every_command_is_understood(page, command, conf, capsys):
    program, *arguments = shlex.split(command)
    if program == "torchrun" and "gcl" in arguments:
        program, arguments = "gcl", arguments[arguments.index("gcl") + 1 :]
    if program in ("torchrun", "srun"):
        script = next(place for place, argument in enumerate(arguments) if argument.endswith(".py"))
        program, arguments = "python", arguments[script:]
    if program == "python" and arguments[0] in ("train.py", "evaluate.py"):
        program, arguments = "gcl", [arguments[0].removesuffix(".py"), *arguments[1:]]
    if program == "gcl" and len(arguments) == 1 and arguments[0] in COMMANDS:
        return  # named in a sentence
    if program == "gcl":
        check_gcl([argument.replace("/path/to/folder", conf) for argument in arguments], conf)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), f"{page.name}: no module {arguments[1]}"
    elif program == "python":
        script = ROOT / arguments[0]
        if "/deploy/" in arguments[0]:
            assert arguments[0].split("/")[-2] in ENGINES  # of a deployment: tests/export runs it
            return
        flags = {argument for argument in arguments[1:] if argument.startswith("--")}
        assert all(f'"{flag}"' in script.read_text() for flag in flags)
    elif program == "pip":
        extras = ",".join(re.findall(r"\[([\w,]+)\]", command))
        assert arguments[0] == "install" and set(filter(None, extras.split(","))) <= set(EXTRAS)
        assert not re.search(r"\bgcl\[", command), "gcl is another project on the package index"
    elif program.startswith(".ci/"):
        assert (ROOT / program).is_file()
    elif program not in ELSEWHERE:
        assert importlib.util.find_spec(program.replace("-", "_")), f"{page.name}: {program} is not in the extra dev"


def check_gcl(arguments: list[str], conf: str) -> None:
    """The command line is parsed as `gcl` parses it, and a run's settings are composed and checked."""
    if arguments[0] in ("help", "--help", "--version", "completion") or "--help" in arguments:
        main(arguments)
        return
    command, rest = COMMANDS[arguments[0]], arguments[1:]
    if not command.composed:
        parse_options(command, rest)
        return
    options = command.load_options()
    if "--config-dir" in rest:
        del rest[rest.index("--config-dir") : rest.index("--config-dir") + 2]
    if "--multirun" in rest:  # one of the combinations; Hydra's own groups are files of conf/hydra
        for group in [argument for argument in rest if argument.startswith("hydra/")]:
            assert (ROOT / "conf" / f"{group.replace('=', '/')}.yaml").is_file()
        rest = [re.sub(r",.*", "", argument) for argument in rest if not argument.startswith(("--", "hydra/"))]
    rest = [argument for argument in rest if argument not in ("--cfg", "job")]
    own = {field.name for field in fields(options)}
    mine = [argument for argument in rest if argument.partition("=")[0] in own]
    options_from(options, mine, example=command.example)
    Overrides([argument for argument in rest if argument not in mine], conf).config()


def test_every_documented_catalog_is_one(conf):
    for file in sorted(Path(conf).glob("data/*.yaml")):
        run = Overrides([f"data={file.stem}"], conf).config()
        assert run.data.name in (file.stem, "my_catalog") and (run.data.document or run.data.mix)
    run = Overrides(["data=my_catalog", "model=ecommerce-B"], conf).config()
    assert run.data.document["image"].weight == 0.9 and run.model.label == "ecommerce-B"


@pytest.mark.parametrize("name", ["products_only", "my_catalog", "judged"])
def test_the_readme_s_catalogs_prepare_and_pass_the_doctor(name, conf, tmp_path, monkeypatch, capsys):
    """Real tables with the columns that the README's comments name."""
    folder = Path(conf).parent / "catalog"  # where the YAMLs say that it is
    (folder / "images").mkdir(parents=True, exist_ok=True)
    colours, things = ("red", "blue", "green", "black", "white"), ("shoe", "shirt", "mug", "lamp")
    titles = [f"{colours[n % 5]} {things[n % 4]} number {n}" for n in range(40)]
    for number in range(40):
        Image.new("RGB", (24, 24), (6 * number, 90, 255 - 6 * number)).save(folder / "images" / f"{number}.jpg")
    products = [f"p{n},{title},images/{n}.jpg" for n, title in enumerate(titles)]
    pairs = [f"{' '.join(title.split()[:2])},p{n},{40 + n}" for n, title in enumerate(titles)]
    tables = {
        "products": ["product_id,title,image", *products],
        "pairs": ["query,product_id,score", *pairs],
        "queries": ["query_id,query", *(f"q{n},{colour} things" for n, colour in enumerate(colours))],
        "qrels": ["query_id,product_id,score", *(f"q{n % 5},p{n},1" for n in range(40))],
    }
    for table, lines in tables.items():
        (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    try:
        main(["doctor", "--config-dir", conf, f"data={name}", "model=tiny", "trainer=cpu", "train.batch_size=8"])
    except SystemExit as end:
        assert end.code in (0, None), capsys.readouterr()


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    shop = write_shop(tmp_path / "shop")
    main(["prepare", "--config-dir", str(shop / "conf"), "data=shop", f"cache_dir={tmp_path / 'prepared'}"])
    prepared = next(path for path in (tmp_path / "prepared").iterdir() if (path / "index.json").is_file())
    monkeypatch.chdir(tmp_path)
    for page in (ROOT / "README.md", ROOT / "docs" / "python.md"):
        for block in blocks(page, "python"):
            exec(re.sub(r'"prepared/[\w-]+"', repr(str(prepared)), block), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.is_file() or there.name in GENERATED, f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(there), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: {target}"


def test_every_page_is_in_the_site_s_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed, docs = re.findall(r"[\w/-]+\.md", json.dumps(site["nav"])), ROOT / "docs"
    there = {page.relative_to(docs).as_posix() for page in PAGES if docs in page.parents}
    assert sorted(listed) == sorted(there | GENERATED)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("zensical", reason="the documentation needs the extra: pip install 'gcl-trainer[docs]'")
    done = subprocess.run([sys.executable, ".ci/docs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    settings = (ROOT / "docs" / "configuration.md").read_text()
    assert "`train.micro_batch`" in settings and "`data.tasks.<name>.qrels`" in settings


def test_a_package_index_shows_the_readme_with_absolute_links():
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    text = text_of(ROOT / "README.md")
    for substitution in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(substitution["pattern"], substitution["replacement"], text)
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)\s]+)\)", text))
    assert "main/docs/report.png)" in text


YAMLS = [
    *(ROOT / name for name in ("mkdocs.yml", ".pre-commit-config.yaml")),
    *(file for pattern in (".github/**/*.yml", "conf/**/*.yaml") for file in sorted(ROOT.glob(pattern))),
]


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_yaml_is_parsed(file):
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")) or {}, dict)


def test_the_architecture_s_walks_lead_through_code_that_exists():
    walks = text_of(ROOT / "docs" / "architecture.md").split("## One ")[1:]
    assert len(walks) == 2
    for walk in walks:
        assert re.findall(r"^(\d+)\. ", walk, flags=re.MULTILINE) == [str(n) for n in range(1, 11)], "ten steps"
        places = re.findall(r"`(gcl/[\w/]+\.py)(?::(\w+))?`", walk)
        assert len(places) >= 10
        for file, name in places:
            assert (ROOT / file).is_file(), file
            assert not name or re.search(rf"^(def|class) {name}\b", (ROOT / file).read_text(), flags=re.MULTILINE), name


def test_contributing_names_files_that_exist():
    rows = re.findall(r"^\|.*\|$", text_of(ROOT / "CONTRIBUTING.md"), flags=re.MULTILINE)
    places = re.findall(r"`((?:gcl|conf|docs)/[\w/.-]*)`", "\n".join(rows))
    assert len(places) >= 12 and [place for place in places if not (ROOT / place).exists()] == []
