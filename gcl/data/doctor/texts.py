"""What the texts of a field say about how they were exported: words for missing, tags, broken letters, languages."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from gcl.data.doctor.languages import languages_of
from gcl.data.doctor.samples import EXAMPLES, sample_rows
from gcl.data.prepare.copies import fold
from gcl.data.store.records import Stored, shortened
from gcl.data.tables.cells import FILLERS, HTML
from gcl.schema import TextForm

MOST_TEXTS = 20_000  # that are examined unless everything is asked for
# Folded; of these, a person has to look before a cell counts as missing.
LOOKS_MISSING = FILLERS | {
    "unavailable", "not applicable", "not specified", "null", "nil", "nan", "na", "n/a", "n / a", "t.b.d.", "tba",
    "todo", "to do", "to be defined", "no data", "no title", "no name", "no description", "no image", "no brand",
    "untitled", "placeholder", "coming soon", "missing", "default", "test", "xxx", "xx", "x", "??", "???", ".",
    "..", "...", "…", "–", "—", "_", "/", "#ref!", "#value!", "#name?", "kein bild", "keine", "ohne titel",
    "nicht verfügbar", "inconnu", "non disponible", "non renseigné", "sans titre", "aucun", "aucune",
    "desconocido", "no disponible", "sin título", "sin imagen", "sin descripción", "ninguno", "sconosciuto",
    "nessuno", "nessuna", "onbekend", "geen", "niet beschikbaar", "desconhecido", "sem título", "nenhum", "brak",
    "nieznany", "okänd", "ukjent", "ukendt", "нет", "неизвестно", "不明", "なし", "无", "未知",
}  # fmt: skip
_HTML = re.compile(HTML)
_LETTER = re.compile(r"[^\W\d_]")
_DECODED_TWICE = re.compile(
    "[\u00c2\u00c3\u00c5\u00c4][\u0080-\u00bf\u2013-\u203a\u20ac\u0152-\u0178]|\u00e2\u20ac|\ufffd"
)


def examine_texts(store: Stored, name: str, *, everything: bool = False) -> dict[str, Any]:
    """Facts about the texts of one field."""
    field, rows = store.side[name], np.flatnonzero(_present(store, name))
    sampled = sample_rows(rows, None if everything else MOST_TEXTS)
    texts = [text for text in store.column(name, sampled) if isinstance(text, str)]
    empty = Counter(text.strip() for text in texts if len(text) < 20 and fold(text) in LOOKS_MISSING)
    found = {
        "html": [] if field.text is TextForm.html else [text for text in texts if _HTML.search(text)],
        "without_letters": [text for text in texts if not _LETTER.search(text)],
        "decoded_twice": [text for text in texts if not text.isascii() and _DECODED_TWICE.search(text)],
    }
    return {
        "looked_at": len(sampled),
        "languages": languages_of(texts),
        "looks_missing": [[word, count] for word, count in empty.most_common(12)],
        **{kind: {"count": len(matches), "examples": [shortened(text, 80) for text in matches[:EXAMPLES]]}
           for kind, matches in found.items()},
    }  # fmt: skip


def _present(store: Stored, name: str) -> np.ndarray:
    return store.present(np.arange(len(store)))[:, list(store.side).index(name)]
