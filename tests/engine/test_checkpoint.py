import errno
import os

import pytest
import torch

from reidkit.engine import load_state, save_state


def test_a_state_reads_back_as_it_was(tmp_path):
    state = {"weights": torch.arange(5.0), "epoch": 3, "names": ["a", "b"], "none": None}
    save_state(tmp_path / "run" / "state.pt", state)
    found = load_state(tmp_path / "run" / "state.pt")
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"epoch": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*kept"):
        save_state(path, {"epoch": 2})
    monkeypatch.undo()
    assert load_state(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_truncated_state_is_called_damaged(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"weights": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        load_state(path)


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, ("true",))

    path = tmp_path / "state.pt"
    torch.save({"x": Evil()}, path)
    with pytest.raises(ValueError, match="damaged"):
        load_state(path)


def test_nothing_to_resume_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="leave out --resume"):
        load_state(tmp_path / "state.pt")
