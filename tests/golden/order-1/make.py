#!/usr/bin/env python3
"""Random numbers and the order of samples, computed by a second program.

    cd tests/golden/order-1 && python3 make.py

Philox4x32-10 is written from Salmon et al. 2011; the first line checks it with the authors' known answer. Everything a run
draws hangs on these values: if one changes, a resumed run sees other rows and a seed gives another model.
"""
M32 = 0xFFFFFFFF
ORDER, MIX, SAMPLE, TEST = 2, 3, 6, 9  # purposes of rng.h


def philox(key, ctr):
    k, c = list(key), list(ctr)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & M32, (a >> 32) ^ c[3] ^ k[1], a & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c


assert philox([0, 0], [0, 0, 0, 0]) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def key_of(seed, purpose, step):
    return philox([seed & M32, seed >> 32], [step & M32, step >> 32, purpose, 0x6C776D01])[:2]


def stream(seed, purpose, step, sample, n):
    key, out, block = key_of(seed, purpose, step), [], 0
    while len(out) < n:
        out += reversed(philox(key, [block, 0, sample & M32, sample >> 32]))
        block += 1
    return out[:n]


def permute(seed, purpose, step, n, i):
    key, half = key_of(seed, purpose, step), 1
    while half < 31 and 4 ** half < n:
        half += 1
    mask, x = 2 ** half - 1, i
    while True:
        left, right = x >> half, x & mask
        for r in range(6):
            left, right = right, left ^ (philox(key, [right, r, 0, 0x6C776D02])[0] & mask)
        x = left << half | right
        if x < n:
            return x


def sample(seed, g, rows, slots=None):
    """source, row, epoch of global sample g; rows of each source; slots: draws of each in a block of 10000"""
    source, k, pool = 0, g, sum(rows)
    if slots:
        block, i = divmod(g, 10000)
        p = permute(seed, MIX, block, 10000, i)
        while p >= slots[source]:
            p -= slots[source]
            source += 1
        k, pool = block * slots[source] + p, rows[source]
    epoch = k // pool
    row = permute(seed, ORDER, epoch << 16 | source, pool, k % pool)
    if not slots:
        while row >= rows[source]:
            row -= rows[source]
            source += 1
    return source, row, epoch


with open("rng.inc", "w") as f:
    print("/* Made by make.py of this folder: seed, purpose, step, sample, then the first numbers of the stream. */", file=f)
    for a in [(0, TEST, 0, 0), (3, ORDER, 7, 1), (2**40 + 5, SAMPLE, 2**33 + 1, 2**35 + 2)]:
        print("{ %du, %d, %du, %du, { %s } }," % (a[0], a[1], a[2], a[3], ", ".join("%du" % v for v in stream(*a, 10))), file=f)
with open("permute.inc", "w") as f:
    print("/* Made by make.py of this folder: seed, purpose, step, n, then where 0, 1, ... go. */", file=f)
    for a in [(3, ORDER, 0, 1), (3, ORDER, 0, 48), (3, ORDER, 1 << 16, 48), (5, MIX, 0, 10000), (2**33 + 9, TEST, 4, 10**12)]:
        v = [permute(*a, i) for i in range(min(a[3], 12))]
        print("{ %d, %d, %d, %d, %d, { %s } }," % (*a, len(v), ", ".join(map(str, v))), file=f)
with open("samples.inc", "w") as f:
    print("/* Made by make.py of this folder, seed 3: weighted (75 and 25 %), g, source, row, epoch. Sources of 48 and 20 rows. */",
          file=f)
    for g in list(range(16)) + [47, 67, 68, 135, 136, 1000]:
        print("{ 0, %d, %d, %d, %d }," % (g, *sample(3, g, [48, 20])), file=f)
    for g in list(range(16)) + [9999, 10000, 10001, 25000]:
        print("{ 1, %d, %d, %d, %d }," % (g, *sample(3, g, [48, 20], [7500, 2500])), file=f)
