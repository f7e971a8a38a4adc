from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.database import open_database
from ingest.ledger import Finding, Ledger
from search.people import NameRefused, NameTaken, People, Person, PreconditionFailed, SamePerson, UnknownPerson

SAMPLE = Finding("m" * 64, "voice", "e" * 64, 0, 1500, 0, 0.5)


@pytest.fixture
def people(database: Engine) -> People:
    return People(database)


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


def test_no_name_stays_in_the_database_file_after_forgetting(
    database: Engine, database_bytes: Callable[[], bytes]
) -> None:
    people = People(database)
    ann, *_ = [people.create(name) for name in ("Annabel Unmistakable", "Bob", "Cid")]
    with database.begin() as connection:
        connection.execute(sql.text("ANALYZE"))
    assert b"Unmistakable" in database_bytes()
    people.begin_forgetting(ann)
    people.finish_forgetting(ann.id)
    held = database_bytes()
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


def test_names_are_sorted_alike_by_every_database(people: People) -> None:
    names = ["Zoë", "Zoe", "ann", "Ann", "Änne", "O'Neil", "Oneil", "de la Cruz", "\N{ROMAN NUMERAL TWO}", "安"]
    for name in names:
        people.create(name)
    paged, after = [], None
    while (page := people.page(3, after)).people:
        paged += [one.name for one in page.people]
        after = (page.people[-1].name, page.people[-1].id)
    assert paged == [one.name for one in people.everyone()] == sorted(names)


def test_no_locale_of_a_server_decides_how_names_are_sorted(postgres_url: str) -> None:
    database = open_database(postgres_url)
    Ledger(database), People(database)
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE collation_name = 'C'"
    with database.connect() as connection:
        columns = {tuple(row) for row in connection.execute(sql.text(query))}
    database.dispose()
    assert {("people", "name"), ("files", "path")} <= columns


def test_a_sample_that_two_enrol_at_once_is_one_persons(people: People) -> None:
    both = [people.create("Ann"), people.create("Bob")]
    samples = [replace(SAMPLE, start_ms=number) for number in range(20)]

    def enrol(number: int) -> bool:
        try:
            people.add(both[number], samples[:: 1 - 2 * number])  # from both ends
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(enrol, range(2))) == 1
    owners = {owner for _, owner in people.samples()}
    assert len(owners) == 1 and len(people.samples()) == 20


def test_who_enrols_a_sample_a_moment_too_late_is_told_whose_it_is(postgres_url: str) -> None:
    database = open_database(postgres_url)
    people, both_looked = People(database), threading.Barrier(2, timeout=30)
    both = [people.create("Ann"), people.create("Bob")]

    @sql.event.listens_for(database, "before_cursor_execute")
    def meet(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO samples"):
            both_looked.wait()

    def enrol(person: Person) -> bool:
        try:
            people.add(person, [SAMPLE])
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(enrol, both)) == 1
    database.dispose()


def test_many_who_want_one_name_get_it_once(people: People) -> None:
    def create(_number: int) -> bool:
        try:
            people.create("Ann")
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(16))) == 1


def test_an_error_takes_no_name_into_the_logs(people: People) -> None:
    people.create("Annabel Unmistakable")
    with pytest.raises(NameTaken) as met:
        people.create("Annabel Unmistakable")
    told = "".join(traceback.format_exception(met.value.with_traceback(None)))
    assert told.count("Unmistakable") == 1  # our own sentence for the caller


OTHER = replace(SAMPLE, modality="face", evidence="f" * 64)


def test_a_version_is_raised_by_every_change_and_by_nothing_else(people: People) -> None:
    ann = people.create("Ann")
    people.add(ann, [SAMPLE])
    people.add(ann, [SAMPLE])
    assert people.find("Ann").version == 2
    assert people.rename("Ann", "Anna").version == people.find("Anna").version == 3


def test_a_change_of_another_version_is_refused_and_changes_nothing(people: People) -> None:
    ann, bob = people.create("Ann"), people.create("Bob")
    people.rename("Ann", "Anna", 1)
    for change in (
        lambda: people.rename(ann.id, "Eve", 1),
        lambda: people.begin_forgetting(ann, 1),
        lambda: people.merge(ann.id, bob.id, 1),
        lambda: people.check_version(ann.id, 1),
    ):
        with pytest.raises(PreconditionFailed, match="version 2"):
            change()
    assert [one.name for one in people.everyone()] == ["Anna", "Bob"]


def test_of_many_changes_of_one_version_one_is_made(people: People) -> None:
    ann = people.create("Ann")

    def rename(number: int) -> bool:
        try:
            people.rename(ann.id, f"Ann {number}", 1)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(rename, range(16))) == 1
    assert people.find(ann.id).version == 2


