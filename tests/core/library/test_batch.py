"""Folders of pictures into a library, by workers without a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from batch_workers import open_nothing, open_worker, pictures_in, work

from ice_core.errors import IceError
from ice_core.library.batch import Filed, Worker, jobs_in, run_batch
from ice_core.library.engines import LocalEngine
from ice_core.library.store import Library
from ice_core.library.summary import write_summary

PICTURES = {f"{n}.png": f"picture {n}" for n in range(6)} | {"bad.png": "bad", "odd.png": "odd"}


def run(folder: Path, library: Library, recipe: str = "words") -> list[Filed]:
    return list(run_batch(library, jobs_in(folder, recipe), LocalEngine(), open_worker, ["batch"]))


def test_what_fails_is_told_and_left_out(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", PICTURES)
    pictures_in(folder, {"inner/deep.JPG": "deep", "notes.txt": "no picture"})
    with Library(tmp_path / "library") as library:
        filed = run(folder, library)
        assert [one.job.name for one in filed if not one.error] == [
            *(f"{n}.png" for n in range(6)),
            "inner/deep.JPG",
        ]
        assert {one.job.name: one.error for one in filed if one.error} == {
            "bad.png": "nothing was found",
            "odd.png": "ValueError: odd",
        }
        assert [one.done for one in filed] == list(range(1, 10))
        assert library.count() == 14
        entry = library.entry(filed[0].ids[0])
        assert (entry.title, entry.origin, entry.tags) == ("picture 0", str(folder / "0.png"), ("batch",))


def test_a_second_run_does_only_what_is_missing(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", {"a.png": "1", "b.png": "2"})
    with Library(tmp_path / "library") as library:
        first = run(folder, library)
        pictures_in(folder, {"c.png": "3"})
        (folder / "a.png").rename(folder / "renamed.png")
        second = run(folder, library)
        assert [(one.job.name, one.before) for one in second] == [
            ("b.png", True),
            ("renamed.png", True),
            ("c.png", False),
        ]
        assert second[1].ids == first[0].ids
        assert library.count() == 6
        # Other settings are other work; what is equal is still there once.
        anchored = run(folder, library, "anchored")
        assert [one.before for one in anchored] == [False] * 3
        library.remove(*anchored[0].ids)
        assert [one.before for one in run(folder, library, "anchored")].count(False) == 1


def test_a_stopped_run_keeps_what_is_done(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", PICTURES)
    with Library(tmp_path / "library") as library:
        events = run_batch(library, jobs_in(folder, ""), LocalEngine(), open_worker)
        next(events)
        next(events)
        events.close()
        assert library.count() == 4
        done = []

        def counting() -> Worker:
            def worker(name: str, picture: bytes) -> bytes:
                done.append(name)
                return work(name, picture)

            return worker

        list(run_batch(library, jobs_in(folder, ""), LocalEngine(), counting))
        assert done == ["2.png", "3.png", "4.png", "5.png", "bad.png", "odd.png"]


def test_a_picture_that_is_gone_when_its_turn_comes_is_left_out(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", {"a.png": "1", "b.png": "2"})
    jobs = jobs_in(folder, "")
    (folder / "a.png").unlink()
    with Library(tmp_path / "library") as library:
        first, second = run_batch(library, jobs, LocalEngine(), open_worker)
    assert first.error == "cannot read the picture a.png: No such file or directory"
    assert len(second.ids) == 2


def test_nothing_to_do_is_an_error_and_no_model_too(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "no pictures in"), ("absent", "there is no folder")):
        with pytest.raises(IceError, match=message):
            jobs_in(tmp_path / folder, "")
    folder = pictures_in(tmp_path / "pictures", PICTURES)
    with (
        Library(tmp_path / "library") as library,
        pytest.raises(IceError, match="the model is not there"),
    ):
        list(run_batch(library, jobs_in(folder, ""), LocalEngine(), open_nothing))


def test_the_summary_needs_no_other_file(tmp_path: Path) -> None:
    folder = pictures_in(tmp_path / "pictures", {"<b>.png": "1", "bad.png": "bad"})
    with Library(tmp_path / "library") as library:
        filed = run(folder, library)
        page = write_summary(library, "Pictures & more", filed, tmp_path / "page.html").read_text("utf-8")
    assert "<title>Pictures &amp; more</title>" in page
    assert "<h2>&lt;b&gt;.png" in page
    assert "2 pictures, 2 concepts, 1 left out; 0 were done before" in page
    assert '<p class="failed">nothing was found</p>' in page
    pictures = re.findall(r'src="([^"]*)"', page)
    assert len(pictures) == 2
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in pictures)
    assert "href" not in page
    assert "url(" not in page
