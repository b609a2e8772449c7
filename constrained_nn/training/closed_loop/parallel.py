"""Several runs at once, in processes of one thread each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

from constrained_nn.settings import MOST_WORKERS, require_integer
from constrained_nn.training.closed_loop.config import TrainConfig


def train_many(
    configs: Mapping[str, TrainConfig],
    directory: Path,
    *,
    processes: int = 2,
    resume: bool = False,
    command: str = "",
    progress: Callable[[str, int, dict[str, float]], None] | None = None,
) -> None:
    """Train every named run into `directory / name`, `processes` at a time.

    Two processes of one thread: on two cores that is many times faster than two threads for small batches.

    Args:
        configs: Name -> settings, started in this order.
        directory: Parent folder of the runs.
        processes: How many run at once.
        resume: Keep finished runs and go on with interrupted ones.
        command: The command line, for the record.
        progress: Called as `progress(name, step, record)`.

    Raises:
        Exception: The first error of a run; runs that are under way finish first, so no work is lost.
    """
    require_integer("train_many", "processes", processes, least=1, most=MOST_WORKERS)
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(processes, mp_context=context) as pool:
        queue = manager.Queue()
        pending = {
            pool.submit(_one, name, config.to_json(), directory / name, resume, command, queue)
            for name, config in configs.items()
        }
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(queue, progress)
            for future in done:
                error = future.exception()
                if error is not None:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise error


def _drain(queue: Any, progress: Callable[[str, int, dict[str, float]], None] | None) -> None:
    while True:
        try:
            name, step, record = queue.get_nowait()
        except Empty:
            return
        if progress is not None:
            progress(name, step, record)


def _one(name: str, config: dict[str, Any], directory: Path, resume: bool, command: str, queue: Any) -> None:
    import torch

    torch.set_num_threads(1)
    from constrained_nn.training.closed_loop.loop import train
    from constrained_nn.training.closed_loop.runs import RESULT

    if resume and (directory / RESULT).exists():
        return

    def report(step: int, record: dict[str, float]) -> None:
        if record or step % 10 == 0:
            queue.put((name, step, record))

    train(TrainConfig.from_json(config), directory, resume=resume, progress=report, command=command)
