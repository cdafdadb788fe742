"""A training run without a model's arithmetic: parameters, and an Adam that changes all or some of them in every step."""

from __future__ import annotations

from typing import Any

#: Of a run at full scale: 2.4 GB with the state of Adam.
PARAMETERS = 200_000_000
#: Layers, so that a two-hundredth of them can learn.
LAYERS = 200
#: What Adam keeps of a parameter, and the parameter.
BYTES_OF_TRAINED = 12


class Training:
    """Layers of which the last ones learn, with gradients that are there already."""

    def __init__(self, parameters: int, trained_share: float = 1.0) -> None:
        import torch

        torch.manual_seed(1)
        side = round((parameters / LAYERS) ** 0.5)
        self.model = torch.nn.ParameterList(torch.nn.Parameter(torch.randn(side, side)) for _ in range(LAYERS))
        self.trained_count = max(1, round(LAYERS * trained_share))
        for parameter in list(self.model)[: LAYERS - self.trained_count]:
            parameter.requires_grad_(False)
        self.trained = list(self.model)[LAYERS - self.trained_count :]
        # Noise on a long stretch, of which each layer sees another part in each step.
        self.noise = torch.randn(side * side + 64 * LAYERS + 64 * 1024)
        self.side, self.steps = side, 0
        self.optimizer = self.new_optimizer()
        self.step()

    def new_optimizer(self) -> Any:
        """An optimizer that knows nothing yet."""
        import torch

        return torch.optim.Adam(self.trained, lr=1e-3, fused=True)

    @property
    def trained_bytes(self) -> int:
        """Bytes of all that a step changes."""
        return BYTES_OF_TRAINED * sum(each.numel() for each in self.trained)

    @property
    def frozen_bytes(self) -> int:
        """Bytes of what no step changes."""
        return 4 * sum(each.numel() for each in self.model) - self.trained_bytes // 3

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and state."""
        return self.trained_bytes + self.frozen_bytes

    def step(self) -> None:
        """Changes each element that learns."""
        self.steps += 1
        for at, parameter in enumerate(self.trained):
            start = 64 * (at + self.steps * 97 % 1024)
            parameter.grad = self.noise[start : start + self.side**2].view(self.side, self.side)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """What peers save."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def flat(self) -> dict[str, Any]:
        """The tensors by name, for formats that hold nothing else."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for at, values in self.optimizer.state_dict()["state"].items():
            tensors.update((f"optimizer.{at}.{name}", value) for name, value in values.items())
        return tensors
