"""The built-in word list, as package data: who may name a thing and who only describes one."""

from __future__ import annotations

WORDS_FILE = "words.txt"
"""Lines of `word<TAB>n` (names a thing) or `word<TAB>p` (a property), most frequent first."""

LICENCE_FILE = "WORDNET_LICENSE.txt"
