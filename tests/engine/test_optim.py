"""Which parameters move at which rate, and which of them decay."""

import pytest
import torch
from torch import nn

from reidkit.engine import parameter_groups


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.head = nn.Linear(2, 2, bias=False)


def test_each_parameter_has_its_rate_and_its_decay():
    model, proxies, bound = Model(), nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(1))
    groups = parameter_groups(
        model, {100.0: [proxies], 1.0: [bound]}, lr=0.01, weight_decay=0.1, backbone_rate=0.1
    )
    found = {
        parameter: (group["lr"], group["initial_lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert found == {
        model.backbone.weight: (0.001, 0.001, 0.1),
        model.backbone.bias: (0.001, 0.001, 0.0),
        model.head.weight: (0.01, 0.01, 0.1),
        proxies: (1.0, 1.0, 0.1),
        bound: (0.01, 0.01, 0.0),
    }


def test_nothing_to_train_is_told():
    with pytest.raises(ValueError, match=r"nothing to train"):
        parameter_groups(Model().requires_grad_(False), lr=0.1, weight_decay=0.0)
