"""How a library of many concepts answers, and what kill -9 leaves of it.

    python benchmarks/library.py --concepts 10000 100000 --kills 200 --out benchmarks/results/library.json

- by number of concepts: seconds of opening, of the first page and the first search by picture, and of warm
  searches by words, by the same material and by a picture (`benchmarks/library_search.py`, in a process of
  its own, with its peak memory). The concepts have random nouns and properties and random embeddings of 768
  numbers; their tokens are short, because searching does not read them.
- killed: two processes add concept sets, one of them also removes some; both are killed at a random moment,
  again and again. lost: concepts that `add` had returned and that are not there, or not as they were; half:
  entries without a readable set or thumbnail; problems: what `check` then finds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from library_search import FINGERPRINT, WIDTH
from results import write_results
from torch import Tensor

from ice_core.concepts import Candidate, Concept, LearnedConcept, LearnedConcepts, Reading
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts
from ice_core.files.images import jpeg_bytes
from ice_core.library.entries import Query
from ice_core.library.store import Library
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.model.backbone import Token

PER_SET = 8
SIDE = 32
COLORS = ("red", "green", "blue", "brown", "white", "black", "yellow", "purple")
MATERIALS = ("metal", "wood", "glass", "rubber", "ceramic", "cotton", "leather", "stone", "paper", "plastic")
FAMILY = "stable-diffusion-v1"
ROW = 64
"""Numbers of a token's row."""


