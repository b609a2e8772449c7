"""Where numbers come from: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import constrained_nn

PACKAGES = ("torch", "numpy", "scipy", "cvxpy")


def commit() -> str:
    """Commit of the source, with `+changes` where the source differs from it; `unknown` outside a checkout."""
    root = Path(constrained_nn.__file__).resolve().parents[1]
    head = _git(root, "rev-parse", "HEAD")
    if head is None or _git(root, "ls-files", "--error-unmatch", "constrained_nn/__init__.py") is None:
        return "unknown"
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "constrained_nn", "control_envs")
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of this package, Python and the numerical libraries."""
    found = {"constrained-nn": constrained_nn.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, Any]:
    """Processor, cores and system; nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
