"""Training of a function of the parameters, of which those with the best validation score are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from constrained_nn.settings import require_integer, require_real
from constrained_nn.training.checkpoint import History
from constrained_nn.training.engine import Measurement, Training, run_training
from constrained_nn.training.schedule import LearningRate, Schedule

Evaluate = Callable[[int], tuple[Tensor, Tensor, int]]


class Descent(Training):
    """A function of the step that gives loss, score and diverged rollouts at the present parameters."""

    name: ClassVar[str] = "descend"
    scored: ClassVar[bool] = True

    def __init__(self, module: nn.Module, evaluate: Evaluate) -> None:
        self.module, self.evaluate = module, evaluate

    def batches(self, step: int) -> Iterator[Measurement]:
        loss, score, diverged = self.evaluate(step - 1)
        yield Measurement(loss, score=score, record={"diverged": diverged})

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def weights(self) -> dict[str, Tensor]:  # buffers hold data here, and constants
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


def descend(
    module: nn.Module,
    evaluate: Evaluate,
    *,
    steps: int,
    learning_rate: float,
    final_learning_rate: float | None = None,
    settings: Mapping[str, Any],
    checkpoint: Path | None = None,
    every: int = 25,
    progress: Callable[[int, float, float], None] | None = None,
) -> History:
    """Minimize; at the end the module has the parameters with the best score.

    Args:
        module: Its parameters are changed.
        evaluate: `step -> (loss, score, diverged)` at the present parameters, steps from 0. A score `(M,)` is kept for
            each of `M` models, along the first dimension of all parameters.
        steps: Steps of Adam; the parameters after the last one are scored too.
        learning_rate: Step size of Adam.
        final_learning_rate: Where it goes along a half cosine; default: it stays.
        settings: What determines the numbers; a checkpoint with other settings is refused.
        checkpoint: File to save to, and to go on from if it exists.
        every: Steps between checkpoints.
        progress: Called as `progress(step, loss, score)`, steps from 0.

    Raises:
        ConvergenceError: The loss, a gradient or a weight is not finite; the last checkpoint is kept.
        FileFormatError: The checkpoint is damaged or belongs to other settings.
        ValueError: A setting is out of range; `TypeError` for one that is no number.
    """
    require_integer("descend", "steps", steps)
    require_integer("descend", "every", every, least=1)
    require_real("descend", "learning_rate", learning_rate, above=0.0)
    require_real("descend", "final_learning_rate", final_learning_rate, least=0.0, optional=True)
    settings = {**settings, "steps": steps, "learning_rate": learning_rate}
    settings |= {} if final_learning_rate is None else {"final_learning_rate": final_learning_rate}

    def report(step: int, record: dict[str, float]) -> None:
        if progress is not None:
            progress(step - 1, record["loss"], record["score"])

    rate = LearningRate(learning_rate, final_learning_rate, over=steps)
    return run_training(
        Descent(module, evaluate),
        Schedule(steps, rate, every),
        settings=settings,
        checkpoint=checkpoint,
        progress=report,
    )
