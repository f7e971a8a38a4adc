"""Where a space's rows lie in Milvus: collections, their generations, and the aliases that name them.

A space's rows are in ``<prefix>_<space>_<digest>_g<generation>``, reached through an alias of that name
without the generation, so that a rewrite can be switched in at once. Of the digest the first twelve digits
stand in the name; the whole of it is kept with the collection and compared before its first use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from encoders.space import Space, SpaceMismatch
from search.link import BATCH_ROWS, SLOW_SECONDS, Link
from search.records import FIELDS, LONGEST_EVIDENCE, LONGEST_ID

_HNSW = {"M": 16, "efConstruction": 128}  # twice as much doubles the time to build it, for no more right answers
_DIGEST = "visavox.digest"
_NAME = "visavox.space"  # tells the prefix from the space's name, where both have several words
_SHORT = 12  # digits of a digest in a name
_GENERATION = re.compile(rf"(?P<alias>(?P<stem>.+)_(?P<short>[0-9a-f]{{{_SHORT}}}))_g(?P<number>\d+)")


@dataclass(frozen=True)
class Holding:
    """A collection as it is found in an index.

    Args:
        collection: its name.
        space: name of the space that its own name gives.
        digest: of the space: 64 hex digits, or what was found in their place.
        dimension: of its vectors.
        current: whether its alias names it. If not, its making or a rewrite was interrupted.
    """

    collection: str
    space: str
    digest: str
    dimension: int
    current: bool

    def to_space(self) -> Space | None:
        """The space whose rows it holds; None if it is not in use, or holds no space's rows as it says."""
        try:
            space = Space(self.space, self.dimension, self.digest)
        except ValueError:
            return None
        named = f"_{self.space}_{space.digest[:_SHORT]}_g" in self.collection
        return space if self.current and named else None


def alias_of(prefix: str, space: Space) -> str:
    """The name under which a space's rows are reached."""
    return alias_named(prefix, space.name, space.digest)


def alias_named(prefix: str, name: str, digest: str) -> str:
    """The same, of a space by its name and digest."""
    return f"{prefix}_{name}_{digest[:_SHORT]}"


def reach(link: Link, alias: str, space: Space) -> str | None:
    """The alias of the space's collection, compared and loaded at first use; None if there is none.

    Raises:
        SpaceMismatch: the collection is of another space, or of another dimension.
    """
    if link.ready.get(alias) == _mark(space):
        return alias
    found = link.described(alias)
    if found is None:
        return None
    digest, dimension = _contents(found)
    if (digest, dimension) != (space.digest, space.dimension):
        raise SpaceMismatch(
            f"{found['collection_name']} holds {dimension}-d vectors of space {digest[:_SHORT]}, not those of "
            f"{space.name} ({space.digest[:_SHORT]}, {space.dimension}-d): use another prefix"
        )
    # A server that has just started takes half a minute for it; asked again it goes on where it was.
    link.client.load_collection(alias, timeout=link.timeout)
    link.ready[alias] = _mark(space)
    return alias


def ensure(link: Link, alias: str, space: Space) -> str:
    """The same, made if there is none."""
    if reach(link, alias, space) is None:
        if not link.can.shared:  # where others may write it might be what one of them is just making
            drop_generations(link, alias, but="")
        _make(link, f"{alias}_g1", space)
        link.client.create_alias(f"{alias}_g1", alias, timeout=link.timeout)
        link.ready[alias] = _mark(space)
    return alias


def rewrite(link: Link, alias: str, space: Space, without: set[str]) -> None:
    """Copy the survivors to a new generation, switch to it, remove the old one.

    Ended at any point, the alias names a complete generation; the next opening or rewrite removes the other.
    """
    old = link.client.describe_alias(alias, timeout=link.timeout)["collection_name"]
    new = f"{alias}_g{int(old.rpartition('_g')[2]) + 1}"
    drop_generations(link, alias, but=old)  # what a rewrite that failed left behind
    _make(link, new, space)
    batch: list[dict[str, Any]] = []
    for record in _survivors(link, alias, without):
        batch.append(record)
        if len(batch) == BATCH_ROWS:
            link.write(new, batch)
            batch = []
    link.write(new, batch)
    link.client.flush(new, timeout=SLOW_SECONDS)
    os.sync()  # the embedded index leaves its data files to the page cache
    link.client.alter_alias(new, alias, timeout=link.timeout)
    os.sync()
    link.client.drop_collection(old, timeout=SLOW_SECONDS)


