from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy import ablations
from deploy.ablations import (
    FULL,
    REPORTED,
    Asked,
    Found,
    ablated,
    main,
    measure_ablations,
    page_name,
    shortened,
    table,
)
from deploy.measured_methods import Measured, Yardsticks
from tests.deploy.test_methods import ONE, YARDSTICKS
from training.configuration import ConfigurationError
from training.loop import Diverged
from training.population.splits import TrainingSpec
from training.recipe import load_recipe, recipes
from training.recipes import bi_quintuple, prior_transport, single_stream

FULL_RUNS = {0: ONE, 1: replace(ONE, seed=1, auc=0.82)}
CHANGED_RUNS = {0: replace(ONE, auc=0.75), 1: replace(ONE, seed=1, auc=0.78, same_sex=0.72)}
ROWS = {FULL: bi_quintuple.POPULATION, "one layer (SFC)": bi_quintuple.POPULATION}


def page(found: Found, **changed: object) -> list[str]:
    return table(replace(Asked("bi_quintuple", ROWS), **changed), found).splitlines()


def both() -> Found:
    return Found({FULL: FULL_RUNS, "one layer (SFC)": CHANGED_RUNS}, {}, YARDSTICKS)


def test_a_row_has_mean_and_deviation_its_difference_seed_by_seed_and_the_papers_figure() -> None:
    row = next(line for line in page(both()) if line.startswith("| one layer"))
    auc, difference, one_sex, eer, *of_two, of_three, to_face, to_voice, paper = row.strip("| ").split(" | ")[1:]
    assert (auc, difference) == ("0.765 ± 0.021", "−0.045 ± 0.007")  # −0.05 and −0.04
    assert (one_sex, to_face, to_voice) == ("0.710 ± 0.014", "0.200 ± 0.000", "0.300 ± 0.000")
    assert (eer, of_two, of_three) == ("0.250 ± 0.000", ["0.720 ± 0.000", "0.740 ± 0.000"], "0.600 ± 0.000")
    assert paper.startswith("79.89; V-F 1:2 84.95")
    row = next(line for line in page(both()) if line.startswith(f"| {FULL}"))
    assert row.startswith(f"| {FULL} | 0.810 ± 0.014 | – | 0.700 ± 0.000 | 0.250 ± 0.000 | 0.720")


def test_how_fast_each_row_learns_is_told_for_the_first_epochs() -> None:
    slow = replace(ONE, epochs={epoch: epoch / 100 for epoch in range(1, 31)})
    lines = page(Found({FULL: {0: ONE, 1: replace(ONE, epochs={1: 0.7, 2: 0.8})}, "one layer (SFC)": {0: slow}}))
    at = next(number for number, line in enumerate(lines) if "by epoch" in line)
    assert lines[at + 2].startswith("| row | 1 | 2 | 3 |") and lines[at + 2].endswith("| 14 | 15 |")
    assert lines[at + 4] == f"| {FULL} | 0.650 | 0.750 |" + " – |" * 13
    assert lines[at + 5].startswith("| one layer (SFC) | 0.010 | 0.020 |") and lines[at + 5].endswith("| 0.150 |")


def test_a_row_that_does_better_says_so_by_its_sign() -> None:
    found = Found({FULL: {0: ONE}, "one layer (SFC)": {0: replace(ONE, auc=0.81)}})
    (row,) = [line for line in page(found) if line.startswith("| one layer (SFC) | 0.8")]
    assert row.startswith("| one layer (SFC) | 0.810 | +0.010 | 0.700 |")


def test_the_page_says_that_its_people_are_invented_and_the_papers_figures_were_not_measured() -> None:
    lines = page(both())
    assert lines[0].endswith("invented people: a test of the mechanisms") and ablations.NOTE in "\n".join(lines)
    columns = next(line for line in lines if line.startswith("| row"))
    assert columns.endswith("| VoxCeleb1, split P, not measured here |")
    assert "AUC of chance 0.500, of knowing only the sex 0.750, of the ceiling 0.980." in lines


def test_a_quick_look_says_that_it_is_one() -> None:
    assert not any("quick look" in line.lower() for line in page(both()))
    assert "**Epochs of every stage: at most 2. A quick look, not what the preset comes to.**" in page(both(), epochs=2)


def test_a_row_that_could_not_be_trained_is_told_with_its_reason() -> None:
    found = Found({FULL: {0: ONE}}, {"one layer (SFC)": {0: "the loss is no longer finite"}}, YARDSTICKS)
    lines = page(found, left_out=("HuBERT",))
    assert any(line.startswith("| one layer (SFC) | failed |" + " – |" * 8 + " 79.89") for line in lines)
    assert "*one layer (SFC)*: 1 failed, such as seed 0: the loss is no longer finite" in lines
    assert lines[-2].endswith("`HuBERT`.") and "--ablation NAME --initial FOLDER" in lines[-1]


