"""What a task asks of an input: the condition that is built from its constraints, and its guarantee."""

from constrained_nn.training.safety.condition import Kept, Safety, safety_of
from constrained_nn.training.safety.describe import describe
from constrained_nn.training.safety.starts import draw_starts

__all__ = ["Kept", "Safety", "describe", "draw_starts", "safety_of"]
