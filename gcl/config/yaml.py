"""YAML as people mean it: `no`, `off`, `007` and `12:30` are texts, and only true and false are truth values.

PyYAML follows YAML 1.1, in which they are False, False, 7 and 750; this is the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema), without its octal and hexadecimal numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf

from gcl.config.shape import shaped

SCHEME = "gcl-yaml"  # of a folder in Hydra's search path whose YAMLs are read by this module


class Loader(yaml.SafeLoader):
    """Builds plain values alone, and refuses a key that is given twice."""

    yaml_implicit_resolvers: dict[str, list] = {}  # noqa: RUF012  # of this class, not those of YAML 1.1

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        assert isinstance(node, yaml.MappingNode)
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while constructing a mapping", node.start_mark, f"found duplicate key {key.value}",
                        key.start_mark,
                    )  # fmt: skip
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse(text: str | IO[str]) -> Any:
    """The plain content of a YAML text. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=Loader)


def read(path: str | Path, loader: type[Loader] = Loader) -> Any:
    """The plain content of a YAML file. Raises yaml.YAMLError, OSError or UnicodeDecodeError."""
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader=loader)


class YamlSource(FileConfigSource):
    """A folder of YAMLs in Hydra's search path, as `gcl-yaml:///path`."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        with open(path, encoding="utf-8") as file:
            header = self._get_header_dict(file.read(512))
            file.seek(0)
            content = parse(file)
        place = header.get("package") or ".".join(Path(config_path).parts[:-1])
        content = shaped({} if content is None else content, "" if place == "_global_" else place)
        config = OmegaConf.create(content)
        return ConfigResult(self.provider, f"{SCHEME}://{self.path}", config, header)
