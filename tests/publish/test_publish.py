"""The retained messages of a task: what must be on the broker, and what may go."""

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.publish.retained import CHUNK_BYTES, KEEP_S, KEEP_VERSIONS, blob_of, chunks, cleared, head, served
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 500)), max_size=12), st.floats(0, 3000))
def test_served(steps: list[tuple[str, float]], later: float) -> None:
    created, time = [], 0.0
    for digest, pause in steps:
        time += pause
        created.append((digest, time))
    now = time + later
    stay, go = served(created, now)
    assert set(stay) | set(go) == {digest for digest, _ in created}
    assert not set(stay) & set(go)
    for i, (digest, _) in enumerate(created):
        recent = i >= len(created) - KEEP_VERSIONS
        if recent or now - created[i + 1][1] < KEEP_S:
            assert digest in stay
    if later > KEEP_S:
        assert set(stay) == {digest for digest, _ in created[-KEEP_VERSIONS:]}


def test_a_version_stays_ten_minutes_after_its_successor() -> None:
    created = [("a", 0.0), ("b", 100.0), ("c", 110.0), ("d", 120.0), ("e", 130.0)]
    assert served(created, 699.9) == (["a", "b", "c", "d", "e"], [])
    assert served(created, 700.0) == (["b", "c", "d", "e"], ["a"])
    assert served(created, 710.0) == (["c", "d", "e"], ["a", "b"])
    assert served(created, 1e9) == (["c", "d", "e"], ["a", "b"])


def test_parameters_that_came_back_are_not_taken_away() -> None:
    assert served([("a", 0.0), ("b", 1.0), ("c", 2.0), ("a", 3.0)], 1e9) == (["b", "c", "a"], [])


def test_chunks_are_the_content() -> None:
    for size in (1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES):
        content = bytes(i % 251 for i in range(size))
        blob = blob_of("ab" * 32, size)
        published = list(chunks("t", blob, content))
        assert b"".join(payload for _, payload in published) == content
        assert [topics.parse(topic).rest for topic, _ in published] == [("ab" * 32, str(i)) for i in range(blob.chunks)]
        assert all(0 < len(payload) <= CHUNK_BYTES for _, payload in published)
        assert list(cleared("t", blob)) == [(topic, b"") for topic, _ in published]


def test_the_head_is_the_announcement() -> None:
    announced = Announcement(
        "t", 0, "00" * 8, "1e" * 8, 1, blob_of("ab" * 32, 40), blob_of("cd" * 32, 9), "ef" * 32, 10
    )
    topic, payload = head(announced)
    assert topic == "edge/v1/t/head"
    assert announcement.decode(payload) == announced
