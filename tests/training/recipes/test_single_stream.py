import pytest
import torch

from training.recipes.single_stream import joint_centre_distances, stream_loss


def drawn(rows=9, columns=4, people=5, seed=0):
    """Scores, vectors and who they are of: float64."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, people, generator=random, dtype=torch.float64)
    vectors = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    return scores, vectors, torch.randint(people, (rows,), generator=random)


def loop_stream(scores, vectors, people, weight, reduction):
    """Equations 1 and 2, sample by sample."""
    total = torch.zeros((), dtype=torch.float64)
    for row, person in zip(scores, people, strict=True):
        total = total - (row[person].exp() / sum(score.exp() for score in row)).log()
    for person in set(people.tolist()):
        own = [vector for vector, owner in zip(vectors, people, strict=True) if owner == person]
        centre = sum(own) / len(own)
        total = total + weight / 2 * sum((vector - centre).square().sum() for vector in own)
    return total if reduction == "sum" else total / len(people)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("weight", "seed"), [(1.0, 0), (0.3, 1), (0.0, 2)])
def test_the_streams_loss_is_the_printed_one_in_value_and_gradient(reduction, weight, seed):
    scores, vectors, people = drawn(seed=seed)
    scores.requires_grad_(), vectors.requires_grad_()
    ours = stream_loss(scores, vectors, people, weight, reduction)["total"]
    naive = loop_stream(scores, vectors, people, weight, reduction)
    torch.testing.assert_close(ours, naive)
    for one in (scores, vectors):
        found = torch.autograd.grad(ours, one, retain_graph=True, materialize_grads=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad(naive, one, retain_graph=True, materialize_grads=True)[0])


def test_the_classifier_knows_all_training_people_not_only_those_of_the_batch():
    scores = torch.zeros(1, 7)
    assert stream_loss(scores, torch.ones(1, 2), torch.tensor([3]), 1.0)["identity"].exp().item() == pytest.approx(7)


def test_a_person_with_one_sample_is_its_own_centre():
    assert joint_centre_distances(torch.randn(3, 4), torch.tensor([4, 0, 2])).item() == 0.0


@pytest.mark.parametrize(("weight", "nearer"), [(1.0, True), (0.0, False)])
def test_the_centre_brings_faces_and_voices_of_a_person_together_and_without_it_they_stay_apart(weight, nearer):
    people = torch.tensor([0, 1, 0, 1])  # two faces, then two voices
    vectors = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [1.0, 0.0, -5.0], [0.0, 1.0, -5.0]]).requires_grad_()
    classifier = torch.tensor([[4.0, -4.0, 0.0], [-4.0, 4.0, 0.0]])
    optimiser = torch.optim.SGD([vectors], lr=0.05)
    for _ in range(50):
        optimiser.zero_grad()
        stream_loss(vectors @ classifier.T, vectors, people, weight)["total"].backward()
        optimiser.step()
    assert bool((vectors[0] - vectors[2]).norm() < 1.0) is nearer


def test_without_names_the_centre_alone_lets_everybody_become_one_point():
    vectors, people = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4).repeat(2)
    moved, classifier = vectors.clone().requires_grad_(), torch.nn.Linear(2, 4)
    shrunk = joint_centre_distances(0 * vectors, people)
    assert shrunk.item() == 0.0  # the centre's least value; names are what forbids it
    before = stream_loss(classifier(moved), moved, people, 1.0)
    optimiser = torch.optim.Adam([moved, *classifier.parameters()], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        found = stream_loss(classifier(moved), moved, people, 1.0)
        found["total"].backward()
        optimiser.step()
    assert found["accuracy"].item() == 1.0 and found["total"] < before["total"]
