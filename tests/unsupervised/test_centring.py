import torch
import torch.nn.functional as F

from reidkit.types import Features, Sample
from reidkit.unsupervised import centred_by_camera, compressed, side_by_side


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


def test_compressing_to_as_many_numbers_as_samples_keeps_all_distances():
    generator = torch.Generator().manual_seed(0)
    wide = Features(
        torch.randn(12, 400, generator=generator), tuple(Sample((), n, 0) for n in range(12))
    )
    small = compressed(wide)
    assert small.vectors.shape == (12, 12) and small.samples == wide.samples
    expected = torch.cdist(wide.vectors, wide.vectors)
    torch.testing.assert_close(
        torch.cdist(small.vectors, small.vectors), expected, atol=1e-3, rtol=0
    )


def test_compressing_keeps_the_directions_in_which_there_is_most():
    generator = torch.Generator().manual_seed(1)
    strong = torch.randn(50, 3, generator=generator) @ torch.randn(3, 90, generator=generator)
    weak = 0.01 * torch.randn(50, 90, generator=generator)
    noisy = Features(strong + weak, tuple(Sample((), n, 0) for n in range(50)))
    small = compressed(noisy, dim=3)
    products = strong @ strong.T
    error = (small.vectors @ small.vectors.T - products).norm() / products.norm()
    assert small.vectors.shape == (50, 3) and error < 0.02
    assert compressed(noisy, dim=90).vectors.shape == (50, 50)
    narrow = Features(noisy.vectors[:, :3], noisy.samples)
    assert compressed(narrow) is narrow


def test_views_side_by_side_count_alike_however_long_their_vectors():
    samples = (Sample((), 1, 0), Sample((), 2, 0))
    one = Features(torch.tensor([[3.0, 0], [0, 3]]), samples)
    other = Features(torch.tensor([[0.1, 0, 0], [0.1, 0, 0]]), samples)
    found = side_by_side([one, other])
    assert found.vectors.tolist() == [[1, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert found.samples == samples and found.parts == 1