class RandomTowers:
    """Embeddings that depend on nothing but how many there were before."""

    name, fingerprint, scale = "random", FINGERPRINT, 1.0

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def encode_images(self, images: Tensor) -> Tensor:
        drawn = torch.randn(len(images), WIDTH, generator=self.generator)
        return torch.nn.functional.normalize(drawn, dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return self.encode_images(torch.zeros(len(texts)))


def random_set(
    number: int, rng: random.Random, nouns: Sequence[str], concepts: int = PER_SET
) -> SavedConcepts:
    """A set of objects in a row, each with its color and material."""
    masks = torch.zeros(concepts, SIDE, SIDE, dtype=torch.bool)
    for n in range(concepts):
        start = n * SIDE // concepts
        masks[n, :, start : start + SIDE // concepts] = True
    learned = []
    for n in range(concepts):
        label = rng.choice(nouns)
        key = f"{'-'.join(label.split())}-{n}"
        readings = {
            axis: Reading(axis, (Candidate(rng.choice(values), 0.5 + rng.random() / 2),), "clip")
            for axis, values in (("color", COLORS), ("material", MATERIALS))
        }
        row = {"clip_l": torch.full((1, ROW), float(number))}
        learned.append(LearnedConcept(key, label, None, Token(f"{key}.object", row), {}, readings))
    shade = torch.full((3, SIDE, SIDE), rng.random())
    return SavedConcepts(
        learned=LearnedConcepts(
            tuple(learned), ("color", "material"), "random", "0" * 64, "stable-diffusion-v1", 0, 0
        ),
        found=tuple(Concept(c.key, c.label, mask, 1.0) for c, mask in zip(learned, masks, strict=True)),
        title=f"picture {number}",
        date="2026-01-01T00:00:00+00:00",
        picture=jpeg_bytes(shade),
    )


def nouns() -> tuple[str, ...]:
    words = Vocabulary.built_in()
    return tuple(word for word, is_name in zip(words.words, words.nameable, strict=True) if is_name)


def fill(library: Library, concepts: int, start: int = 0) -> None:
    """Add random concepts from number `start` to `concepts`, and embed them."""
    rng, names = random.Random(start), nouns()
    for number in range(start // PER_SET, concepts // PER_SET):
        library.add(random_set(number, rng, names, PER_SET), "random")
        if number % 250 == 0:
            print(f"{number * PER_SET} of {concepts} concepts", file=sys.stderr, flush=True)
    for _ in library.embed(RandomTowers()):
        pass


def searches(counts: Sequence[int], queries: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures by number of concepts; one library grows from one number to the next."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "library"
        filled = 0
        for count in sorted(counts):
            began = time.perf_counter()
            with Library(folder) as library:
                fill(library, count, filled)
            seconds = time.perf_counter() - began
            script = Path(__file__).with_name("library_search.py")
            command = [sys.executable, str(script), str(folder), "--queries", str(queries)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            size = (folder / "library.sqlite").stat().st_size
            figures = json.loads(done.stdout) | {"database_mib": round(size / 2**20, 1)}
            yield str(count), figures | {"adding_seconds_per_concept": seconds / (count - filled)}
            filled = count


def _write_until_killed(folder: Path, seed: int, told: int, removing: bool) -> None:
    """Add sets, and tell of each by a line once `add` has returned; now and then remove one again."""
    rng = random.Random(seed)
    with Library(folder) as library:
        for number in range(10**9):
            value = seed * 10**6 + number
            ids = library.add(random_set(value, rng, ("ball", "cube"), 2), "random")
            os.write(told, f"+{ids[0]} {value % 2**24}\n".encode())
            if removing and number % 5 == 4:
                os.write(told, f"-{ids[0]} 0\n".encode())
                library.remove(ids[0])


def _killed_once(folder: Path, round_: int, rng: random.Random, ledger: Path) -> None:
    """Two writers, both killed at a random moment; what they told goes into the ledger."""
    children = []
    with ledger.open("ab") as file:
        began = file.tell()
        for writer in range(2):
            child = os.fork()
            if child == 0:
                try:
                    _write_until_killed(folder, 2 * round_ + writer, file.fileno(), writer == 1)
                finally:
                    os._exit(1)
            children.append(child)
        # Most often both are in the middle of their work, sometimes they only open the library.
        if rng.random() < 0.8:
            _wait_for_growth(ledger, began)
        time.sleep(rng.uniform(0.0, 0.3))
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                raise IceError("a writer ended before it was killed; see its message above")


def _wait_for_growth(file: Path, size: int, seconds: float = 10.0) -> None:
    """Until a file is larger than `size` bytes, or so long at most."""
    end = time.monotonic() + seconds
    while file.stat().st_size <= size and time.monotonic() < end:
        time.sleep(0.002)


def kills(number: int, seed: int) -> dict[str, Any]:
    """Kill two writers so many times, then compare the library with what they had been told."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder, ledger = Path(scratch) / "library", Path(scratch) / "ledger"
        left = 0
        for round_ in range(number):
            _killed_once(folder, round_, rng, ledger)
            left += sum(1 for path in (folder / "sets").iterdir() if len(path.stem) != 64)
        confirmed: dict[int, int] = {}
        for line in ledger.read_text().splitlines():
            one, value = line[1:].split()
            # A concept that was being removed may be there or not; it was no longer wanted.
            confirmed = {k: v for k, v in confirmed.items() if k != int(one)} if line[0] == "-" else confirmed
            if line[0] == "+":
                confirmed[int(one)] = int(value)
        with Library(folder, create=False) as library:
            entries = [hit.entry for hit in library.search(Query(limit=10**9))]
            half, content = 0, {}
            for entry in entries:
                try:
                    (saved,) = library.load(entry.id)
                    token = saved.learned.concepts[0].object.rows["clip_l"]
                    content[entry.id] = int(token[0, 0])
                    half += library.thumbnail(entry.id) is None
                except IceError:
                    half += 1
            checked = library.check()
        lost = sum(content.get(one) != value for one, value in confirmed.items())
        return {
            "kills": number,
            "confirmed": len(confirmed),
            "lost": lost,
            "half": half,
            "problems": list(checked.problems),
            "files_left_by_crashes": left,
            "concepts": len(entries),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concepts", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {}
    if options.kills:
        figures["killed"] = kills(options.kills, options.seed)
    for name, found in searches(options.concepts, options.queries):
        figures[name] = found
        print(f"{name}: {json.dumps(found)}", file=sys.stderr, flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
