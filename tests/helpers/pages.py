"""What pages tell people to type."""

import re
from pathlib import Path

PROGRAMS = ("gcl", "python", "torchrun", "srun", "pip", "pytest", "ruff", "mypy", "pre-commit")
ELSEWHERE = ("source", "git", "img2dataset")  # programs that are not ours


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), flags=re.DOTALL)


def commands_of(page: Path) -> list[str]:
    """The commands of a page: lines of indented blocks, and code in sentences that begins with a program of ours."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    indented = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    lines = indented.replace("\\\n", " ").splitlines()
    lines += [code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(("gcl ", "python ", "pip ", ".ci/"))]
    typed = [command.strip() for line in lines for command in re.split(r"&&|;", re.sub(r"\s+#.*", "", line))]
    ours = re.compile(rf"({'|'.join(map(re.escape, (*PROGRAMS, *ELSEWHERE)))})(\s|$)|\.ci/")
    return [command for command in typed if ours.match(command) and "…" not in command]
