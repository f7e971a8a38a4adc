"""Fetching weights from a real server that breaks connections, from a hub's layout, and from folders."""

import hashlib
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.downloading import FetchRules, check_address
from encoders.fetching import LOCK_FILE, fetch_row, fetched_paths, read_lock, verify_fetched
from encoders.weights import HubFile, NetworkRow, UrlFile, WeightsError
from tests.encoders.weight_server import COMMIT, weight_server

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def row_of(*sources, name="net"):
    return NetworkRow(name, "net", (), 4, "nobody", "nothing", tuple(sources))


@pytest.fixture
def server():
    with weight_server() as running:
        running.files["/weights.pt"] = CONTENT
        yield running


@pytest.fixture
def rules(server):
    return FetchRules(hub=server.url, pause=0.0)


@pytest.fixture
def row(server):
    return row_of(UrlFile(f"{server.url}/weights.pt", "MIT"))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "weights"


def left_over(home):
    return sorted(path.name for path in home.rglob("*") if path.name.startswith(".") and path.name != ".fetching")


def test_a_file_is_fetched_once_and_pinned(row, home, rules, server):
    (first,) = fetch_row(row, home, rules)
    assert first.fetched and first.path.read_bytes() == CONTENT and left_over(home) == []
    entry = json.loads((home / LOCK_FILE).read_text())["files"]["net/weights.pt"]
    assert entry == {
        "source": f"{server.url}/weights.pt", "revision": None, "size": len(CONTENT), "sha256": SHA256,
    }  # fmt: skip
    (again,) = fetch_row(row, home, rules)
    assert not again.fetched and len(server.asked) == 1
    assert fetched_paths(row, home) == (first.path,)


def test_a_broken_connection_is_gone_on_with_where_it_broke(row, home, rules, server):
    server.breaks_after = [1_000_000, 500_000]
    (fetched,) = fetch_row(row, home, rules)
    assert fetched.path.read_bytes() == CONTENT
    assert [asked for _, _, asked in server.asked] == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(row, home, rules, server):
    server.breaks_after = [1_000_000]
    with pytest.raises(WeightsError, match=r"ended|closed|peer"):
        fetch_row(row, home, replace(rules, attempts=1))
    assert fetched_paths(row, home) is None and read_lock(home) == {}
    (fetched,) = fetch_row(row, home, rules)
    assert fetched.path.read_bytes() == CONTENT and server.asked[-1][2] == "bytes=1000000-"


def test_a_file_that_was_complete_but_not_yet_named_is_not_fetched_again(row, home, rules, server):
    fetch_row(row, home, replace(rules))
    server.breaks_after = [len(CONTENT) - 1]
    other = home.with_name("other")
    with pytest.raises(WeightsError):
        fetch_row(row, other, replace(rules, attempts=1))
    with (other / "net" / ".weights.pt.part").open("ab") as stream:
        stream.write(CONTENT[-1:])
    (fetched,) = fetch_row(row, other, rules)
    assert fetched.path.read_bytes() == CONTENT and server.asked[-1][2] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize("change", [{"tag": '"second"'}, {"tag": None}, {"ranges": False}, {"tag": 'W/"weak"'}])
def test_what_cannot_be_gone_on_with_is_fetched_anew(row, home, rules, server, change):
    if "tag" in change and change["tag"] != '"second"':
        server.tag = change["tag"]
    server.breaks_after = [1_000_000]
    with pytest.raises(WeightsError):
        fetch_row(row, home, replace(rules, attempts=1))
    server.files["/weights.pt"] = newer = CONTENT[::-1]
    for name, value in change.items():
        setattr(server, name, value)
    (fetched,) = fetch_row(row, home, rules)
    assert fetched.path.read_bytes() == newer


def test_a_server_that_is_busy_is_asked_again_and_one_that_stays_so_is_given_up(row, home, rules, server):
    server.statuses = [503, 429]
    assert fetch_row(row, home, rules)[0].fetched
    server.statuses = [503] * 3
    with pytest.raises(WeightsError, match=r"HTTP 503.*pull again.*--from"):
        fetch_row(row, home.with_name("other"), replace(rules, attempts=3))


@pytest.mark.parametrize(("status", "words"), [(404, "was not found"), (403, "accept its terms")])
def test_refusals_say_what_to_do(row, home, rules, server, status, words):
    server.statuses = [status]
    with pytest.raises(WeightsError, match=rf"{words}.*--from"):
        fetch_row(row, home, rules)


def test_without_a_network_the_message_says_so(home, rules):
    with weight_server() as gone:
        url = gone.url
    with pytest.raises(WeightsError, match=r"is there a network\?.*--from"):
        fetch_row(row_of(UrlFile(f"{url}/weights.pt", "MIT")), home, replace(rules, attempts=2))


