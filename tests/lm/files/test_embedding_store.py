"""What was encoded is found again: by another process, after a kill, in any order."""

import numpy as np
import pytest

from lm.files.embedding_store import CHECK, KEY, EmbeddingStore, StoredRows


def some(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, KEY), dtype=np.uint8), rng.standard_normal((n, 3)).astype(np.float32)


def test_vectors_come_back_by_key(tmp_path):
    store = EmbeddingStore(tmp_path / "store", 3)
    keys, vectors = some(10)
    keys[3, -4:] = 0  # keys may end in zero bytes
    assert (store.find(keys) == -1).all()
    assert not (tmp_path / "store").exists()
    store.append(keys[:4], vectors[:4])
    store.append(keys[4:8], vectors[4:8])
    store.reload()
    places = store.find(keys)
    assert (places[8:] == -1).all()
    np.testing.assert_array_equal(store.take(places[:8]), vectors[:8])
    rows = StoredRows(store, places[[5, 0, 7]])
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[np.array([2, 0, 0])], vectors[[7, 5, 5]])


def test_parts_of_several_processes_are_one_store(tmp_path):
    keys, vectors = some(9)
    for part in (slice(0, 4), slice(4, 9)):
        EmbeddingStore(tmp_path, 3).append(keys[part], vectors[part])
    store = EmbeddingStore(tmp_path, 3)
    np.testing.assert_array_equal(store.take(store.find(keys[::-1])), vectors[::-1])
    assert len(list(tmp_path.glob("*.keys"))) == 2


def test_a_kill_at_any_byte_loses_only_what_was_being_written(tmp_path):
    keys, vectors = some(5)
    EmbeddingStore(tmp_path, 3).append(keys, vectors)
    (key_file,), (vector_file,) = tmp_path.glob("*.keys"), tmp_path.glob("*.vectors")
    whole = key_file.read_bytes(), vector_file.read_bytes()
    for cut in range(len(whole[1]) + 1):  # vectors are written first
        vector_file.write_bytes(whole[1][:cut])
        key_file.write_bytes(b"" if cut < len(whole[1]) else whole[0])
        kept = EmbeddingStore(tmp_path, 3).find(keys)
        assert (kept >= 0).sum() == (5 if cut == len(whole[1]) else 0)
    for cut in range(len(whole[0])):
        key_file.write_bytes(whole[0][:cut])
        store = EmbeddingStore(tmp_path, 3)
        places = store.find(keys)
        assert (places >= 0).tolist() == [row < cut // (KEY + CHECK) for row in range(5)]
        np.testing.assert_array_equal(store.take(places[places >= 0]), vectors[: cut // (KEY + CHECK)])


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


DAMAGES = {
    "zeroed": zeroed,
    "one page zeroed": lambda content: content[:12] + zeroed(content[12:24]) + content[24:],
    "one bit flipped": lambda content: content[:13] + bytes([content[13] ^ 1]) + content[14:],
    "last byte flipped": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
    "cut": lambda content: content[: len(content) // 2],
    "cut within a row": lambda content: content[:-3],
    "shifted": lambda content: content[4:] + content[:4],
    "turned round": lambda content: content[::-1],
    "emptied": lambda content: b"",
    "twice": lambda content: content * 2,
    "filled": lambda content: b"\xff" * len(content),
}


@pytest.mark.parametrize("suffix", ["keys", "vectors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_as_it_was_written_is_not_found_and_heals(tmp_path, suffix, damage):
    keys, vectors = some(40)
    EmbeddingStore(tmp_path, 3).append(keys, vectors)
    (file,) = tmp_path.glob(f"*.{suffix}")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    store = EmbeddingStore(tmp_path, 3)
    places = store.find(keys)
    np.testing.assert_array_equal(store.take(places[places >= 0]), vectors[places >= 0])
    assert (places < 0).any() or damage == "twice"
    lacking = places < 0
    store.append(keys[lacking], vectors[lacking])
    store.sync()
    healed = EmbeddingStore(tmp_path, 3)
    np.testing.assert_array_equal(healed.take(healed.find(keys)), vectors)


def test_a_part_without_its_vectors_is_passed_over(tmp_path):
    keys, vectors = some(4)
    EmbeddingStore(tmp_path, 3).append(keys, vectors)
    next(tmp_path.glob("*.vectors")).unlink()
    assert (EmbeddingStore(tmp_path, 3).find(keys) == -1).all()


def test_damage_is_counted_once(tmp_path):
    keys, vectors = some(40)
    EmbeddingStore(tmp_path, 3).append(keys, vectors)
    (file,) = tmp_path.glob("*.vectors")
    file.write_bytes(zeroed(file.read_bytes()[: 7 * 12]) + file.read_bytes()[7 * 12 :])
    store = EmbeddingStore(tmp_path, 3)
    for _ in range(2):
        assert (store.find(keys) < 0).sum() == 7
    assert store.damaged == 7


def test_vectors_whose_keys_are_still_to_come_are_passed_over(tmp_path):
    """As another process finds the store while this one writes to it for the first time."""
    keys, vectors = some(5)
    EmbeddingStore(tmp_path, 3).append(keys[:2], vectors[:2])
    (key_file,) = tmp_path.glob("*.keys")
    key_file.unlink()
    store = EmbeddingStore(tmp_path, 3)
    assert (store.find(keys) == -1).all()
    store.append(keys[2:], vectors[2:])
    store.reload()
    assert (store.find(keys) >= 0).tolist() == [False, False, True, True, True]
