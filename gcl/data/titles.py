"""What a task is called: its name in files and settings, its title wherever people read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gcl.data.catalog import Catalog

SITUATIONS = {
    "zero_shot": ("New searches, new products", "neither was in the training data"),
    "novel_query": ("New searches, known products", "the searches were not in the training data"),
    "novel_document": ("Known searches, new products", "the products were not in the training data"),
    "in_domain": ("Known searches, known products", "both were in the training data; shows what was learned by heart"),
}  # what matters most first


def file_name(kind: str) -> str:
    """A task's name, which names files.

    >>> file_name("T-shirts & tops")
    'T-shirts_tops'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", kind).strip("._") or "task"


def task_titles(data: Catalog) -> dict[str, str]:
    """{task: the title that its YAML gives}, those of a mix with the catalog's name before them."""
    titles = {
        f"{catalog}/{name}": title
        for catalog, one in data.catalogs.items()
        if isinstance(one, Catalog)
        for name, title in task_titles(one).items()
    }
    for name, task in data.tasks.items():
        given = task.title if isinstance(task.title, Mapping) else {name: task.title}
        titles |= {file_name(kind): title for kind, title in given.items() if title}
    return titles


def short_name(task: str) -> str:
    """
    >>> short_name("zero_shot.test")
    'zero_shot'
    """
    return task.removesuffix(".test").removesuffix(".dev")


def title_of(task: str, titles: Mapping[str, str] | None = None) -> str:
    """The title of a task, whatever half of it and of whichever of several catalogs. titles: those given, by name.

    >>> title_of("shoes/zero_shot.test"), title_of("category-to-product"), title_of("a", {"a": "Title searches"})
    ('shoes: New searches, new products', 'Category to product', 'Title searches')
    """
    catalog, _, own = short_name(task).rpartition("/")  # of several catalogs each has its tasks
    words = own.replace("_", " ").replace("-", " ").strip() or own
    known = SITUATIONS.get(own, (words[:1].upper() + words[1:], ""))[0]
    given = titles or {}
    title = given.get(short_name(task)) or given.get(own) or known
    return f"{catalog}: {title}" if catalog else title


def title_within(task: str, title: str | None = None) -> str:
    """The title as it is written within a sentence; one that somebody gave is not changed.

    >>> title_within("zero_shot.test"), title_within("t", "Title searches"), title_within("Amazon")
    ('new searches, new products', 'Title searches', 'Amazon')
    """
    made = title_of(task)
    if title not in (None, made) or made == short_name(task) or "/" in task:
        return title or made
    return made[:1].lower() + made[1:]


def described(task: str) -> str:
    """What the title of a situation leaves open; empty for other tasks."""
    return SITUATIONS.get(short_name(task).rpartition("/")[2], ("", ""))[1]
