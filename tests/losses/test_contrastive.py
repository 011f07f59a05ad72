"""Contrastive losses against numbers worked by hand and torch's own definitions."""

import math

import pytest
import torch
import torch.nn.functional as F

from losses.contrastive import distillation, info_nce, known_positives, matryoshka, similarities, too_close

EYE = torch.eye(2, dtype=torch.float64)


def test_in_batch_negatives():
    losses = info_nce(EYE @ EYE.T / 0.5, torch.arange(2))
    torch.testing.assert_close(losses, torch.full((2,), math.log(1 + math.exp(-2)), dtype=torch.float64))
    assert losses[0].item() == pytest.approx(0.126928, abs=5e-7)


def test_hard_negatives_come_after_the_positives():
    hard = torch.tensor([[0.6, 0.8], [0.8, 0.6]], dtype=torch.float64)
    scores = EYE @ torch.cat([EYE, hard]).T / 0.5
    torch.testing.assert_close(scores[0], torch.tensor([2, 0, 1.2, 1.6], dtype=torch.float64))
    losses = info_nce(scores, torch.arange(2))
    assert losses.tolist() == pytest.approx([0.813143, 0.813143], abs=5e-7)


def test_the_same_document_twice_is_no_negative():
    keys = torch.tensor([7, 7])
    excluded = known_positives(keys, keys[:, None])
    losses = info_nce(torch.randn(2, 2), torch.arange(2), excluded)
    assert losses.tolist() == [0, 0]


def test_another_known_positive_is_no_negative_but_a_sibling_is():
    documents = torch.tensor([11, 12, 13])
    positives = torch.tensor([[11, 13], [12, 0], [13, 0]])
    excluded = known_positives(documents, positives)
    assert excluded.tolist() == [[True, False, True], [False, True, False], [False, False, True]]
    scores = torch.randn(3, 3, dtype=torch.float64)
    expected = [
        -F.log_softmax(scores[0, :2], 0)[0],
        -F.log_softmax(scores[1], 0)[1],
        -F.log_softmax(scores[2], 0)[2],
    ]
    torch.testing.assert_close(info_nce(scores, torch.arange(3), excluded), torch.stack(expected))


def test_too_close_is_decided_by_the_positive_and_without_gradient():
    similarity = torch.tensor([[0.8, 0.75, 0.5], [0.1, 0.6, 0.62]], requires_grad=True)
    excluded = too_close(similarity, torch.tensor([0, 1]), margin=0.1)
    assert excluded.tolist() == [[True, True, False], [False, True, True]]
    assert not excluded.requires_grad
    loss = info_nce(similarity, torch.tensor([0, 1]), excluded)
    assert loss[0].item() == pytest.approx(math.log(1 + math.exp(-0.3)), abs=1e-6)  # its own positive stays


def test_half_precision_scores_are_summed_in_float32():
    scores = torch.randn(4, 6).bfloat16()
    losses = info_nce(scores, torch.arange(4))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, info_nce(scores.float(), torch.arange(4)))


def test_distillation():
    teacher = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    assert distillation(teacher / 2, teacher, temperature=2.0).item() == pytest.approx(0, abs=1e-12)
    student = torch.zeros(1, 3, dtype=torch.float64)
    p = F.softmax(teacher, -1)
    assert distillation(student, teacher).item() == pytest.approx((p * (p.log() + math.log(3))).sum().item())


def test_distillation_of_half_precision_scores_is_summed_in_float32():
    student, teacher = torch.randn(4, 6).bfloat16(), torch.randn(4, 6)
    losses = distillation(student, teacher)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, distillation(student.float(), teacher), rtol=0, atol=0)


def test_similarities_are_not_rounded_by_autocast():
    query, document = (F.normalize(torch.randn(5, 16), dim=-1) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert (query @ document.T).dtype == torch.bfloat16
        found = similarities(query, document)
    torch.testing.assert_close(found, query @ document.T, rtol=0, atol=0)
    assert similarities(query.bfloat16(), document.bfloat16()).dtype == torch.float32
    assert similarities(query.double(), document.double()).dtype == torch.float64


def test_too_close_reads_half_precision_in_float32():
    similarity = torch.tensor([[0.8984375, 0.79296875]]).bfloat16()  # 0.10547 apart, and neither less 0.1 is a bfloat16
    assert too_close(similarity, torch.tensor([0]), margin=0.1056).tolist() == [[True, True]]
    assert too_close(similarity, torch.tensor([0]), margin=0.1054).tolist() == [[True, False]]


def test_matryoshka_is_the_weighted_mean_over_prefixes():
    q, d = torch.randn(3, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)

    def loss(q, d):
        return info_nce(q @ d.T, torch.arange(3))

    half = loss(F.normalize(q[:, :4], dim=-1), F.normalize(d[:, :4], dim=-1))
    whole = loss(F.normalize(q, dim=-1), F.normalize(d, dim=-1))
    torch.testing.assert_close(matryoshka(loss, [q, d], [4, 8], [1.0, 3.0]), (half + 3 * whole) / 4)
