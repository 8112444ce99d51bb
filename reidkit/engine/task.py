"""Model and objective under one roof: the thing that DDP wraps."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from reidkit.types import Batch


@runtime_checkable
class _Remembering(Protocol):
    def after_step(self) -> None: ...


class Task(nn.Module):
    """Calls the model on a batch and the objective on what it returns.

    Args:
        model: (frames (B, T, C, H, W), mask (B, T)) -> ModelOutput.
        objective: (ModelOutput, label (B,)) -> named terms, among them "loss", the scalar to
            descend. Its `after_step()`, if it has one, is called after each batch's step.
    """

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, phase: str = "main") -> dict[str, Tensor]:
        """The terms of the loss; in the phase "outputs" what the model returns, by name.

        `phase` is for methods that go through the model more than once a step.
        """
        output = self.model(batch.frames, batch.mask)
        if phase == "outputs":
            return {name: value for name, value in output._asdict().items() if value is not None}
        terms: dict[str, Tensor] = self.objective(output, batch.label)
        return terms

    def after_step(self) -> None:
        """After a batch's step, when no graph needs them any more: let losses change what they
        remember."""
        if isinstance(self.objective, _Remembering):
            self.objective.after_step()