def test_every_row_has_one_run_before_any_has_a_second_and_one_that_fails_stops_no_other(monkeypatch) -> None:
    seen, told = [], []

    def trained(home, recipe, seed, learned, settings) -> tuple[Measured, Yardsticks]:
        seen.append((settings.head, seed))
        if seen[-1] == ("one_layer", 0):
            raise Diverged("not finite")
        return replace(ONE, seed=seed), YARDSTICKS

    monkeypatch.setattr(ablations, "train_measured", trained)
    asked = ablated(bi_quintuple, ["one layer (SFC)"])
    for found in measure_ablations(Path(), asked, range(2)):
        told.append({name: sorted(some) for name, some in found.measured.items()})
    assert seen == [("weighted_residual", 0), ("one_layer", 0), ("weighted_residual", 1), ("one_layer", 1)]
    assert told == [{FULL: [0]}, {FULL: [0]}, {FULL: [0, 1]}, {FULL: [0, 1], "one layer (SFC)": [1]}]
    assert found.failed == {"one layer (SFC)": {0: "not finite"}}


def test_the_page_and_its_figures_are_kept_in_the_home(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setenv("VISAVOX_HOME", str(tmp_path))
    monkeypatch.setattr(ablations, "train_measured", lambda *asked: (ONE, YARDSTICKS))
    main(["bi_quintuple", "--row", "margin 0.2", "--seeds", "1", "--epochs", "1", "--people", "40"])
    (kept,) = (tmp_path / "ablations").glob("bi_quintuple-40-people-1-epochs-????????.md")
    assert kept.with_suffix(".md").read_text() in capsys.readouterr().out
    assert '"margin 0.2"' in kept.with_suffix(".json").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nobodys"], "there is no recipe 'nobodys'; choose one of: bi_pseudo_label, bi_quintuple,"),
        (["bi_quintuple", "--row", "two heads"], "bi_quintuple has no ablation 'two heads'; choose of: 'one layer"),
        (["prior_transport", "--row", "means"], "'means' changes nothing: prior_transport is told so already"),
        (["bi_quintuple", "--people", "1"], "training needs 2 to 20000 people"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence_and_wrong_usage(arguments: list[str], told: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith(f"visavox: {told}") and error.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "-1", "two", "²"])
def test_no_number_of_runs_is_wrong_usage_too(number: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bi_quintuple", "--seeds", number])
    assert stopped.value.code == 2 and "is no whole number of at least 1" in capsys.readouterr().err


def test_every_stage_is_cut_to_so_many_epochs_and_none_is_lengthened() -> None:
    stream = shortened(single_stream.POPULATION, 2)
    assert (stream.epochs, stream.stream.epochs) == (2, 2)
    transport = shortened(prior_transport.POPULATION, 9)
    assert transport.identity is not None and (transport.epochs, transport.identity.epochs) == (9, 6)
    assert shortened(bi_quintuple.POPULATION, 10**6) == bi_quintuple.POPULATION


def test_other_networks_are_left_out_unless_they_are_named() -> None:
    asked = ablated(prior_transport)
    assert "HuBERT" in asked.left_out and "HuBERT" not in asked.rows and "Sinkhorn" in asked.rows
    assert ablated(prior_transport, ["HuBERT"]).rows["HuBERT"].voice_backbone == "hubert_base"


def test_a_row_that_a_preset_has_anyway_stands_only_where_it_changes_something() -> None:
    assert "sums" in ablated(prior_transport).rows and "means" not in ablated(prior_transport).rows
    paper = ablated(prior_transport, preset="paper")
    assert "means" in paper.rows and "sums" not in paper.rows and "ECAPA-TDNN" not in paper.left_out
    with pytest.raises(ConfigurationError, match="'sums' changes nothing"):
        ablated(prior_transport, ["sums"], preset="paper")


def test_a_page_of_some_rows_does_not_take_the_place_of_the_whole() -> None:
    some = [ablated(bi_quintuple, rows) for rows in (None, ["margin 0.2"], ["margin 0.4"], ["margin 0.2"])]
    names = [page_name(one) for one in some]
    assert names[0] == "bi_quintuple" and len(set(names)) == 3 and names[1] == names[3]
    few = ablated(bi_quintuple, learned=TrainingSpec(20), epochs=2)
    assert page_name(few) == "bi_quintuple-20-people-2-epochs"


@pytest.mark.parametrize("name", recipes())
def test_what_a_paper_reports_is_of_rows_that_there_are(name: str) -> None:
    assert set(REPORTED[name]) <= {FULL, *load_recipe(name).ABLATIONS}
