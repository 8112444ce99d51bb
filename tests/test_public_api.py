import subprocess
import sys

import pytest

import reidkit

PROMISED = {
    "RankedListLoss", "GaitSet", "ReIDModel", "SetPooling",
    "Sample", "Benchmark", "EvalProtocol", "Features", "Hits", "Scores",
    "load_benchmark", "load_model", "extract",
    "evaluate", "evaluate_arrays", "find_hits", "rerank", "fit",
    "IdentityTree", "match_tracklets",
}  # fmt: skip


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_public_names_are_those_promised_and_all_are_there():
    assert set(reidkit.__all__) == PROMISED
    for name in reidkit.__all__:
        assert getattr(reidkit, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="RankedListLos"):
        _ = reidkit.RankedListLos


def test_the_command_line_answers_without_importing_torch():
    done = python("import sys, reidkit.cli; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_importing_everything_touches_no_optional_extra_no_cuda_and_no_network():
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("network at import")
socket.socket.connect = refuse
import reidkit, reidkit.compose
for name in reidkit.__all__: getattr(reidkit, name)
import torch
extras = ("faiss", "onnxruntime", "tensorboard", "wandb", "matplotlib.pyplot")
print([name for name in extras if name in sys.modules], torch.cuda.is_initialized())
"""
    done = python(code)
    assert done.stdout.strip() == "[] False", done.stdout + done.stderr
