"""The promises of `store.ObjectStore`, kept by both implementations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from luthier_artifacts import ObjectNotFound, PreconditionFailed, open_store
from luthier_artifacts.errors import IntegrityError
from luthier_artifacts.store import ObjectStore


@pytest.fixture
def store(storage) -> ObjectStore:
    return open_store(storage.uri, storage.config)


def test_what_is_written_is_read_with_the_same_etag_everywhere(store: ObjectStore) -> None:
    etag = store.write("a/b", b"12345")
    assert store.read("a/b") == (b"12345", etag)
    assert (store.stat("a/b").size, store.stat("a/b").etag) == (5, etag)
    assert [(info.key, info.size, info.etag) for info in store.list()] == [("a/b", 5, etag)]
    assert store.write("a/b", b"54321") != etag


def test_a_condition_that_does_not_hold_refuses_the_write_and_changes_nothing(store: ObjectStore) -> None:
    with pytest.raises(PreconditionFailed):
        store.write("x", b"0", if_match="0" * 32)
    first = store.write("x", b"1", if_absent=True)
    with pytest.raises(PreconditionFailed):
        store.write("x", b"2", if_absent=True)
    second = store.write("x", b"2", if_match=first)
    with pytest.raises(PreconditionFailed):
        store.write("x", b"3", if_match=first)
    assert store.read("x") == (b"2", second)


def test_of_sixteen_writers_at_once_one_creates(store: ObjectStore) -> None:
    def create(number: int) -> bool:
        try:
            store.write("x", str(number).encode(), if_absent=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert sum(won) == 1
    assert store.read("x")[0] == str(won.index(True)).encode()


def test_no_increment_is_lost_when_eight_writers_compare_and_swap(store: ObjectStore) -> None:
    store.write("count", b"0")

    def increment(_: int) -> None:
        while True:
            data, etag = store.read("count")
            try:
                store.write("count", str(int(data) + 1).encode(), if_match=etag)
                return
            except PreconditionFailed:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(32)))
    assert store.read("count")[0] == b"32"


def test_ranges_end_where_the_object_ends(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "big").write_bytes(data)
    seen: list[int] = []
    store.upload({"big": tmp_path / "big"}, seen.append)
    assert sum(seen) == len(data)
    for start, length in ((0, 10), (5, 1), (255_990, 10), (255_990, 100), (0, 10**9)):
        with store.read_range("big", start, length) as body:
            assert body.total_size == len(data)
            assert b"".join(body.chunks) == data[start : start + length]
    with pytest.raises(IntegrityError, match="shorter"):
        store.read_range("big", len(data), 10)


def test_a_range_of_an_object_that_changed_is_refused(store: ObjectStore) -> None:
    etag = store.write("x", b"old")
    with store.read_range("x", 0, 3, etag=etag) as body:
        assert b"".join(body.chunks) == b"old"
    store.write("x", b"new")
    with pytest.raises(PreconditionFailed):
        store.read_range("x", 0, 3, etag=etag)


def test_listing_a_folder_leaves_out_its_neighbours(store: ObjectStore) -> None:
    for key in ("a/1", "a/sub/2", "ab/3", "a-b/4", "c"):
        store.write(key, b"")
    assert [info.key for info in store.list("a")] == ["a/1", "a/sub/2"]
    assert {info.key for info in store.list()} == {"a/1", "a/sub/2", "ab/3", "a-b/4", "c"}
    assert list(store.list("nothing")) == []


def test_a_listing_is_longer_than_one_page(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, b""), keys))
    assert [info.key for info in store.list("many")] == keys
    store.delete(keys)
    assert list(store.list("many")) == []


def test_deleting_twice_is_fine_and_what_is_gone_is_not_found(store: ObjectStore) -> None:
    store.write("a/b/c", b"")
    store.delete(["a/b/c", "never/there"])
    store.delete(["a/b/c"])
    for read in (store.read, store.stat, lambda key: store.read_range(key, 0, 1)):
        with pytest.raises(ObjectNotFound, match="a/b/c does not exist"):
            read("a/b/c")


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    store.write("a/b", b"")
    with pytest.raises(ObjectNotFound):
        store.read("a")
    with pytest.raises(ObjectNotFound):
        store.stat("a")
