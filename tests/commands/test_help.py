"""Help, completion and dispatch come from the records of commands, and say what the commands take: no more, no less."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gcl.cli import main
from gcl.commands.registry import COMMANDS, list_settings
from gcl.config.folder import GROUPS, choices_of, conf_folder, values_in_yamls
from gcl.config.schema import RunConfig
from gcl.lazy import load

ROOT = Path(__file__).parents[2]


def said(capsys, *arguments):
    main(list(arguments))
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_help_of_a_command_lists_exactly_its_options(command, capsys):
    text = said(capsys, command.name, "--help")
    options = text.partition("\nOptions\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^  ([\w.]+)=", options, flags=re.MULTILINE)
    assert listed == [*command.load_options().__dataclass_fields__, *command.settings]
    assert command.help in text and command.example in text
    groups = text.partition("Config groups (group=choice)\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (\w+)", groups, flags=re.MULTILINE) == list(command.groups)
    for group in command.groups:
        assert set(choices_of(group)) <= set(re.findall(r"[\w-]+", groups))
    if not command.composed:
        assert "--config-dir" not in text and "Config groups" not in text


def test_help_about_an_option_says_whose_it_is(capsys):
    assert said(capsys, "help", "k").startswith("gcl search\n  k=")
    assert said(capsys, "help", "alpha").startswith("gcl export\n  alpha=")


def test_every_setting_is_documented():
    assert [option.key for option in list_settings() if not option.documentation] == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_option_of_a_command_is_documented(command):
    assert [option.key for option in command.list_options() if not option.documentation] == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_record_names_what_exists(command):
    assert callable(command.load_run()) and (command.sweep is None or callable(load(command.sweep)))
    assert set(command.settings) <= set(RunConfig.__dataclass_fields__)
    assert bool(command.groups) == command.composed
    assert command.bare in (None, *command.load_options().__dataclass_fields__)
    own = set(command.load_options().__dataclass_fields__)
    assert not command.composed or not own & set(RunConfig.__dataclass_fields__)


def test_the_groups_are_the_folders_of_conf():
    folders = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "hydra"}


def test_the_overview_lists_every_command_in_one_column(capsys):
    text = said(capsys, "--help")
    starts = set()
    for command in COMMANDS.values():
        line = next(line for line in text.splitlines() if line.startswith(f"  {command.name} "))
        starts.add(line.index(command.help))
    assert len(starts) == 1 and said(capsys) == text == said(capsys, "help")


def test_one_setting_is_told_with_its_values_default_and_yamls(capsys):
    text = said(capsys, "help", "loss.normalizer")
    assert "weight, count" in text and "default   weight" in text
    text = said(capsys, "help", "data.document.title.weight")
    for file, value in values_in_yamls("data.document.title.weight"):
        assert f"{file}: {value}" in text
    assert "conf/data/demo.yaml" in text and "default   1.0" in text
    assert said(capsys, "help", "search") == said(capsys, "search", "--help")


def test_a_group_of_settings_is_listed(capsys):
    text = said(capsys, "help", "train")
    keys = re.findall(r"^  ([\w.]+)=", text, flags=re.MULTILINE)
    assert keys == [f"train.{name}" for name in load("gcl.lit.settings:TrainConfig").__dataclass_fields__]
    assert "gcl train --help" in text  # the command of the same name
    assert set(choices_of("loss")) <= set(re.findall(r"\w+", said(capsys, "help", "loss")))


@pytest.mark.parametrize("key", [option.key for option in list_settings()])
def test_every_setting_can_be_asked_for(key, capsys):
    assert said(capsys, "help", key).startswith(key)


@pytest.mark.parametrize(
    ("topic", "near"),
    [("train.mikro_batch", "train.micro_batch"), ("los.form", "loss.form"), ("data.document.title.wieght", "weight")],
)
def test_a_near_miss_is_answered_with_the_nearest(topic, near, capsys):
    with pytest.raises(SystemExit):
        main(["help", topic])
    assert f"There is no setting {topic!r}" in (err := capsys.readouterr().err) and near in err


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["serach"])
    assert "Did you mean search?" in capsys.readouterr().err


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)


def test_the_version_is_told_and_the_package_runs_as_a_module(capsys):
    import gcl

    assert said(capsys, "--version") == said(capsys, "-V") == f"gcl {gcl.__version__}\n"
    done = python("-m", "gcl", "--version")
    assert done.stdout == f"gcl {gcl.__version__}\n" and not done.stderr
    assert "There is no command 'cli'" in python("-m", "gcl", "cli").stderr
    with pytest.raises(AttributeError):
        gcl.nothing  # noqa: B018


def test_importing_and_the_overview_load_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import gcl\nfrom gcl.cli import main\nmain(['--help'])\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print('outside:', sorted(names - set(sys.stdlib_module_names) - {'gcl'}))"
    )
    done = python("-c", code)
    assert "outside: []" in done.stdout, done.stdout[-300:] + done.stderr


@pytest.fixture
def completed(tmp_path):
    """completed(line) -> what bash offers for the last word of the line, with the real script."""
    gcl = tmp_path / "gcl"
    gcl.write_text(f'#!/bin/sh\nexec {sys.executable} -m gcl "$@"\n')
    gcl.chmod(gcl.stat().st_mode | stat.S_IXUSR)

    def complete(line):
        script = f"PATH={tmp_path}:$PATH; eval \"$(gcl completion bash)\"; complete -p gcl >&2; COMP_LINE='{line}'; "
        script += "COMP_POINT=${#COMP_LINE}; _gcl; printf '%s\\n' \"${COMPREPLY[@]}\""
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
        assert "complete -F _gcl gcl" in done.stderr
        return done.stdout.split()

    return complete


def test_bash_completes_commands_options_settings_and_choices(completed, tmp_path):
    assert completed("gcl sw") == ["sweep-weights"]
    assert completed("gcl search pic") == ["picture="]
    assert completed("gcl train loss.norm") == ["loss.normalizer="]
    assert completed("gcl train loss.normalizer=") == ["weight", "count"]
    assert completed("gcl train model=siglip2-") == [
        f"siglip2-{size}{pixels}" for size in ("B", "L", "SO400M") for pixels in ("", "-384", "-512")
    ]
    assert completed("gcl push model") == []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("name: mine")
    assert completed(f"gcl train --config-dir {tmp_path} data=mi") == ["mine"]
    assert completed(f"gcl search run={tmp_path}/da") == [f"{tmp_path}/data/"]