def test_another_content_than_published_is_refused_and_not_kept(server, home, rules):
    row = row_of(UrlFile(f"{server.url}/weights.pt", "MIT", "0" * 64))
    with pytest.raises(WeightsError, match=rf"has SHA-256 {SHA256}, but the table of networks names 0000"):
        fetch_row(row, home, rules)
    assert left_over(home) == [] and read_lock(home) == {}


def test_another_content_than_pinned_is_refused_from_wherever_it_comes(row, home, rules, server, tmp_path):
    (fetched,) = fetch_row(row, home, rules)
    fetched.path.unlink()
    server.files["/weights.pt"] = b"other"
    with pytest.raises(WeightsError, match=r"weights\.lock\.json pinned at the first use"):
        fetch_row(row, home, rules)
    (tmp_path / "weights.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match="pinned at the first use"):
        fetch_row(row, home, rules, str(tmp_path))
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    assert fetch_row(row, home, rules, str(tmp_path))[0].locked == fetched.locked


def test_a_hubs_branch_is_pinned_to_its_commit_and_its_published_hash_is_checked(home, rules, server):
    server.serve_hub("people/net", "sub/model.ckpt", CONTENT)
    server.serve_hub("people/net", "config.json", b"{}", large=False)
    row = row_of(HubFile("people/net", "sub/model.ckpt", "MIT"), HubFile("people/net", "config.json", "MIT"))
    first, second = fetch_row(row, home, rules)
    assert first.path == home / "net" / "model.ckpt" and second.path.read_bytes() == b"{}"
    assert (first.locked.source, first.locked.revision) == ("people/net/sub/model.ckpt", COMMIT)
    assert ("GET", f"/people/net/resolve/{COMMIT}/sub/model.ckpt", None) in server.asked
    first.path.unlink()
    fetch_row(row, home, rules)
    assert ("HEAD", f"/people/net/resolve/{COMMIT}/sub/model.ckpt", None) in server.asked


def test_a_hub_that_delivers_other_bytes_than_it_publishes_is_refused(home, rules, server):
    server.serve_hub("people/net", "model.ckpt", CONTENT)
    server.files[f"/store/{SHA256}"] = CONTENT[::-1]
    with pytest.raises(WeightsError, match=rf"publishes {SHA256}"):
        fetch_row(row_of(HubFile("people/net", "model.ckpt", "MIT")), home, rules)


def test_what_is_no_hub_is_told_apart_from_a_missing_file(home, rules, server):
    server.files["/people/net/answer"] = b""
    server.redirects["/people/net/resolve/main/model.ckpt"] = f"{server.url}/people/net/answer"
    with pytest.raises(WeightsError, match="does not answer as a model hub"):
        fetch_row(row_of(HubFile("people/net", "model.ckpt", "MIT")), home, rules)
    with pytest.raises(WeightsError, match="was not found"):
        fetch_row(row_of(HubFile("people/net", "absent.ckpt", "MIT")), home, rules)


def test_files_come_from_a_folder_a_file_or_an_address_instead(row, home, rules, server, tmp_path):
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    for number, origin in enumerate((tmp_path, tmp_path / "weights.pt")):
        (fetched,) = fetch_row(row, home / str(number), replace(rules, offline=True), str(origin))
        assert fetched.locked.source == "local" and fetched.path.read_bytes() == CONTENT
    server.files["/mirror/weights.pt"] = CONTENT
    for number, origin in enumerate(("/mirror/", "/mirror/weights.pt?signature=secret")):
        (fetched,) = fetch_row(row, home / f"mirror{number}", rules, server.url + origin)
        assert fetched.locked.source == f"{server.url}/mirror/weights.pt"


def test_offline_nothing_is_fetched_but_what_is_here_is_used(row, home, rules, server):
    with pytest.raises(WeightsError, match=r"is offline.*--from"):
        fetch_row(row, home, replace(rules, offline=True))
    fetch_row(row, home, rules)
    seen = len(server.asked)
    assert not fetch_row(row, home, replace(rules, offline=True))[0].fetched and len(server.asked) == seen


@pytest.mark.parametrize("way", ["announced", "unannounced", "local"])
def test_a_file_larger_than_allowed_is_refused(row, home, rules, server, tmp_path, way):
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    server.lengths = way != "unannounced"
    with pytest.raises(WeightsError, match="at most 2000000 are taken"):
        fetch_row(row, home, replace(rules, most_bytes=2_000_000), str(tmp_path) if way == "local" else None)
    assert fetched_paths(row, home) is None


def test_a_file_of_unknown_length_is_fetched(row, home, rules, server):
    server.lengths = False
    assert fetch_row(row, home, rules)[0].path.read_bytes() == CONTENT


def test_a_server_that_sends_a_range_piece_by_piece_is_asked_for_every_piece(row, home, rules, server):
    server.breaks_after, server.most_at_once = [1_000_000], 800_000
    assert fetch_row(row, home, rules)[0].path.read_bytes() == CONTENT
    assert [asked for _, _, asked in server.asked][-1] == "bytes=2600000-"


def test_a_full_disk_is_told(row, home, rules, tmp_path):
    (home / "net").mkdir(parents=True)
    (home / "net" / ".weights.pt.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="the disk is full"):
        fetch_row(row, home, rules)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.pt", "ftp://127.0.0.1/a.pt", "file:///etc/passwd", "https://me:secret@example.org/a", "a"],
)
def test_weights_are_fetched_by_https_only_and_passwords_are_not_written_down(url):
    with pytest.raises(WeightsError) as caught:
        check_address(url)
    assert "secret" not in str(caught.value)


def test_plain_http_is_for_this_machine_and_not_where_an_https_address_leads():
    assert check_address("http://127.0.0.1:9/a").port == check_address("http://[::1]:9/a").port == 9
    with pytest.raises(WeightsError, match="https only"):
        check_address("http://127.0.0.1/a", local=False)


@pytest.mark.parametrize("target", ["http://example.org/a.pt", "file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_a_redirect_to_another_scheme_is_not_followed(row, home, rules, server, target):
    server.redirects["/weights.pt"] = target
    with pytest.raises(WeightsError, match="https only"):
        fetch_row(row, home, rules)


def test_a_circle_of_redirects_ends(row, home, rules, server):
    server.redirects["/weights.pt"] = f"{server.url}/weights.pt"
    with pytest.raises(WeightsError, match="without end"):
        fetch_row(row, home, rules)


def test_packed_bytes_are_refused(row, home, rules, server):
    server.encoding = "gzip"
    with pytest.raises(WeightsError, match="packed bytes"):
        fetch_row(row, home, rules)


def test_progress_ends_with_the_whole_file(row, home, rules):
    told = []
    fetch_row(row, home, replace(rules, on_progress=lambda *said: told.append(said)))
    assert told[-1] == ("weights.pt", len(CONTENT), len(CONTENT)) and len(told) >= 2


def test_verifying_names_what_is_wrong_with_each_file(row, home, rules):
    (fetched,) = fetch_row(row, home, rules)
    assert verify_fetched(home, "net") == {"net/weights.pt": None}
    fetched.path.write_bytes(CONTENT[:-1] + b"?")
    assert "SHA-256" in verify_fetched(home, "net")["net/weights.pt"]
    fetched.path.write_bytes(b"short")
    assert "bytes" in verify_fetched(home, "net")["net/weights.pt"]
    fetched.path.unlink()
    assert "missing" in verify_fetched(home, "net")["net/weights.pt"]
    assert verify_fetched(home, "other") == {}


def test_a_damaged_file_is_fetched_again(row, home, rules):
    (fetched,) = fetch_row(row, home, rules)
    fetched.path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch_row(row, home, rules)[0].fetched and fetched.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"format": 2}', '{"format": 1, "files": {"../a": {}}}', '{"format": 1, "files": {"a/b": {}}}'],
)
def test_a_damaged_lock_file_says_what_to_do(row, home, content):
    home.mkdir()
    (home / LOCK_FILE).write_text(content)
    with pytest.raises(WeightsError, match=r"weights\.lock\.json.*(restore it, or remove it)"):
        fetched_paths(row, home)


def test_a_row_without_sources_and_a_folder_without_the_file_are_told(home, rules, row, tmp_path):
    with pytest.raises(WeightsError, match="has no weights to fetch: nobody"):
        fetch_row(row_of(), home, rules)
    with pytest.raises(WeightsError, match=r"holds no weights\.pt"):
        fetch_row(row, home, rules, str(tmp_path))
    with pytest.raises(WeightsError, match="does not exist"):
        fetch_row(row, home, rules, str(tmp_path / "absent"))
    two = row_of(*row.sources, UrlFile("https://example.org/other.pt", "MIT"))
    (tmp_path / "weights.pt").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"2 files: give the folder that holds weights\.pt, other\.pt"):
        fetch_row(two, home, rules, str(tmp_path / "weights.pt"))


def fetch_in_a_child(url: str, home: Path) -> None:
    fetch_row(row_of(UrlFile(url, "MIT")), home, FetchRules(pause=0.0))


def test_two_processes_that_fetch_at_once_fetch_once(server, home):
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=fetch_in_a_child, args=(f"{server.url}/weights.pt", home)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(server.asked) == 1 and (home / "net" / "weights.pt").read_bytes() == CONTENT
