from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.costs import Costs, costs_of
from deploy.measured_methods import Measured, Yardsticks
from deploy.methods import NOTE, table
from encoders.encoder import Encoder
from encoders.space import Modality
from tests.training.small_run import SETTINGS, small_data, small_given, small_train
from tests.training.test_publish import ORIGIN
from training.networks import multiply_adds
from training.publish import publish
from training.recipes import bi_quintuple

COSTS = Costs(1_234_567, 5_000_000, 6_000_000, 1.5, 2.5)
MAPS = {"voice_to_face": 0.2, "face_to_voice": 0.3}
ONE = Measured("alpha", 0, "alpha-1", 100.0, 0.8, 0.7, 0.25, MAPS, COSTS)
YARDSTICKS = Yardsticks(
    auc=(0.5, 0.75, 0.98),
    same_sex=(0.5, 0.5, 0.95),
    eer=(0.5, 0.33, 0.07),
    map=dict.fromkeys(MAPS, (0.01, 0.012, 0.35)),
)


def test_the_page_says_first_that_it_is_a_test_of_mechanisms_on_invented_people() -> None:
    page = table([ONE], YARDSTICKS)
    assert page.splitlines()[0].endswith("invented people: a test of the mechanisms")
    assert NOTE in page and "not measured here" in page


def test_every_method_has_mean_and_deviation_of_its_seeds_and_its_share_of_the_ceiling() -> None:
    page = table([ONE, replace(ONE, seed=1, auc=0.82, seconds=120.0), replace(ONE, recipe="beta")], YARDSTICKS)
    (row,) = [line for line in page.splitlines() if line.startswith("| `alpha` | 0.")]
    assert "0.810 ± 0.014" in row and "0.65 ± 0.03" in row  # (0.81 - 0.5) / 0.48
    (row,) = [line for line in page.splitlines() if line.startswith("| `beta` | 0.")]
    assert "±" not in row and "| 0.800 | 0.63 | 0.700 | 0.250 | 0.200 | 0.300 |" in row


def test_chance_the_oracle_and_the_ceiling_stand_beside_them() -> None:
    page = table([ONE], YARDSTICKS)
    assert "| *chance* | 0.500 | 0.00 | 0.500 | 0.500 | 0.010 | 0.010 |" in page
    assert "| *knowing only the sex* | 0.750 | 0.52 | 0.500 | 0.330 | 0.012 | 0.012 |" in page
    assert "| *ceiling* | 0.980 | 1.00 | 0.950 | 0.070 | 0.350 | 0.350 |" in page


def test_every_published_method_has_the_command_that_would_reproduce_it() -> None:
    page = table([ONE], YARDSTICKS)
    for name in ("bi_quintuple", "single_stream", "bi_pseudo_label", "prior_transport", "joint_embedding"):
        assert f"`visavox train {name} --corpus voxceleb1" in page


def test_the_costs_are_counted_from_the_folder(tmp_path: Path) -> None:
    folder = publish(bi_quintuple, SETTINGS, small_data(), small_train(tmp_path / "run"), ORIGIN, tmp_path / "encoders")
    encoder = Encoder.load(folder)
    costs = costs_of(encoder)
    task = bi_quintuple.build(SETTINGS, small_given(), 0)
    served = sum(value.numel() for part in (task.face, task.voice, task.head) for value in part.state_dict().values())
    assert costs.parameters == served
    assert costs.face_ms > 0 and costs.voice_ms > 0


def test_multiply_adds_are_those_of_the_layers() -> None:
    # four convolutions of 3x3 and stride 2 over 64 px, then a linear layer over a map of 4x4
    widths = [(3, 32, 32), (32, 64, 16), (64, 128, 8), (128, 128, 4)]
    expected = sum(9 * before * behind * side**2 for before, behind, side in widths) + 128 * 16 * 128
    assert multiply_adds(Modality.FACE, "small_face", {}, 2.0) == expected
    short, long = (multiply_adds(Modality.VOICE, "small_voice", {}, seconds) for seconds in (1.0, 4.0))
    assert long == pytest.approx(4 * short, rel=0.05)
