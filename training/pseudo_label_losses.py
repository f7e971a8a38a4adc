"""The losses of S2 (sections 2.3 and 2.4): three that pseudo-labels teach by, each for one number of clusters; L_id.

Row i of the faces and row i of the voices are of one person throughout. Labels are what
:mod:`training.pseudo_labels` finds, and carry no gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot, softmax

from training.pseudo_labels import PseudoLabels, scale_columns

Reduction = Literal["sum", "mean"]
ScoreScale = Literal["bounded", "mean", "sum"]
UNKNOWN = -1
"""The sex of people of whom nobody says it."""
_GREATEST_EXPONENT = 30.0


def association_score(faces: Tensor, voices: Tensor, interaction: Tensor) -> Tensor:
    """S = aᵀ·exp(X·b), exp by component: Algorithm 1. Its gradient to X is (a ⊙ exp(X·b))·bᵀ.

    Components of X·b above 30, whose exponential would soon be no finite number, count as 30.

    Args:
        faces: (n, d) float, a of each pair.
        voices: (n, d) float, b of each pair.
        interaction: (d, d) float, X.

    Returns:
        (n,) float.
    """
    return (faces * torch.exp((voices @ interaction.T).clamp(max=_GREATEST_EXPONENT))).sum(dim=1)


class LearnedAssociation(torch.nn.Module):
    """How well a face with its label goes with a voice with its label, learned (Algorithm 1).

    a = φ_face(f) ∘ w_face(label of f) and likewise b, where ∘ is the product by component, φ a linear layer and w
    one learned vector for each label, beginning with ones; the paper gives no form of either. X begins small.

    Args:
        dimension: components of a face, and of a voice.
        clusters: how many labels there are.
        scale: of S in equation 6, on which the paper is silent. ``sum`` is S as Algorithm 1 prints it, ``mean`` divides
            it by the dimension; nothing bounds either, and one pair of a very negative S, which this exponential of
            an exponential makes easily, is all of the loss. ``bounded`` is the logistic function of the latter,
            within (0, 1) as equation 5's own S.
    """

    def __init__(self, dimension: int, clusters: int, scale: ScoreScale = "bounded") -> None:
        super().__init__()
        self.face = torch.nn.Linear(dimension, dimension)
        self.voice = torch.nn.Linear(dimension, dimension)
        self.face_labels = torch.nn.Parameter(torch.ones(clusters, dimension))
        self.voice_labels = torch.nn.Parameter(torch.ones(clusters, dimension))
        self.interaction = torch.nn.Parameter(torch.randn(dimension, dimension) / dimension**0.5)
        self.scale = scale

    def forward(self, faces: Tensor, face_labels: Tensor, voices: Tensor, voice_labels: Tensor) -> Tensor:
        """The score of each pair.

        Args:
            faces: (n, d) float.
            face_labels: (n,) int64.
            voices: (n, d) float.
            voice_labels: (n,) int64.

        Returns:
            (n,) float, S.
        """
        a = self.face(faces) * self.face_labels[face_labels]
        b = self.voice(voices) * self.voice_labels[voice_labels]
        scores = association_score(a, b, self.interaction)
        if self.scale == "sum":
            return scores
        means = scores / self.interaction.shape[0]
        return means if self.scale == "mean" else torch.sigmoid(means)


def hard_association(face_labels: Tensor, voice_labels: Tensor) -> Tensor:
    """The score as equation 5 has it: 1 where both labels of a pair are the same, else 0. It has no gradient.

    Args:
        face_labels: (n,) int64.
        voice_labels: (n,) int64.

    Returns:
        (n,) float32.
    """
    return (face_labels == voice_labels).float()


def association_loss(scores: Tensor) -> Tensor:
    """L_cma (equation 6): the mean of exp(−S) over the pairs, as printed.

    Args:
        scores: (n,) float.
    """
    return torch.exp(-scores).mean()


def bi_pseudo_label_loss(
    classifier: torch.nn.Module,
    faces: Tensor,
    face_labels: Tensor,
    voices: Tensor,
    voice_labels: Tensor,
    reduction: Reduction = "sum",
) -> Tensor:
    """L_Bi-P (equation 8): each modality learns to be called what the other one is called.

    Args:
        classifier: (n, d) to (n, clusters) scores, one for both modalities.
        faces: (n, d) float.
        face_labels: (n,) int64.
        voices: (n, d) float.
        voice_labels: (n,) int64.
        reduction: over the pairs: ``sum`` as printed, or ``mean``.
    """
    from_voices = cross_entropy(classifier(faces), voice_labels, reduction=reduction)
    return from_voices + cross_entropy(classifier(voices), face_labels, reduction=reduction)


def label_distribution(features: Tensor, found: PseudoLabels, temperature: float, reduction: Reduction) -> Tensor:
    """Logarithm of p: softmax of how many of a modality's samples have each label (section 2.4).

    The value is that of the labels as they are. They have no gradient, and the paper does not say what has; here it is
    that of soft labels in their place: softmax of minus a scaled sample's Euclidean distances to the clusters' centres
    over a temperature, centres held constant.

    Args:
        features: (n, d) float, as they were before columns were scaled.
        found: the labels of these features, and the centres.
        temperature: above 0, in units of the scaled space.
        reduction: ``mean`` counts shares of the samples, a distribution; ``sum`` counts samples, which makes the
            softmax put nearly all on the largest cluster.

    Returns:
        (q,) float.
    """
    centres = found.centres.to(features)
    away = torch.cdist(scale_columns(features), centres, compute_mode="donot_use_mm_for_euclid_dist")
    soft = softmax(-away / temperature, dim=1)
    hard = one_hot(found.labels.to(features.device), len(centres)).to(soft.dtype)
    labels = hard + (soft - soft.detach())
    return log_softmax(labels.sum(dim=0) if reduction == "sum" else labels.mean(dim=0), dim=0)


def distribution_loss(faces: Tensor, voices: Tensor) -> Tensor:
    """L_KL (equation 10): half of KL(p_face‖p_voice) + KL(p_voice‖p_face).

    Args:
        faces: (q,) float, logarithms of p_face.
        voices: (q,) float, logarithms of p_voice.
    """
    return 0.5 * ((faces.exp() - voices.exp()) * (faces - voices)).sum()


def identity_loss(
    people: torch.nn.Module,
    sexes: torch.nn.Module,
    features: Tensor,
    person: Tensor,
    sex: Tensor,
    reduction: Reduction = "sum",
) -> dict[str, Tensor]:
    """L_id (equation 9) of one modality: cross-entropy on who it is and on the sex.

    Args:
        people: (n, d) to (n, people) scores.
        sexes: (n, d) to (n, 2) scores.
        features: (n, d) float, not normalised.
        person: (n,) int64 from 0 to people − 1.
        sex: (n,) int64, 0 or 1; −1 where it is not known, which is left out of that part.
        reduction: over the samples: ``sum`` as printed, or ``mean`` (of the sexes over those that are known).

    Returns:
        Scalars ``person`` and ``sex``, the two parts; ``accuracy``, the share of samples whose person is named rightly.
    """
    scores, known = people(features), sex != UNKNOWN
    by_sex = (cross_entropy(sexes(features), sex.clamp(min=0), reduction="none") * known).sum()
    return {
        "person": cross_entropy(scores, person, reduction=reduction),
        "sex": by_sex if reduction == "sum" else by_sex / known.sum().clamp(min=1),
        "accuracy": (scores.detach().argmax(dim=1) == person).float().mean(),
    }
