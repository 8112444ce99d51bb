import torch
import torch.nn.functional as F

from reidkit.types import Features, Sample
from reidkit.unsupervised import centred_by_camera


def features(vectors, cameras, parts=1, domains=None):
    domains = domains or [""] * len(cameras)
    samples = [Sample((), 1, c, domain=d) for c, d in zip(cameras, domains, strict=True)]
    return Features(torch.tensor(vectors), tuple(samples), parts=parts)


def test_each_camera_loses_its_mean_of_unit_vectors():
    found = centred_by_camera(features([[2.0, 0], [0, 3], [5, 0]], [0, 0, 1]))
    assert torch.allclose(found.vectors, torch.tensor([[0.5, -0.5], [-0.5, 0.5], [0, 0]]))


def test_what_a_camera_adds_to_all_its_vectors_is_gone():
    generator = torch.Generator().manual_seed(0)
    people = F.normalize(torch.randn(5, 8, generator=generator), dim=1)
    cast = torch.randn(2, 8, generator=generator)
    shown = torch.cat([people + 3 * cast[0], people + 3 * cast[1]])
    plain = features(shown.tolist(), [0] * 5 + [1] * 5)
    apart = torch.cdist(plain.vectors[:5], plain.vectors[5:])
    vectors = centred_by_camera(plain).vectors
    near = torch.cdist(vectors[:5], vectors[5:])
    assert near.max() < apart.min()


def test_parts_have_means_of_their_own_and_cameras_of_two_domains_are_two():
    found = centred_by_camera(features([[1.0, 0, 0, 2], [0, 1, 0, 2]], [0, 0], parts=2))
    assert torch.allclose(found.vectors, torch.tensor([[0.5, -0.5, 0, 0], [-0.5, 0.5, 0, 0]]))
    two = centred_by_camera(features([[1.0, 0], [0, 1]], [0, 0], domains=["a", "b"]))
    assert two.vectors.eq(0).all()


def test_no_samples_stay_none():
    assert centred_by_camera(Features(torch.empty(0, 4), ())).vectors.shape == (0, 4)
