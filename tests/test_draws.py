"""The random draws: the published answers of Philox, Python against Rust bit for bit, positions, distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from chatterbox_turbo_rs import _core
from chatterbox_turbo_rs.engine import draws
from chatterbox_turbo_rs.errors import ArgumentError

SEEDS = [0, 7, 2**32 + 5, 2**64 - 1]
LAST = 2**64 - 1


@pytest.fixture(params=["python", "rust"])
def impl(request):
    class Rust:
        uniforms, normals, phases = _core.draws_uniforms, _core.draws_normals, _core.draws_phases

    return draws if request.param == "python" else Rust


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    """Known answers of the Random123 library (kat_vectors, philox 4x32, 10 rounds)."""
    found = draws._philox(tuple(np.array([word], np.uint64) for word in counter), tuple(key))
    assert [int(word[0]) for word in found] == words


@pytest.mark.parametrize("seed", SEEDS)
def test_python_and_rust_draw_the_same_bits(seed):
    for stream, start in ((draws.FLOW, 0), (draws.NOISE, 12_345), ("näme", 2**40 + 1)):
        mine, other = draws.normals(seed, stream, start, 28_000, 9), _core.draws_normals(seed, stream, start, 28_000, 9)
        assert mine.dtype == other.dtype == np.float32 and mine.shape == other.shape == (28_000, 9)
        assert np.array_equal(mine.view(np.uint32), other.view(np.uint32))
        mine, other = draws.uniforms(seed, stream, start, 100_001), _core.draws_uniforms(seed, stream, start, 100_001)
        assert mine.dtype == other.dtype == np.float64 and np.array_equal(mine, other)
    mine, other = draws.phases(seed, 9), _core.draws_phases(seed, 9)
    assert mine.dtype == other.dtype == np.float32 and np.array_equal(mine, other)


def test_pieces_have_seeds_of_their_own():
    """The first has the request's own; the others 64 bits of a stream of their own, the same in both languages for all time."""
    known = [7, 17473509858914523726, 2944590490012645703, 8107224742537672876]
    assert [draws.derived(7, index) for index in range(4)] == known
    for seed in SEEDS:
        mine = [draws.derived(seed, index) for index in (*range(1_000), 2**32, LAST - 1)]
        assert mine == [_core.draws_derived(seed, index) for index in (*range(1_000), 2**32, LAST - 1)]
        assert mine[0] == seed and len(set(mine)) == len(mine)
        bits = _core.draws_uniforms(seed, draws.SEGMENT, 1, 999) * 2.0**53
        assert [value >> 11 for value in mine[1:1_000]] == bits.astype(np.uint64).tolist()
    for seed, index in ((-1, 0), (2**64, 0), (0, -1), (0, LAST), (1.5, 0)):
        with pytest.raises(ArgumentError, match="expected"):
            draws.derived(seed, index)


def test_draws_do_not_depend_on_chunks(impl):
    whole = impl.normals(3, "vocoder.noise", 0, 4000, 9)
    edges = [0, 1, 2, 3, 10, 17, 1000, 1001, 3999, 4000]
    parts = [impl.normals(3, "vocoder.noise", a, b - a, 9) for a, b in zip(edges, edges[1:])]
    assert np.array_equal(whole, np.concatenate(parts))
    whole = impl.uniforms(3, "t3", 0, 4000)
    parts = [impl.uniforms(3, "t3", a, b - a) for a, b in zip(edges, edges[1:])]
    assert np.array_equal(whole, np.concatenate(parts))


def test_seeds_and_streams_are_independent(impl):
    keys = [(seed, stream) for seed in SEEDS for stream in ("t3", "flow", "vocoder.phase", "vocoder.noise")]
    draw = np.stack([impl.uniforms(seed, stream, 0, 4000) for seed, stream in keys])
    correlation = np.corrcoef(draw) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.08


def test_distributions(impl):
    values = impl.normals(5, "flow", 0, 12_500, 80).reshape(-1)
    assert len(values) == 1_000_000
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(values.mean()) < 4e-3 and abs(values.std() - 1) < 3e-3 and 4.5 < np.abs(values).max() < 6.8
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4e-3
    values = impl.uniforms(5, "t3", 0, 1_000_000)
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert values.min() >= 0 and values.max() < 1
    values = impl.phases(5, 100_000)
    assert values[0] == 0 and stats.kstest(values[1:], stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


def test_normals_are_box_muller():
    """Against the library's logarithm and cosine: the polynomials are right to the last bits of float64."""
    words = draws._philox(draws._counter(0, 250_000, draws._name("flow")), draws._key(9))
    radius = np.sqrt(-2 * np.log((words[0] + 0.5) / 2**32))
    angle = 2 * np.pi * (words[1] + 0.5) / 2**32
    values = draws.normals(9, "flow", 0, 250_000, 4)
    np.testing.assert_allclose(values[:, 0], radius * np.cos(angle), rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(values[:, 1], radius * np.sin(angle), rtol=1e-7, atol=1e-14)


def test_empty_draws(impl):
    assert impl.uniforms(0, "t3", 5, 0).shape == (0,)
    assert impl.normals(0, "flow", 5, 0, 80).shape == (0, 80)
    assert impl.normals(0, "flow", 5, 3, 0).shape == (3, 0)
    assert impl.phases(0, 0).shape == (0,)


def test_last_positions(impl):
    assert impl.uniforms(0, "t3", LAST - 1, 1).shape == (1,)
    for start, count in ((LAST, 2), (LAST - 1, 3)):
        with pytest.raises(ArgumentError, match="expected positions below 2"):
            impl.uniforms(0, "t3", start, count)
    with pytest.raises(ArgumentError, match="expected positions below 2"):
        impl.normals(0, "flow", LAST // 80 + 1, 1, 80)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", None])
def test_bad_seed(seed):
    with pytest.raises(ArgumentError, match="seed: expected a whole number from 0 to"):
        draws.uniforms(seed, "t3", 0, 1)
