"""The built-in word list, as package data: what may name a thing, and what only describes one."""

from __future__ import annotations

WORDS_FILE = "words.txt"
"""After lines of sources with a number sign, `word<TAB>kind<TAB>plain name<TAB>definition` each; the last
two may be absent."""

NAMES, DESCRIBES, FINER, BODY = "n", "p", "f", "b"
"""Kinds of words: names a thing, most usual first; only describes one; is a finer name of a plain one; names
a part of the body."""

LICENCE_FILE = "WORDNET_LICENSE.txt"
