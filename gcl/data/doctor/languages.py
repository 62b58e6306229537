"""In which languages the texts of a field are written, told by their script and their commonest words.

A single title says little; thousands of them say enough to choose between a model that reads English and one that reads
many languages, which is all this is for. A text whose words are in no list, or in two lists equally, is undecided.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_WORDS = {
    "English": "the and with for of from this that your you are is to men women mens womens kids set pack black white",
    "German": "und der die das mit für von aus ist ein eine zum zur im den oder auch nicht damen herren schwarz weiß",
    "French": "et le les des du pour avec en une un est dans sur vous votre sans femme homme noir blanc",
    "Spanish": "el los las del para con en una un por su sin mujer hombre niños negro blanco y",
    "Italian": "il gli le della delle per con in una un che da senza donna uomo nero bianco di",
    "Portuguese": "os as da do dos para com em uma um por sem mulher homem preto branco",
    "Dutch": "het een van met voor en in zonder op te dames heren zwart wit",
    "Polish": "dla jest oraz przez bez czarny biały damskie damska męskie męska",
    "Swedish": "och med för ett av till på utan svart vit dam herr",
    "Danish or Norwegian": "og med til et af for på uden uten sort hvid hvit dame herre",
    "Finnish": "ja sekä myös ilman musta valkoinen naisten miesten",
    "Czech": "nebo který velmi také černá černé bílá dámské dámská pánské pánská",
    "Hungarian": "és az egy nem fekete fehér női férfi nélkül",
    "Turkish": "ve ile için bir bu siyah beyaz kadın erkek",
    "Romanian": "și cu pentru din sau fără negru alb femei bărbați",
}
_LETTERS = {
    "German": "ß", "Spanish": "ñ¿", "Portuguese": "ãõ", "Polish": "łżźśńąę", "Danish or Norwegian": "æø",
    "Czech": "řěů", "Hungarian": "őű", "Turkish": "ğı", "Romanian": "țșă",
}  # fmt: skip
_SCRIPTS = {
    "Japanese": "\u3040-\u30ff", "Korean": "\u1100-\u11ff\uac00-\ud7af", "Chinese": "\u4e00-\u9fff",
    "a language in Cyrillic": "\u0400-\u04ff", "Greek": "\u0370-\u03ff", "Hebrew": "\u0590-\u05ff",
    "a language in Arabic script": "\u0600-\u06ff", "Hindi or another in Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
}  # fmt: skip
_OF_WORD: dict[str, list[str]] = {}
for _language, _list in _WORDS.items():
    for _word in _list.split():
        _OF_WORD.setdefault(_word, []).append(_language)
_ANY_SCRIPT = re.compile("|".join(f"([{letters}]+)" for letters in _SCRIPTS.values()))
_WORD = re.compile(r"[^\W\d_]+")


_FEWEST = 3  # different words that a language is told by, over all texts: one alone may be a brand


def language_of(text: str) -> str | None:
    """
    >>> language_of("Schuhe für Herren"), language_of("Зимние ботинки"), language_of("Nike Air 90")
    ('German', 'a language in Cyrillic', None)
    """
    return _told(text)[0]


def languages_of(texts: Iterable[str]) -> dict[str, int]:
    """How many texts are in which language, the commonest first; undecided ones are left out."""
    counts: Counter[str] = Counter()
    told_by: dict[str, set[str]] = {}
    for text in texts:
        language, words = _told(text)
        if language:
            counts[language] += 1
            told_by.setdefault(language, set()).update(words)
    return {
        language: count
        for language, count in counts.most_common()
        if language not in _WORDS or len(told_by[language]) >= _FEWEST
    }


def _told(text: str) -> tuple[str | None, set[str]]:
    """The language of a text, and the words (or letters) that tell it."""
    text = text.casefold()
    if not text.isascii() and (script := _script_of(text)):
        return script, set()
    words = set(_WORD.findall(text))
    told_by: dict[str, set[str]] = {}
    for word in words:
        for language in _OF_WORD.get(word, ()):
            told_by.setdefault(language, set()).add(word)
    if not text.isascii():
        for language, letters in _LETTERS.items():
            if own := {word for word in words if not word.isascii() and not set(letters).isdisjoint(word)}:
                told_by.setdefault(language, set()).update(own)
    hits = sorted(((len(found), language) for language, found in told_by.items()), reverse=True)
    if not hits or (len(hits) > 1 and hits[0][0] == hits[1][0]):
        return None, set()
    return hits[0][1], told_by[hits[0][1]]


def _script_of(text: str) -> str | None:
    letters: Counter[int] = Counter()
    for match in _ANY_SCRIPT.finditer(text):
        letters[match.lastindex or 0] += len(match[0])
    if 2 * letters.total() <= sum(map(str.isalpha, text)):
        return None
    first = 1 if letters[1] else letters.most_common(1)[0][0]  # Japanese has Chinese characters as well
    return list(_SCRIPTS)[first - 1]
