"""The OpenAPI document is whole: whatever a route takes and gives is described, with an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from search.api.app import create_app
from search.api.problems import INTERNAL, INVALID, KINDS, MEDIA_TYPE, Kind
from search.idempotency import IdempotencyMismatch, RequestRunning
from search.people import PreconditionFailed
from tests.search.api_house import House

WITHOUT_KEY = {"/healthz"}
# exceptions that only jobs end with, not requests
NOT_ANSWERED = {"cancelled"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    house = House(tmp_path_factory.mktemp("document"))
    return create_app(house.services, house.limits).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def has_example(holder: dict[str, Any]) -> bool:
    """Whether a media type or parameter has an example, of its own or in its schema."""
    schema = holder.get("schema", {})
    return bool(holder.keys() & {"example", "examples"} or schema.keys() & {"example", "examples"})


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema in which references find what they mean."""
    return schema | {"components": document["components"]}


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    jsonschema_rs.validator_for(OPENAPI_31).validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_route_says_what_it_is_for(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"] and operation["description"] and operation["tags"], (method, path)


def test_every_parameter_and_body_has_a_description_or_fields_and_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"] and has_example(parameter), (method, path, parameter["name"])
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            reference = body["schema"].get("$ref", "").rsplit("/", 1)[-1]
            fields = document["components"]["schemas"].get(reference, {}).get("properties", {})
            shown = has_example(body) or (fields and all(has_example({"schema": one}) for one in fields.values()))
            assert shown, (method, path, kind)


def test_every_success_has_an_example_that_its_schema_admits(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        good = {status: one for status, one in operation["responses"].items() if status < "300"}
        assert good, (method, path)
        for status, answer in good.items():
            assert answer.get("content") or method == "head", (method, path, status)
            for kind, content in answer.get("content", {}).items():
                assert has_example(content), (method, path, status, kind)
                if kind == "application/json":
                    schema = resolved(document, content["schema"])
                    jsonschema_rs.validator_for(schema).validate(content["example"])


def test_every_problem_is_a_problem_document_with_an_example_of_each_kind(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        bad = {status: one for status, one in operation["responses"].items() if status >= "400"}
        for status, answer in bad.items():
            ((kind, content),) = answer["content"].items()
            assert kind == MEDIA_TYPE and answer["description"], (method, path, status)
            for example in content["examples"].values():
                jsonschema_rs.validator_for(content["schema"]).validate(example["value"])
                assert str(example["value"]["status"]) == status and example["value"]["detail"] not in ("", "…")


def names(operation: dict[str, Any]) -> set[str]:
    """Kinds of problems that an operation tells of."""
    return {
        name
        for status, answer in operation["responses"].items()
        if status >= "400"
        for name in answer["content"][MEDIA_TYPE]["examples"]
    }


def test_what_any_request_may_meet_is_told_by_every_route(document: dict[str, Any]) -> None:
    always = {INVALID.name, INTERNAL.name, "host-refused"}
    for method, path, operation in operations(document):
        expected = always if path in WITHOUT_KEY else always | {"unauthenticated", "forbidden"}
        if "requestBody" in operation:
            expected = expected | {"malformed", "too-large", "no-room", "cross-site"}
        assert expected <= names(operation), (method, path)


def test_every_kind_of_problem_is_told_by_some_route(document: dict[str, Any]) -> None:
    told = set().union(*(names(operation) for _, _, operation in operations(document)))
    assert {one.name for one in KINDS.values()} - told == NOT_ANSWERED


@pytest.mark.parametrize(
    ("error", "expected"),
    [(PreconditionFailed, 412), (IdempotencyMismatch, 422), (RequestRunning, 409)],
)
def test_conditions_and_keys_have_the_statuses_that_others_count_on(error: type[Exception], expected: int) -> None:
    assert KINDS[error].status == expected


def test_a_kind_without_a_name_is_about_blank() -> None:
    assert Kind("", 400, "Bad Request", "no").type == "about:blank"


def test_links_lead_to_operations_and_parameters_that_there_are(document: dict[str, Any]) -> None:
    known = {one["operationId"]: one for _, _, one in operations(document)}
    found = 0
    for _, _, operation in operations(document):
        for answer in operation["responses"].values():
            for link in answer.get("links", {}).values():
                parameters = {one["name"] for one in known[link["operationId"]]["parameters"]}
                assert set(link["parameters"]) <= parameters
                found += 1
    assert found >= 7
