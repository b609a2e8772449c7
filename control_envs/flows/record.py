"""Long recordings of a flow: made in chunks, kept on disk, resumed where they stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from control_envs.errors import NonFiniteError, ShapeError
from control_envs.flows.base import Array, Flow
from control_envs.flows.steppers import ETDRK4, Stepper


def record(
    flow: Flow,
    *,
    seed: int,
    count: int,
    samples: int,
    interval: float,
    dt: float,
    transient: float = 0.0,
    start: np.ndarray | None = None,
    folder: str | os.PathLike | None = None,
    batch: int = 32,
    chunk: int = 50,
    method: Stepper | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """States `(count, samples, *shape)`, float32, at times `transient, transient + interval, ...`.

    Start state `i` is drawn from the generator of `(seed, i)`, so that it is the same however many are drawn. The flow
    is solved in torch in float64.

    Args:
        flow: The equation.
        seed: Seed of the start states.
        count: Number of trajectories.
        samples: States kept of each.
        interval: Time between two of them [s], a multiple of `dt`.
        dt: Length of a step [s].
        transient: Time before the first of them [s], a multiple of `dt`.
        start: Start states `(count, *shape)` instead of random ones.
        folder: Where recordings are kept, each in a folder of its own, named after what it was asked for. A recording
            that is there is opened as a read-only memory map; one that was interrupted goes on where its last chunk
            ended, with the same result. What is damaged is made again, were it one bit of a state: the digest of every
            chunk is compared. None: nothing is kept.
        batch: Trajectories that are solved together.
        chunk: States of each between two writes.
        method: Time stepping; default `ETDRK4()`.
        device: Device of the solver.
        progress: Called after every chunk with the number of states done and of all states.

    Raises:
        NonFiniteError: A trajectory has become NaN or infinite: `dt` is too long.
        ShapeError: `start` is not `count` states of the flow.
        ValueError: `interval` or `transient` is not a multiple of `dt`, or a number is not positive.
    """
    if start is not None and np.shape(start) != (count, *flow.shape):
        raise ShapeError(
            f"record: expected start states of shape {(count, *flow.shape)} for {count} trajectories, got "
            f"{np.shape(start)}. Give one state for each."
        )
    if not (dt > 0 and transient >= 0 and min(batch, chunk) >= 1 and min(count, samples) >= 0):
        raise ValueError(
            f"record: expected dt > 0, transient >= 0, batch and chunk of 1 or more, got dt {dt}, transient "
            f"{transient}, batch {batch}, chunk {chunk}, count {count}, samples {samples}. See their units."
        )
    start = None if start is None else np.asarray(start)
    method = method or ETDRK4()
    every, before = _multiple("interval", interval, dt), _multiple("transient", transient, dt)
    request = {
        "flow": type(flow).__name__,
        "parameters": asdict(flow),  # pyright: ignore[reportArgumentType]
        "method": repr(method),
        **{"seed": seed, "count": count, "samples": samples, "interval": interval, "dt": dt},
        **{"transient": transient, "batch": batch, "chunk": chunk},
        "start": None if start is None else hashlib.sha256(start.tobytes()).hexdigest(),
    }
    store = _Store(folder, request, (count, samples, *flow.shape))
    total, done = count * samples, 0
    for first in range(0, count, batch):
        rows = slice(first, min(first + batch, count))
        size = rows.stop - rows.start
        kept, spectrum = store.resume(first, rows)
        done += size * kept
        if kept == samples:
            continue
        if spectrum is None:
            drawn = [flow.sample(_generator(seed, i), 1)[0] for i in range(rows.start, rows.stop)]
            spectrum = flow.to_spectrum(
                np.stack(drawn) if start is None else np.asarray(start[rows], dtype=float)
            )
        parts = _chunks(flow, spectrum, kept, samples, chunk, every, before, dt, method, device)
        for states, end in parts:
            _check_finite(flow, states, first, dt)
            store.write(first, rows, kept, states, end)
            kept += states.shape[1]
            done += size * states.shape[1]
            if progress is not None:
                progress(done, total)
    return store.finish()


def _chunks(
    flow: Flow,
    spectrum: np.ndarray,
    kept: int,
    samples: int,
    chunk: int,
    every: int,
    before: int,
    dt: float,
    method: Stepper,
    device: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """States `(size, k, *shape)` of one chunk after another, each with the spectrum at its end."""
    import torch

    with torch.no_grad():
        v: Array = torch.as_tensor(spectrum, device=device)
        advance = flow.stepper(dt, v, method)
        while kept < samples:
            states = []
            for i in range(kept, min(kept + chunk, samples)):
                for _ in range(every if i else before):
                    v = advance(v)
                states.append(flow.to_grid(v).float().cpu().numpy())
            kept += len(states)
            yield np.stack(states, 1), v.cpu().numpy()


class _Store:
    """One recording in memory, or in `folder/Name-digest/`: `request.json`, `states.npy`, `batch-*.npz`."""

    def __init__(self, folder: str | os.PathLike | None, request: dict[str, Any], shape: tuple[int, ...]):
        self.path = None
        self._digests: dict[int, list[str]] = {}  # first row of a batch -> "end:digest" of its chunks
        if folder is None:
            self.states = np.empty(shape, np.float32)
            return
        text = json.dumps(request, sort_keys=True, indent=1)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = Path(folder) / f"{request['flow']}-{digest}"
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "states.npy"
        if not (self.path / "request.json").exists() or not _holds(file, shape):
            for batch in self.path.glob("batch-*.npz"):
                batch.unlink()
            self.states = np.lib.format.open_memmap(file, "w+", np.float32, shape)
            _write(self.path / "request.json", text.encode())
        else:
            self.states = np.lib.format.open_memmap(file, "r+")

    def resume(self, first: int, rows: slice) -> tuple[int, np.ndarray | None]:
        """How many states of the batch that starts at `first` are done, and the spectrum after them."""
        if self.path is None or not (file := self.path / f"batch-{first:05d}.npz").exists():
            return 0, None
        try:
            with np.load(file, allow_pickle=False) as data:
                kept, spectrum = int(data["kept"]), data["spectrum"]
                digests = data["digests"] if "digests" in data.files else None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return 0, None
        whole = 0 < kept <= self.states.shape[1] and bool(np.isfinite(spectrum).all())
        if not whole or (digests is not None and not self._unchanged(rows, kept, digests)):
            return 0, None
        self._digests[first] = [] if digests is None else digests.tolist()
        return kept, spectrum

    def _unchanged(self, rows: slice, kept: int, digests: np.ndarray) -> bool:
        """Whether the states of a batch are those that were written; recordings from before are not asked."""
        begin = 0
        for text in digests.tolist():
            end, _, digest = str(text).partition(":")
            if not end.isdecimal() or _digest(self.states[rows, begin : int(end)]) != digest:
                return False
            begin = int(end)
        return begin == kept

    def write(self, first: int, rows: slice, kept: int, states: np.ndarray, spectrum: np.ndarray) -> None:
        """The states first, then the file that says that they are there."""
        end = kept + states.shape[1]
        self.states[rows, kept:end] = states
        if self.path is not None:
            self.states.flush()  # pyright: ignore[reportAttributeAccessIssue]
            digests = self._digests.setdefault(first, [])
            if kept and not digests:  # the states before this chunk are from before there were digests
                digests.append(f"{kept}:{_digest(self.states[rows, :kept])}")
            digests.append(f"{end}:{_digest(states)}")
            temporary = self.path / f"batch-{first:05d}.part.npz"
            np.savez(temporary, kept=np.array(end), spectrum=spectrum, digests=np.array(digests))
            os.replace(temporary, self.path / f"batch-{first:05d}.npz")

    def finish(self) -> np.ndarray:
        return self.states if self.path is None else np.load(self.path / "states.npy", mmap_mode="r")


def _holds(file: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file holds all states, without opening it for writing, which would lengthen it in silence."""
    try:
        states = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return states.shape == shape and states.dtype == np.float32


def _digest(states: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(states, np.float32).tobytes()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, index], dtype=np.uint64)))


def _multiple(name: str, time: float, dt: float) -> int:
    count = round(time / dt)
    if abs(count * dt - time) > 1e-9 * max(1.0, time) or (count < 1 and name == "interval"):
        raise ValueError(
            f"record: expected {name} to be a multiple of dt, got {name} {time} and dt {dt}. Choose dt as a fraction "
            f"1/n of the {name}."
        )
    return count


def _check_finite(flow: Flow, states: np.ndarray, first: int, dt: float) -> None:
    bad = ~np.isfinite(states).all(axis=tuple(range(1, states.ndim)))
    if bad.any():
        raise NonFiniteError(
            f"record: expected finite states of {type(flow).__name__}, got NaN or infinity in trajectory "
            f"{first + int(bad.argmax())} with dt {dt}. Take a shorter dt, or a start state of smaller size."
        )
