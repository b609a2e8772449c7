"""Packs the checker into one file that needs Python, NumPy and python-flint, and no install of this package.

    python .ci/build_checker.py dist/constrained-nn-check.pyz

Same sources, same bytes: names are sorted, times fixed, and nothing is compressed.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = b"import sys\n\nfrom constrained_nn.verify.__main__ import main\n\nsys.exit(main())\n"


def build(target: Path) -> None:
    """Write the archive."""
    package = ROOT / "constrained_nn"
    sources = [
        package / "__init__.py",
        package / "errors.py",
        *package.glob("verify/**/*.py"),
        ROOT / "LICENSE",
    ]
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sources}
    contents["__main__.py"] = MAIN
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(contents):
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system, entry.external_attr = 3, 0o100644 << 16
                archive.writestr(entry, contents[name])
    target.chmod(0o755)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
    print(f"wrote {sys.argv[1]} ({Path(sys.argv[1]).stat().st_size / 1e3:.0f} kB)")
