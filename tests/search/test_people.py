from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sql

from ingest.ledger import Finding, open_database
from search.people import NameTaken, People, UnknownPerson

SAMPLE = Finding("m" * 64, "voice", "e" * 64, 0, 1500, 0, 0.5)


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(open_database(f"sqlite:///{tmp_path / 'records.sqlite'}"))


def test_a_person_is_found_by_name_and_by_id(people: People) -> None:
    ann = people.create("Ann")
    assert people.find("Ann") == people.find(ann.id)


def test_two_people_cannot_share_a_name(people: People) -> None:
    people.create("Ann")
    with pytest.raises(NameTaken):
        people.create("Ann")


def test_an_unknown_name_says_how_to_see_who_is_known(people: People) -> None:
    with pytest.raises(UnknownPerson, match="visavox people"):
        people.find("Nobody")


@pytest.mark.parametrize("name", ["", "   ", "x" * 201])
def test_a_name_must_be_a_name(people: People, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 200"):
        people.create(name)


def test_enrolling_a_sample_twice_changes_nothing(people: People) -> None:
    ann = people.create("Ann")
    people.add(ann, [SAMPLE])
    people.add(ann, [SAMPLE])
    assert people.samples() == [(SAMPLE, ann.id)]


def test_one_sample_cannot_be_two_people(people: People) -> None:
    people.add(people.create("Ann"), [SAMPLE])
    with pytest.raises(NameTaken, match="another name"):
        people.add(people.create("Bob"), [SAMPLE])


def test_a_person_being_forgotten_is_gone_at_once_and_the_name_is_free(people: People) -> None:
    ann = people.create("Ann")
    people.add(ann, [SAMPLE])
    people.begin_forgetting(ann)
    assert people.everyone() == [] and people.owner(SAMPLE) == "" and people.samples() == []
    assert people.create("Ann").id != ann.id


def test_a_forgetting_begun_can_be_finished_later(people: People) -> None:
    ann = people.create("Ann")
    people.add(ann, [SAMPLE])
    people.begin_forgetting(ann)
    (left,) = people.leaving()
    people.finish_forgetting(left)
    assert people.leaving() == [] and people.samples(ann.id) == []


def test_no_name_stays_in_the_database_file_after_forgetting(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite'}")
    people = People(database)
    ann = people.create("Annabel Unmistakable")
    people.begin_forgetting(ann)
    people.finish_forgetting(ann.id)
    with database.connect() as connection:
        connection.execute(sql.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    database.dispose()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert ann.id.encode() in held  # the audit keeps the id
    assert b"Unmistakable" not in held


def test_renaming_keeps_samples(people: People) -> None:
    ann = people.create("Ann")
    people.add(ann, [SAMPLE])
    people.rename("Ann", "Anna")
    assert people.names() == {ann.id: "Anna"} and people.owner(SAMPLE) == ann.id


def test_the_summary_counts_faces_and_voices(people: People) -> None:
    people.add(people.create("Ann"), [SAMPLE])
    (ann,) = people.summary().people
    assert (ann.name, ann.faces, ann.voices) == ("Ann", 0, 1)


def test_an_id_means_its_bearer_whatever_others_are_called(people: People) -> None:
    ann, bob = people.create("Ann"), people.create("Bob")
    people.rename("Bob", ann.id)
    assert people.find(ann.id) == ann and people.find(bob.id).id == bob.id
