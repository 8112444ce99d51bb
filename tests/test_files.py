from pathlib import Path

import pytest

from reidkit.files import remove_leftover, replacing, write_atomically


def test_a_file_is_made_with_its_folders(tmp_path):
    write_atomically(tmp_path / "deep" / "er" / "x", b"new")
    assert (tmp_path / "deep" / "er" / "x").read_bytes() == b"new"


def test_a_failure_in_the_middle_keeps_what_was_there(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def half():
        with replacing(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        half()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_reported_with_path_and_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "with_name", lambda self, name: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    with pytest.raises(OSError, match=r"No space left on device while writing .*x; what was there"):
        write_atomically(tmp_path / "x", b"1" * 100_000)


def test_what_a_kill_left_beside_a_file_can_be_removed(tmp_path):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    (tmp_path / ".x.tmp").write_bytes(b"half")
    remove_leftover(path)
    remove_leftover(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x"] and path.read_bytes() == b"old"
