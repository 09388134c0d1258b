"""Where the pictures of a data set lie, and their true masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ice_core.errors import IceError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class SourcePicture:
    """A picture file and the files of its true masks, one per object, white inside; none where unknown."""

    name: str
    picture: Path
    masks: tuple[Path, ...] = ()


def source_pictures(folder: Path) -> tuple[SourcePicture, ...]:
    """The pictures of a data set, in the order of their names.

    D1 as its authors publish it (arXiv 2407.07077) has a folder per picture, `<name>/img.jpg`; masks may
    lie beside it as `<name>/mask*.png`. Else every picture in the folder is one, and the masks of `vase.jpg`
    are `vase.masks/*.png`. Raises IceError for a folder without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise IceError(f"there is no folder {folder}; give one with pictures, or with folders as of D1")
    found = (*_published(folder), *_plain(folder))
    if not found:
        raise IceError(f"no pictures in {folder}; there must be NAME/img.jpg, or PNG, JPEG or WebP files")
    return tuple(sorted(found, key=lambda source: source.name))


def _published(folder: Path) -> Iterator[SourcePicture]:
    for inner in folder.iterdir():
        for ending in ENDINGS:
            if (picture := inner / f"img{ending}").is_file():
                yield SourcePicture(inner.name, picture, tuple(sorted(inner.glob("mask*.png"))))
                break


def _plain(folder: Path) -> Iterator[SourcePicture]:
    for path in folder.iterdir():
        if path.suffix.lower() in ENDINGS and path.is_file():
            masks = sorted((folder / f"{path.stem}.masks").glob("*.png"))
            yield SourcePicture(path.stem, path, tuple(masks))