def _survivors(link: Link, alias: str, without: set[str]) -> Iterator[dict[str, Any]]:
    source = link.iterator(alias, FIELDS, "")
    while batch := source.next():
        for record in batch:
            if record["key"] not in without:
                yield {name: record[name] for name in FIELDS}


def drop_all(link: Link, alias: str) -> None:
    """Drop everything of a space."""
    link.ready.pop(alias, None)
    if link.described(alias) is not None:
        link.client.drop_alias(alias, timeout=link.timeout)
    drop_generations(link, alias, but="")


def drop_generations(link: Link, alias: str, *, but: str) -> None:
    """Drop the collections of a space, all but one."""
    for name in link.collections():
        matched = _GENERATION.fullmatch(name)
        if matched and matched["alias"] == alias and name != but:
            link.client.drop_collection(name, timeout=SLOW_SECONDS)


def drop_leftovers(link: Link) -> None:
    """Finish interrupted rewrites: drop generations beside the one that an alias names."""
    for name in link.collections():
        matched = _GENERATION.fullmatch(name)
        current = link.described(matched["alias"]) if matched else None
        if current and current["collection_name"] != name:
            link.client.drop_collection(name, timeout=SLOW_SECONDS)


def aliases(link: Link, prefix: str, space: str) -> set[str]:
    """The aliases that spaces of a name have, or had before their making or dropping was interrupted."""
    found = (_GENERATION.fullmatch(name) for name in link.collections())
    return {matched["alias"] for matched in found if matched and matched["stem"] == f"{prefix}_{space}"}


def holdings(link: Link, prefix: str) -> list[Holding]:
    """Every collection whose name starts with a prefix and is of the form of ours, ordered by name."""
    held = []
    for name in sorted(link.collections()):
        matched = _GENERATION.fullmatch(name)
        if not matched or not matched["stem"].startswith(f"{prefix}_"):
            continue
        found, current = link.described(name), link.described(matched["alias"])
        space = matched["stem"].removeprefix(f"{prefix}_")
        if found is not None and found.get("properties", {}).get(_NAME, space) == space:
            digest, dimension = _contents(found)
            in_use = current is not None and current["collection_name"] == name
            held.append(Holding(name, space, digest, dimension, in_use))
    return held


def _contents(found: dict[str, Any]) -> tuple[str, int]:
    """(space digest, dimension) of a collection's vectors, by its description."""
    digest = str(found.get("properties", {}).get(_DIGEST, "unknown"))
    vectors = (each for each in found["fields"] if each["name"] == "vector")
    return digest, next((int(each["params"]["dim"]) for each in vectors), 0)


def _mark(space: Space) -> str:
    return f"{space.digest}/{space.dimension}"


def _make(link: Link, name: str, space: Space) -> None:
    """Make a collection, with its index, and load it; on a server, no trouble if it exists like that."""
    schema = link.client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", link.types.VARCHAR, max_length=LONGEST_ID, is_primary=True)
    schema.add_field("vector", link.types.FLOAT_VECTOR, dim=space.dimension)
    for text in ("modality", "media", "person"):
        schema.add_field(text, link.types.VARCHAR, max_length=LONGEST_ID)
    schema.add_field("evidence", link.types.VARCHAR, max_length=LONGEST_EVIDENCE)
    for number in ("track", "start_ms", "end_ms"):
        schema.add_field(number, link.types.INT64)
    schema.add_field("quality", link.types.FLOAT)
    index = link.client.prepare_index_params()
    shape: dict[str, Any] = {"params": _HNSW} if link.can.index_type == "HNSW" else {}
    index.add_index("vector", metric_type="COSINE", index_type=link.can.index_type, **shape)
    properties = {_DIGEST: space.digest, _NAME: space.name}
    link.client.create_collection(name, schema=schema, properties=properties, timeout=SLOW_SECONDS)
    # Not awaited: nothing is in it yet, and the client waits in steps of half a second.
    link.client.create_index(name, index, sync=False, timeout=SLOW_SECONDS)
    link.client.load_collection(name, timeout=SLOW_SECONDS)
