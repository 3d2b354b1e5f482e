"""Counter-based random draws: every number is a function of (seed, stream name, absolute position) alone.

So a draw does not depend on chunking, batching, threads or the device. ``draws.rs`` gives the same numbers, bit for bit.

Generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is
the seed; the counter is the number of the block (low 64 bits) and the FNV-1a hash of the stream's name (high 64). A block
of four words makes two uniforms (53 bits) or four normals (Box-Muller, 32 bits each, so abs(z) < 6.8).

Logarithm, sine and cosine are polynomials here and in Rust: they use only operations that IEEE 754 rounds in one way,
while the libraries' own functions differ in the last bit between systems.
"""

from __future__ import annotations

import math
import operator

import numpy as np

from ..errors import ArgumentError

T3 = "t3"  # one uniform for each step of the token loop
FLOW = "flow"  # normals [frames, 80] that the flow starts from
PHASE = "vocoder.phase"  # one uniform phase for each harmonic of the vocoder's source
NOISE = "vocoder.noise"  # normals [samples, 9] of the vocoder's source
SEGMENT = "segment"  # the seed of each piece of a request that is computed in pieces

_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_CHUNK = 8192  # blocks at a time, so that the working set stays in the cache
_LOG = [1.0 / (2 * k + 1) for k in range(11)]
_SIN = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(9)]
_COS = [(-1.0) ** k / math.factorial(2 * k) for k in range(9)]


def uniforms(seed: int, stream: str, start: int, count: int) -> np.ndarray:
    """Uniforms in [0, 1) with 53 bits, float64 ``[count]``: positions ``start`` to ``start + count`` of ``stream``.

    Raises ``ArgumentError`` for a seed or position outside 0 to 2**64 - 1.
    """
    return (_bits(seed, stream, start, count) >> np.uint64(11)) * 2.0**-53


def normals(seed: int, stream: str, start_row: int, rows: int, cols: int) -> np.ndarray:
    """Standard normals, float32 ``[rows, cols]``: the rows from ``start_row`` of an endless matrix with ``cols`` columns.

    Raises ``ArgumentError`` for a seed or position outside 0 to 2**64 - 1.
    """
    rows, cols = _whole("rows", rows), _whole("cols", cols)
    start, count = _positions(_whole("start_row", start_row) * cols, rows * cols)
    first = start // 4
    blocks = -(-(start + count) // 4) - first
    key, name = _key(seed), _name(stream)
    values = np.empty((blocks, 4), np.float32)
    for at in range(0, blocks, _CHUNK):
        words = _philox(_counter(first + at, min(_CHUNK, blocks - at), name), key)
        values[at : at + _CHUNK, 0], values[at : at + _CHUNK, 1] = _pair(words[0], words[1])
        values[at : at + _CHUNK, 2], values[at : at + _CHUNK, 3] = _pair(words[2], words[3])
    skip = start - 4 * first
    return np.ascontiguousarray(values.reshape(-1)[skip : skip + count].reshape(rows, cols))


def phases(seed: int, count: int) -> np.ndarray:
    """The vocoder's initial phases in radians, float32 ``[count]`` (9): 0 for the fundamental, then uniform in (-pi, pi)."""
    values = ((_bits(seed, PHASE, 0, count) >> np.uint64(12)) + 0.5) * 2.0**-52
    values = ((2.0 * values - 1.0) * math.pi).astype(np.float32)
    values[:1] = 0.0
    return values


def derived(seed: int, index: int, stream: str = SEGMENT) -> int:
    """The seed that piece ``index`` of a request draws with: ``seed`` itself for the first one, so that a request of one piece
    has its own draws, else the 64 bits at position ``index`` of ``stream``.

    Raises ``ArgumentError`` for a seed or position outside 0 to 2**64 - 1.
    """
    bits = int(_bits(seed, stream, index, 1)[0])
    return bits if index else seed


def _bits(seed: int, stream: str, start: int, count: int) -> np.ndarray:
    """64 bits at each position; a block holds two."""
    start, count = _positions(_whole("start", start), _whole("count", count))
    first = start // 2
    a, b, c, d = _philox(_counter(first, -(-(start + count) // 2) - first, _name(stream)), _key(seed))
    both = np.stack([a | b << _32, c | d << _32], axis=1).reshape(-1)  # [2 * blocks]
    return both[start - 2 * first :][:count]


def _philox(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Ten rounds on four arrays of 32-bit words (kept in uint64)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = b >> _32 ^ c1 ^ np.uint64(k0), b & _MASK, a >> _32 ^ c3 ^ np.uint64(k1), a & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _counter(first: int, blocks: int, name: int) -> tuple[np.ndarray, ...]:
    index = np.arange(blocks, dtype=np.uint64) + np.uint64(first)
    low, high = np.full(blocks, name & 0xFFFFFFFF, np.uint64), np.full(blocks, name >> 32, np.uint64)
    return index & _MASK, index >> _32, low, high


def _pair(radius: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Box-Muller on two arrays of 32-bit words."""
    length = np.sqrt(-2.0 * _log((radius + 0.5) * 2.0**-32))
    # The angle's nearest quarter turn, and the rest in [-1/8, 1/8) of a turn.
    shifted = (angle + np.uint64(1 << 29)) & _MASK
    rest = ((shifted & np.uint64(0x3FFFFFFF)).astype(np.int64) - (1 << 29)) + 0.5
    x = rest * (math.pi / 2 * 2.0**-30)
    z = x * x
    sin, cos = x * _series(_SIN, z), _series(_COS, z)
    quarter = shifted >> np.uint64(30)
    odd = (quarter & np.uint64(1)).astype(bool)
    first, second = np.where(odd, sin, cos), np.where(odd, cos, sin)
    first = np.where((quarter == 1) | (quarter == 2), -first, first)
    second = np.where(quarter >= 2, -second, second)
    return (length * first).astype(np.float32), (length * second).astype(np.float32)


def _log(value: np.ndarray) -> np.ndarray:
    """Natural logarithm: exponent and mantissa, then 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(value)
    low = mantissa < math.sqrt(2.0) / 2
    mantissa, exponent = np.where(low, mantissa * 2.0, mantissa), exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * math.log(2.0) + 2.0 * s * _series(_LOG, s * s)


def _series(terms: list[float], z: np.ndarray) -> np.ndarray:
    total = np.full_like(z, terms[-1])
    for term in reversed(terms[:-1]):
        total *= z
        total += term
    return total


def _name(stream: str) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in stream.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _key(seed: int) -> tuple[int, int]:
    seed = _whole("seed", seed)
    return seed & 0xFFFFFFFF, seed >> 32


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise ArgumentError(f"{name}: expected a whole number from 0 to 2**64 - 1, got {value!r}")
    return number


def _positions(start: int, count: int) -> tuple[int, int]:
    if start + count >= 1 << 64:
        raise ArgumentError(f"start and count: expected positions below 2**64, got {start} + {count}")
    return start, count
