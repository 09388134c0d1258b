"""How a library of many concepts answers, and what kill -9 leaves of it.

    python benchmarks/library.py --concepts 10000 100000 --kills 200 --out benchmarks/results/library.json

- by number of concepts: seconds of opening, of the first page and the first search by picture, and of warm
  searches by words, by the same material and by a picture (`benchmarks/library_search.py`, in a process of
  its own, with its peak memory). The concepts have random nouns and properties, a thumbnail, and random
  embeddings of 768 numbers. Some are added as people do, which adding_seconds_per_concept is of, the others
  straight into the tables, because searching reads no files.
- killed: two processes add concept sets, one of them also removes some; both are killed at a random moment,
  again and again. lost: concepts that `add` had returned and that are not there, or not as they were; half:
  entries without a readable set or thumbnail; problems: what `check` then finds.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from library_search import FINGERPRINT, WIDTH
from results import write_results

from ice_core.concepts import (
    Candidate,
    Concept,
    LearnedConcept,
    LearnedConcepts,
    Reading,
    readings_to_plain,
)
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts
from ice_core.files.images import jpeg_bytes
from ice_core.library.entries import Query
from ice_core.library.intake import THUMBNAIL, Row
from ice_core.library.keeping import insert_concepts, insert_set, insert_vectors
from ice_core.library.schema import connect
from ice_core.library.store import Library
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.model.backbone import Token

PER_SET = 8
REAL = 20
"""Sets that are added with their files."""
SIDE = 32
COLORS = ("red", "green", "blue", "brown", "white", "black", "yellow", "purple")
MATERIALS = ("metal", "wood", "glass", "rubber", "ceramic", "cotton", "leather", "stone", "paper", "plastic")
FAMILY = "stable-diffusion-v1"
ROW = 64
"""Numbers of a token's row."""


def random_set(number: int, rng: random.Random, nouns: Sequence[str], concepts: int) -> SavedConcepts:
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


def add_sets(library: Library, rng: random.Random, names: Sequence[str]) -> float:
    """Add `REAL` sets as people do -> seconds per concept."""
    began = time.perf_counter()
    for number in range(REAL):
        library.add(random_set(number, rng, names, PER_SET), "random")
    return (time.perf_counter() - began) / (REAL * PER_SET)


def fill(folder: Path, concepts: int, rng: random.Random, names: Sequence[str]) -> None:
    """More concepts straight into the tables, without files: searching reads none."""
    vectors = np.random.default_rng(rng.randrange(2**32))
    thumbnail = jpeg_bytes(torch.rand(3, THUMBNAIL, THUMBNAIL), THUMBNAIL)
    empty = random_set(0, rng, names, 1)
    connection = connect(folder)
    connection.execute("BEGIN IMMEDIATE")
    for number in range(concepts // PER_SET):
        saved = replace(empty, title=f"picture {number}")
        one = insert_set(connection, f"{rng.getrandbits(256):064x}", saved, "random", None)
        rows = [_row(n, rng, names, thumbnail) for n in range(PER_SET)]
        insert_concepts(connection, one, saved, rows, ())
        embedded = vectors.standard_normal((PER_SET, WIDTH)).astype(np.float32)
        embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
        keys = [row.key for row in rows]
        insert_vectors(connection, one, FINGERPRINT, "random", dict(zip(keys, embedded, strict=True)))
    connection.execute("COMMIT")
    connection.close()


def _row(number: int, rng: random.Random, names: Sequence[str], thumbnail: bytes) -> Row:
    label = rng.choice(names)
    properties = {
        axis: (rng.choice(values), 0.5 + rng.random() / 2)
        for axis, values in (("color", COLORS), ("material", MATERIALS))
    }
    readings = {
        axis: Reading(axis, (Candidate(value, weight),), "clip")
        for axis, (value, weight) in properties.items()
    }
    plain = json.dumps(readings_to_plain({"": readings})[""])
    return Row(f"{'-'.join(label.split())}-{number}", label, 1.0, 0.1, plain, properties, thumbnail)


def searches(counts: Sequence[int], queries: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures by number of concepts; one library grows from one number to the next."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "library"
        rng, names = random.Random(0), nouns()
        with Library(folder) as library:
            adding = add_sets(library, rng, names)
        filled = REAL * PER_SET
        for count in sorted(counts):
            fill(folder, count - filled, rng, names)
            script = Path(__file__).with_name("library_search.py")
            command = [sys.executable, str(script), str(folder), "--queries", str(queries)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            size = (folder / "library.sqlite").stat().st_size
            figures = json.loads(done.stdout) | {"database_mib": round(size / 2**20, 1)}
            yield str(count), figures | {"adding_seconds_per_concept": adding}
            filled = count


def _write_until_killed(folder: Path, seed: int, ledger: Path, removing: bool) -> None:
    """Add sets, and tell of each by a line once `add` has returned; now and then remove one again."""
    rng = random.Random(seed)
    with ledger.open("ab", buffering=0) as told, Library(folder) as library:
        for number in range(1000):
            # Whole numbers that float32 has.
            value = 1000 * seed + number
            ids = library.add(random_set(value, rng, ("ball", "cube"), 2), "random")
            told.write(f"+{ids[0]} {value}\n".encode())
            if removing and number % 5 == 4:
                told.write(f"-{ids[0]} 0\n".encode())
                library.remove(ids[0])


def _killed_once(folder: Path, round_: int, rng: random.Random, ledger: Path) -> None:
    """Two writers, both killed at a random moment; what they told goes into the ledger.

    They are forked from a process that has computed nothing: a copy of this one may wait forever for the
    threads that its sums were shared by.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([IceError.__module__, Library.__module__, "library"])
    began = ledger.stat().st_size
    children = [
        context.Process(
            target=_write_until_killed, args=(folder, 2 * round_ + writer, ledger, writer == 1), daemon=True
        )
        for writer in range(2)
    ]
    for child in children:
        child.start()
    # Most often both are in the middle of their work, sometimes they only open the library.
    if rng.random() < 0.8:
        _wait_for_growth(ledger, began)
    time.sleep(rng.uniform(0.0, 0.3))
    for child in children:
        child.kill()
        child.join()
        if child.exitcode != -signal.SIGKILL:
            raise IceError(f"a writer ended with {child.exitcode} before it was killed; see above")


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
        ledger.touch()
        for round_ in range(number):
            _killed_once(folder, round_, rng, ledger)
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
            "files_left_by_crashes": len(checked.removed),
            "concepts": len(entries),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--concepts", type=int, nargs="*", default=[10_000, 100_000], help=f"each above {REAL * PER_SET}"
    )
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
