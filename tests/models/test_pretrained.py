import socket
import time

import pytest
import torch
from timm.models import PretrainedCfg

from reidkit.models import ResNet, TimmBackbone, WeightsUnavailable, pretrained
from reidkit.models.backbones import resnet, timm_backbone


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network and empty caches; gives the torch hub's folder of files."""
    for room in (pretrained, timm_backbone):
        monkeypatch.setattr(room, "reachable", lambda url: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_resnet_without_a_network_says_what_to_do(offline):
    with pytest.raises(WeightsUnavailable, match=r"`pretrained: false`, or put the file of http"):
        ResNet(18)


def test_resnet_ibn_without_a_network_says_what_to_do(offline):
    with pytest.raises(WeightsUnavailable, match=r"ResNet-50 with IBN-a: github.com cannot be rea"):
        ResNet(50, ibn="a")


def test_timm_without_a_network_says_what_to_do(offline):
    with pytest.raises(WeightsUnavailable, match=r"'resnet10t'.*set `pretrained: false`"):
        TimmBackbone("resnet10t")


def test_timm_weights_nobody_published_are_told_apart_from_no_network(offline, monkeypatch):
    bare = PretrainedCfg(url="", hf_hub_id=None)
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda name: bare)
    with pytest.raises(WeightsUnavailable, match="timm publishes none"):
        TimmBackbone("resnet10t")


def test_weights_in_the_cache_need_no_network(offline):
    torch.manual_seed(0)
    saved = ResNet(18, pretrained=False).state_dict()
    file = offline / pretrained.hub_file(resnet.PLAIN_WEIGHTS[18]).name
    torch.save(saved | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, file)
    loaded = ResNet(18).state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_a_broken_file_in_the_cache_is_named(offline):
    file = pretrained.hub_file(resnet.PLAIN_WEIGHTS[18])
    file.write_bytes(b"half a downlo")
    with pytest.raises(WeightsUnavailable, match=file.name):
        ResNet(18)


def test_another_models_file_in_the_cache_is_refused(offline):
    file = pretrained.hub_file(resnet.PLAIN_WEIGHTS[18])
    torch.save(ResNet(18, width=0.125, pretrained=False).state_dict(), file)
    with pytest.raises(WeightsUnavailable, match=r"does not fit ResNet-18.*conv1.weight"):
        ResNet(18)


def test_timm_reads_a_file_that_is_named(offline, tmp_path):
    torch.manual_seed(0)
    saved = TimmBackbone("test_resnet", pretrained=False).body.state_dict()
    file = tmp_path / "mine.pth"
    torch.save(saved | {"fc.weight": torch.zeros(1000, 1), "fc.bias": torch.zeros(1000)}, file)
    overlay = {"pretrained_cfg_overlay": {"file": str(file), "custom_load": False}}
    loaded = TimmBackbone("test_resnet", args=overlay).body.state_dict()
    assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_timm_with_a_named_file_that_is_not_there_says_so(offline):
    overlay = {"pretrained_cfg_overlay": {"file": "nowhere.pth", "custom_load": False}}
    with pytest.raises(WeightsUnavailable, match=r"there is no file nowhere\.pth"):
        TimmBackbone("resnet10t", args=overlay)


def test_reachable_is_told_by_one_short_try(monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert pretrained.reachable(f"https://127.0.0.1:{port}/file")
    start = time.monotonic()
    assert not pretrained.reachable(f"https://127.0.0.1:{port}/file")
    assert time.monotonic() - start < pretrained.PATIENCE + 1


def test_behind_a_proxy_the_client_has_to_find_out(monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:8080"})
    assert pretrained.reachable("https://host.invalid/file")
