"""Says what of this repository the registry publishes, and how large it is.

    python tools/published.py               # folders by size, and the total, zipped as the registry gets it
    python tools/published.py --list        # every file
    python tools/published.py --copy DIR    # as a folder, for what checks it: `comfy-test lint DIR`

Published is what git tracks and `.comfyignore`, which is written as a `.gitignore`, does not name.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

PACK = Path(__file__).absolute().parents[1]


def published_files(root: Path = PACK) -> list[Path]:
    """Tracked files that are published, relative to `root`, in order."""
    tracked = _git(root, "ls-files", "-z")
    # Git reads the patterns itself: the same rules as for a .gitignore, and none of our own.
    ignored = _git(root, "ls-files", "-z", "--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(Path(name) for name in set(tracked) - set(ignored))


def copy_to(folder: Path, files: Sequence[Path], root: Path = PACK) -> None:
    """The files as a folder of their own. Raises FileExistsError where there is one already."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, folder / file)


def zipped_size(files: Sequence[Path], root: Path = PACK) -> int:
    """Bytes of the files as a zip archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in files:
            packed.write(root / file, file)
    return len(archive.getvalue())


def _git(root: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True)
    return [name for name in done.stdout.decode().split("\0") if name]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name every file")
    parser.add_argument("--copy", type=Path, metavar="DIR", help="put the files into a new folder")
    options = parser.parse_args(arguments)
    files = published_files()
    if options.copy:
        if options.copy.exists():
            parser.error(f"{options.copy} is there already: name a folder that is not")
        copy_to(options.copy, files)
    if options.list:
        print("\n".join(file.as_posix() for file in files))
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.parts[0] if len(file.parts) > 1 else "."] += (PACK / file).stat().st_size
    for folder, size in sizes.most_common():
        print(f"{folder:<12} {size / 1e6:6.2f} MB")
    print(f"{len(files)} files, {zipped_size(files) / 1e6:.1f} MB zipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
