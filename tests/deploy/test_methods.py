from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.costs import Costs, costs_of
from deploy.measured_methods import Measured, Yardsticks, train_measured
from deploy.methods import NOTE, PAPERS, table
from deploy.networks import find_network
from encoders.encoder import Encoder
from encoders.folder import backbone_row
from encoders.space import Modality
from tests.training.small_run import SETTINGS, small_data, small_given, small_train
from tests.training.test_publish import ORIGIN
from training.curves import FOLDER
from training.networks import multiply_adds
from training.population.splits import PopulationSpec, TrainingSpec
from training.publish import publish
from training.recipe import load_recipe
from training.recipes import bi_quintuple

COSTS = Costs(1_234_567, 5_000_000, 6_000_000, 1.5, 2.5)
MAPS = {"voice_to_face": 0.2, "face_to_voice": 0.3}
ONE_OF = {"voice_to_face": {"2": 0.72, "3": 0.6}, "face_to_voice": {"2": 0.74, "3": 0.61}}
ONE = Measured("alpha", 0, "alpha-1", 100.0, 0.8, 0.7, 0.25, MAPS, ONE_OF, {1: 0.6, 2: 0.7}, COSTS)
YARDSTICKS = Yardsticks(
    auc=(0.5, 0.75, 0.98),
    same_sex=(0.5, 0.5, 0.95),
    eer=(0.5, 0.33, 0.07),
    map=dict.fromkeys(MAPS, (0.01, 0.012, 0.35)),
    one_of={way: {"2": (0.5, 0.66, 0.93), "3": (1 / 3, 0.5, 0.88)} for way in MAPS},
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
    assert "±" not in row and "| 0.800 | 0.63 | 0.700 | 0.250 | 0.720 | 0.740 | 0.200 | 0.300 | 0.250 |" in row


def test_chance_the_oracle_and_the_ceiling_stand_beside_them() -> None:
    page = table([ONE], YARDSTICKS)
    assert "| *chance* | 0.500 | 0.00 | 0.500 | 0.500 | 0.500 | 0.500 | 0.010 | 0.010 | 0.010 |" in page
    assert "| *knowing only the sex* | 0.750 | 0.52 | 0.500 | 0.330 | 0.660 | 0.660 | 0.012 | 0.012 | 0.012 |" in page
    assert "| *ceiling* | 0.980 | 1.00 | 0.950 | 0.070 | 0.930 | 0.930 | 0.350 | 0.350 | 0.350 |" in page


def test_every_published_method_has_the_command_that_would_reproduce_it() -> None:
    page = table([ONE], YARDSTICKS)
    vggface2 = "--initial inception_resnet_v1_vggface2"
    for command in (
        f"bi_quintuple --corpus voxceleb1 --root DIR {vggface2}`",
        "single_stream --corpus voxceleb1 --root DIR`",
        "bi_pseudo_label --corpus voxceleb1-d --root DIR`",
        "prior_transport --corpus voxceleb1 --root DIR`",
        "prior_transport --corpus voxceleb1 --root DIR --initial wav2vec2_base --config FILE`, where FILE says",
        f"joint_embedding --corpus voxceleb1-d --root DIR {vggface2}`",
    ):
        assert f"| `visavox train {command}" in page


def test_what_a_paper_reports_stands_by_its_groups() -> None:
    page = table([ONE], YARDSTICKS)
    for one in PAPERS:
        (row,) = (line for line in page.splitlines() if line.endswith(f"| {one.command} |"))
        cells = row.strip("| ").split(" | ")
        assert cells[1] == one.split and len(cells) == 9
        for cell, groups in zip(cells[2:7], (5, 1, 4, 4, 2), strict=True):
            told = [] if cell == "–" else [float(figure) for figure in cell.split()]
            assert len(told) in (0, 1, groups) and all(0 < figure < 100 for figure in told)
    # as the papers have it, and as another quotes the last one
    for row in (
        "`bi_quintuple` | P | 85.1 69.5 84.9 80.3 63.5 | – | "
        "86.85 76.05 85.70 73.10 | 85.18 72.17 84.77 70.82 | 6.96 6.14",
        "`single_stream` | P | 82.5 68.8 70.8 76.9 58.2 | 25.6 | 83 | – | 6.92 7.55",
        "`bi_pseudo_label` | D | 85.0 71.2 84.3 79.6 64.7 | – | "
        "85.69 73.33 84.26 71.10 | 85.83 73.01 85.00 71.45 | 6.36 6.04",
        "`prior_transport`, ECAPA-TDNN | P | 69.6 61.4 69.1 67.9 59.4 | – | – | – | –",
        "`prior_transport`, wav2vec 2.0 | P | 84.4 72.2 84.5 81.1 66.6 | – | – | – | –",
        "`prior_transport`, HuBERT | P | 84.2 64.8 84.6 80.9 60.5 | – | – | – | –",
        "`joint_embedding` | D | – | – | 85.18 74.29 83.97 70.70 | 85.42 73.52 84.48 71.11 | –",
    ):
        assert f"| {row} | " in page


def test_every_network_to_begin_with_can_be_pulled_and_is_the_method_s() -> None:
    for one in PAPERS:
        options = one.further[0].split()
        settings = load_recipe(one.method).Settings()
        named = dict(part.split(": ") for part in re.findall(r"says `(.*?)`", one.further[1]))
        own = {
            modality: named.get(f"{modality}_backbone", getattr(settings, f"{modality}_backbone"))
            for modality in Modality
        }
        for name in [after for before, after in pairwise(options) if before == "--initial"]:
            row, modality, kind = find_network(name)
            assert kind == "network" and row.sources
            assert backbone_row(modality, name).network == backbone_row(modality, own[modality]).network


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


@pytest.mark.long
def test_a_method_is_trained_measured_and_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVOX_DEVICE", "cpu")
    settings = replace(bi_quintuple.POPULATION, epochs=2, people_per_batch=4, samples_per_person=1, frames=60, hidden=8)
    asked = tmp_path, bi_quintuple, 3, TrainingSpec(6, 1), settings, PopulationSpec(4, 2, 4, 1, films=0)
    measured, yardsticks = train_measured(*asked)
    assert (measured.recipe, measured.seed) == ("bi_quintuple", 3) and list(measured.epochs) == [1, 2]
    assert 0 <= measured.auc <= 1 and measured.seconds > 0 and measured.costs.parameters > 100_000
    assert set(measured.one_of) == set(MAPS) and all(0 <= some["2"] <= 1 for some in measured.one_of.values())
    assert yardsticks.one_of["voice_to_face"]["2"][0] == 0.5 < yardsticks.one_of["voice_to_face"]["2"][2] <= 1
    assert measured.mean_map == pytest.approx((measured.map["voice_to_face"] + measured.map["face_to_voice"]) / 2)
    assert len(list((tmp_path / "runs").glob(f"*/{FOLDER}"))) == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again, _ = train_measured(*asked)
    assert replace(again, costs=measured.costs) == measured
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
