"""Keys: what is kept of them, who is let in, and how soon a revoked one is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.transactions import RecordsError
from search.access import FRESH_SECONDS, Keys, Role, UnknownKey


class Clock:
    """Time that passes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def keys(database: Engine) -> Keys:
    return Keys(database)


def statements(database: Engine) -> list[str]:
    """Every statement that the database is sent from here on."""
    seen: list[str] = []
    sql.event.listen(database, "before_cursor_execute", lambda _c, _k, statement, *_rest: seen.append(statement))
    return seen


def test_a_secret_names_its_key_and_holds_256_random_bits(keys: Keys) -> None:
    made = [keys.create("a camera", Role.READER) for _ in range(20)]
    for identity, secret in made:
        assert re.fullmatch(rf"vvx_{identity}_[0-9a-f]{{64}}", secret)
    assert len({secret[-64:] for _, secret in made}) == 20


def test_only_a_hash_of_the_secret_is_kept(keys: Keys, database_bytes: Callable[[], bytes]) -> None:
    _, secret = keys.create("a camera", Role.READER)
    stored = database_bytes()
    assert secret.encode() not in stored and secret[-64:].encode() not in stored
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in stored


def test_a_key_is_known_by_its_whole_secret_only(keys: Keys) -> None:
    identity, secret = keys.create("a camera", Role.EDITOR)
    _, other = keys.create("another", Role.ADMIN)
    found = keys.check(secret)
    assert found is not None and (found.id, found.role, found.label) == (identity, Role.EDITOR, "a camera")
    swapped = secret[:-64] + other[-64:]
    for wrong in ("", "x", secret[:-1], secret + "0", secret.upper(), secret[:-1] + "g", swapped, f"{secret}\n"):
        assert keys.check(wrong) is None
    assert keys.check(secret) is not None


def test_a_secret_that_is_wrong_stays_wrong_while_the_right_one_is_remembered(keys: Keys) -> None:
    _, secret = keys.create("a camera", Role.READER)
    assert keys.check(secret) and keys.remembered(secret)
    assert keys.remembered(secret[:-1] + ("0" if secret[-1] != "0" else "1")) is None


def test_a_key_that_works_asks_the_records_once_in_a_while(database: Engine) -> None:
    keys = Keys(database, clock := Clock())
    _, secret = keys.create("a camera", Role.READER)
    keys.check(secret)
    seen = statements(database)
    assert all(keys.check(secret) for _ in range(50)) and not seen
    clock.now = FRESH_SECONDS + 0.1
    assert keys.check(secret) and len(seen) == 1


def test_what_another_process_revokes_stops_working_within_seconds(database: Engine) -> None:
    server, command = Keys(database, clock := Clock()), Keys(database)
    identity, secret = command.create("a camera", Role.READER)
    assert server.check(secret)
    assert command.revoke(identity).revoked is not None
    clock.now = FRESH_SECONDS + 0.1
    assert server.check(secret) is None and command.check(secret) is None


def test_revoking_twice_keeps_the_first_moment_and_revoking_nothing_is_an_error(keys: Keys) -> None:
    identity, _ = keys.create("a camera", Role.READER)
    assert keys.revoke(identity).revoked == keys.revoke(identity).revoked
    for unknown in ("0123456789ab", "x\0y"):
        with pytest.raises(UnknownKey, match="keys list"):
            keys.revoke(unknown)


def test_revoking_the_last_key_does_not_open_the_door(keys: Keys) -> None:
    assert not keys.exist()
    identity, _ = keys.create("a camera", Role.READER)
    keys.revoke(identity)
    assert keys.exist()


def test_the_last_use_is_noted_without_a_write_for_every_request(database: Engine) -> None:
    keys = Keys(database, clock := Clock())
    _, secret = keys.create("a camera", Role.READER)
    assert keys.all()[0].last_used is None
    seen = statements(database)
    for moment in range(10):
        clock.now = moment * (FRESH_SECONDS + 0.1)
        keys.check(secret)
    assert keys.all()[0].last_used is not None
    assert sum(statement.startswith("UPDATE") for statement in seen) == 1


def test_records_that_do_not_answer_let_nobody_in_for_long(database: Engine) -> None:
    keys = Keys(database, clock := Clock())
    _, secret = keys.create("a camera", Role.READER)
    keys.check(secret)
    with database.begin() as connection:
        connection.execute(sql.text("DROP TABLE api_keys"))
    assert keys.check(secret)
    clock.now = FRESH_SECONDS + 0.1
    with pytest.raises(RecordsError):
        keys.check(secret)


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "x" * 101])
def test_a_label_is_a_line_that_one_can_read(keys: Keys, label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        keys.create(label, Role.READER)
    assert keys.all() == []


def test_each_role_may_do_what_the_ones_before_it_may() -> None:
    allowed = {(str(has), str(needs)) for has in Role for needs in Role if has.allows(needs)}
    assert allowed == {
        ("reader", "reader"), ("editor", "reader"), ("editor", "editor"),
        ("admin", "reader"), ("admin", "editor"), ("admin", "admin"),
    }  # fmt: skip