def test_who_is_leaving_gets_neither_name_nor_samples(people: People) -> None:
    ann = people.create("Ann")
    people.begin_forgetting(ann)
    with pytest.raises(UnknownPerson):
        people.add(ann, [SAMPLE])
    with pytest.raises(UnknownPerson):
        people.begin_forgetting(ann)
    assert people.samples(ann.id) == []


def test_a_page_begins_after_the_last_of_the_one_before(people: People) -> None:
    ids = {name: people.create(name).id for name in ("Dan", "Ann", "Bob", "Cid")}
    first = people.page(2)
    assert ([one.name for one in first.people], first.more) == (["Ann", "Bob"], True)
    assert [one.name for one in people.page(2, ("Bob", ids["Bob"])).people] == ["Cid", "Dan"]
    people.begin_forgetting(people.find("Bob"))
    rest = people.page(2, ("Bob", ids["Bob"]))
    assert ([one.name for one in rest.people], rest.more) == (["Cid", "Dan"], False)
    with pytest.raises(ValueError, match="1 person"):
        people.page(0)


def test_counts_are_those_of_each_person(people: People) -> None:
    people.add(people.create("Ann"), [SAMPLE])
    people.add(people.create("Bob"), [OTHER, replace(OTHER, start_ms=7)])
    described = {one.name: (one.faces, one.voices) for one in people.page(10).people}
    assert described == {"Ann": (0, 1), "Bob": (2, 0)}
    assert people.describe("Bob") == people.summary().people[1]


def test_merging_moves_every_sample_and_frees_the_name(people: People) -> None:
    ann, bob = people.create("Ann"), people.create("Bob")
    people.add(ann, [SAMPLE])
    people.add(bob, [OTHER])
    gone, target = people.merge("Ann", "Bob")
    assert (gone, target) == (ann.id, people.find("Bob")) and target.version == 3
    assert {owner for _, owner in people.samples()} == {bob.id}
    assert people.create("Ann").id != ann.id
    assert people.leaving() == []  # forgetting somebody else must not finish it
    with pytest.raises(UnknownPerson):
        people.find(ann.id)


def test_merging_again_gives_the_same_until_it_is_finished(people: People) -> None:
    ann, bob, cid = (people.create(name) for name in ("Ann", "Bob", "Cid"))
    assert people.merge(ann.id, "Bob") == people.merge(ann.id, "Bob") == (ann.id, bob)
    people.merge("Bob", "Cid")  # whoever was merged into Bob follows
    assert sorted(people.merging()) == sorted([(ann.id, cid.id), (bob.id, cid.id)])
    people.finish_merging(ann.id)
    with pytest.raises(UnknownPerson):
        people.merge(ann.id, "Cid")
    people.finish_merging(cid.id)  # nobody who is enrolled is removed
    assert people.find("Cid") == cid


def test_two_who_are_merged_into_each_other_at_once_leave_one(people: People) -> None:
    ann, bob = people.create("Ann"), people.create("Bob")
    people.add(ann, [SAMPLE])

    def merge(pair: tuple[str, str]) -> bool:
        try:
            people.merge(*pair)
        except UnknownPerson:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(merge, [(ann.id, bob.id), (bob.id, ann.id)])) == 1
    (left,) = people.everyone()
    assert people.samples() == [(SAMPLE, left.id)]


def test_nobody_is_merged_into_themselves(people: People) -> None:
    ann = people.create("Ann")
    with pytest.raises(SamePerson):
        people.merge("Ann", ann.id)


def test_forgetting_who_others_were_merged_into_leaves_no_mark_of_them(people: People) -> None:
    people.create("Ann")
    bob = people.create("Bob")
    people.merge("Ann", "Bob")
    people.begin_forgetting(people.find("Bob"))
    people.finish_forgetting(bob.id)
    assert people.merging() == []


def test_names_that_no_database_may_be_asked_for_are_unknown(people: People) -> None:
    with pytest.raises(UnknownPerson):
        people.find("a\x00b")
    with pytest.raises(NameRefused):
        people.create("a\x00b")


OLD_TABLES = """
CREATE TABLE people (id VARCHAR(32) NOT NULL, name TEXT NOT NULL, leaving BOOLEAN NOT NULL, created DATETIME NOT NULL,
    PRIMARY KEY (id));
CREATE UNIQUE INDEX people_name ON people (name) WHERE NOT leaving;
INSERT INTO people VALUES ('0123456789abcdef0123456789abcdef', 'Ann', 0, '2026-01-01 00:00:00.000000');
"""


def test_a_database_of_an_earlier_version_is_brought_up_to_date_once(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite'}")
    with database.begin() as connection:
        for statement in OLD_TABLES.strip().split(";")[:-1]:
            connection.execute(sql.text(statement))
    with ThreadPoolExecutor(4) as pool:  # as many processes may open it at a time
        (people, *_others) = pool.map(lambda _number: People(database), range(4))
    assert people.find("Ann").version == 1 and people.merging() == []
    assert people.rename("Ann", "Anna", 1).version == 2
    assert People(database).find("Anna").version == 2
