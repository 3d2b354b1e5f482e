"""Whether a folder holds exactly the files of a release.

usage: check_release.py DIST TAG      TAG: v and the version
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SDIST = "source distribution"
KINDS = {
    SDIST: r"\.tar\.gz",
    "Linux x86_64": r"-cp310-abi3-manylinux_2_28_x86_64\.whl",
    "Linux aarch64": r"-cp310-abi3-manylinux_2_28_aarch64\.whl",
    "Alpine x86_64": r"-cp310-abi3-musllinux_1_2_x86_64\.whl",
    "Alpine aarch64": r"-cp310-abi3-musllinux_1_2_aarch64\.whl",
    "macOS arm64": r"-cp310-abi3-macosx_\d+_\d+_arm64\.whl",
    "macOS x86_64": r"-cp310-abi3-macosx_\d+_\d+_x86_64\.whl",
    "Windows x86_64": r"-cp310-abi3-win_amd64\.whl",
}


def faults(names: Iterable[str], tag: str, changes: str) -> list[str]:
    """What is missing, twice or too much among ``names`` for ``tag``, and whether ``changes`` says what is new."""
    left, found = sorted(names), []
    for kind, ending in KINDS.items():
        fitting = [name for name in left if re.fullmatch(f"chatterbox_turbo_rs-{re.escape(tag[1:])}{ending}", name)]
        if len(fitting) != 1:
            found.append(f"{kind}: expected one file of version {tag[1:]}, found {len(fitting)}")
        left = [name for name in left if name not in fitting]
    found += [f"{name}: not expected in release {tag}" for name in left]
    if not re.search(rf"^## {re.escape(tag[1:])}(?![\d.]| \(unreleased)", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md: expected a section '## {tag[1:]}' that is not said to be unreleased")
    return found


def main() -> int:
    directory, tag = Path(sys.argv[1]), sys.argv[2]
    found = faults((path.name for path in directory.iterdir()), tag, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    print(*found or [f"{tag}: {len(KINDS)} files, as expected"], sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
