#!/usr/bin/env python3
"""Latents, codes, pixels and losses of a tiny frame tokenizer, computed by a second program: plain Python, double precision.

    python3 tests/golden/vqgan-1/make.py > tests/golden/vqgan-1/values.inc

Written from the shape of the net that was published (Esser et al. 2021, names of diffusers' VQModel), not from the C code:
a stride of two reads one row and one column of zeros at the far sides only, group norms have an epsilon of 1e-6 and are
followed by x / (1 + exp(-x)), the decoder doubles by repeating pixels. Weights come from the counter of llama-1.
tests/unit/test_vqgan_golden.c compares; nothing at test time needs Python.
"""
import math
import textwrap

HIDDEN, MULT, Z, EMBED, CODES, GROUPS = 4, [1, 2, 2], 6, 5, 12, 2
H, W = 8, 12


def numbers(name, n):
    """n numbers in [-1/2, 1/2) with 16 bits: FNV-1a of the name begins a linear congruence."""
    x = 2166136261
    for b in name.encode():
        x = ((x ^ b) * 16777619) & 0xFFFFFFFF
    out = []
    for _ in range(n):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((x >> 16) / 65536 - 0.5)
    return out


# An image is a list of channels, a channel a list of rows.

def plane(x, channels, height, width):
    return [[x[(c * height + y) * width:(c * height + y + 1) * width] for y in range(height)] for c in range(channels)]


def conv(name, x, cout, k=3, stride=1, near=None):
    """near: zeros before the first row and column; as many as are needed stand behind the last"""
    cin, height, width = len(x), len(x[0]), len(x[0][0])
    near = k // 2 if near is None else near
    w = numbers(name + ".weight", cout * cin * k * k)
    b = [v / 2 for v in numbers(name + ".bias", cout)]
    out = []
    for o in range(cout):
        rows = []
        for y in range(0, height, stride):
            row = []
            for z in range(0, width, stride):
                s = b[o]
                for c in range(cin):
                    for i in range(k):
                        for j in range(k):
                            p, q = y + i - near, z + j - near
                            if 0 <= p < height and 0 <= q < width:
                                s += w[((o * cin + c) * k + i) * k + j] * x[c][p][q]
                row.append(s)
            rows.append(row)
        out.append(rows)
    return out


def norm(name, x):
    per = len(x) // GROUPS
    scale = [1 + v / 2 for v in numbers(name + ".weight", len(x))]
    bias = [v / 2 for v in numbers(name + ".bias", len(x))]
    out = []
    for g in range(GROUPS):
        v = [a for c in x[g * per:(g + 1) * per] for r in c for a in r]
        mean = sum(v) / len(v)
        d = math.sqrt(sum((a - mean) ** 2 for a in v) / len(v) + 1e-6)
        for c in range(g * per, (g + 1) * per):
            y = [[(a - mean) / d * scale[c] + bias[c] for a in r] for r in x[c]]
            out.append([[a / (1 + math.exp(-a)) for a in r] for r in y])
    return out


def res(name, x, cout):
    h = conv(name + ".conv1", norm(name + ".norm1", x), cout)
    h = conv(name + ".conv2", norm(name + ".norm2", h), cout)
    if len(x) != cout:
        x = conv(name + ".conv_shortcut", x, cout, k=1)
    return [[[a + b for a, b in zip(r, s)] for r, s in zip(c, d)] for c, d in zip(x, h)]


def double(x):
    return [[[a for a in r for _ in range(2)] for r in c for _ in range(2)] for c in x]


def encode(x):
    last = len(MULT) - 1
    x = conv("encoder.conv_in", x, HIDDEN * MULT[0])
    for i, m in enumerate(MULT):
        x = res("encoder.down_blocks.%d.resnets.0" % i, x, HIDDEN * m)
        if i < last:
            x = conv("encoder.down_blocks.%d.downsamplers.0.conv" % i, x, HIDDEN * m, stride=2, near=0)
    for i in range(2):
        x = res("encoder.mid_block.resnets.%d" % i, x, HIDDEN * MULT[-1])
    x = conv("encoder.conv_out", norm("encoder.conv_norm_out", x), Z)
    return conv("quant_conv", x, EMBED, k=1)


def decode(x):
    last = len(MULT) - 1
    x = conv("decoder.conv_in", conv("post_quant_conv", x, Z, k=1), HIDDEN * MULT[-1])
    for i in range(2):
        x = res("decoder.mid_block.resnets.%d" % i, x, HIDDEN * MULT[-1])
    for i, m in enumerate(reversed(MULT)):
        for j in range(2):
            x = res("decoder.up_blocks.%d.resnets.%d" % (i, j), x, HIDDEN * m)
        if i < last:
            x = conv("decoder.up_blocks.%d.upsamplers.0.conv" % i, double(x), HIDDEN * m)
    return conv("decoder.conv_out", norm("decoder.conv_norm_out", x), 3)


def pixels(x):
    """(height, width, 3) as in memory"""
    return [x[c][y][z] for y in range(len(x[0])) for z in range(len(x[0][0])) for c in range(len(x))]


def braces(values, form="%.9g"):
    text = "{ " + ", ".join(form % v for v in values) + " }"
    return "\n    ".join(textwrap.wrap(text, 120))


def write(name, unit):
    raw = [int((v + 0.5) * 256) for v in numbers("pixels", 3 * H * W)]  # channels first
    image = plane([v / 255 if unit else v / 127.5 - 1 for v in raw], 3, H, W)
    z = encode(image)
    book = numbers("quantize.embedding.weight", CODES * EMBED)
    book = [[2 * v for v in book[k * EMBED:(k + 1) * EMBED]] for k in range(CODES)]
    codes, margin, vq = [], math.inf, 0.0
    h, w = len(z[0]), len(z[0][0])
    for y in range(h):
        for x in range(w):
            d = [sum((z[c][y][x] - e[c]) ** 2 for c in range(EMBED)) for e in book]
            best = sorted(d)
            margin = min(margin, best[1] - best[0])
            codes.append(d.index(best[0]))
            vq += best[0] / (EMBED * h * w)
    assert margin > 1e-2, margin  # rounding does not decide
    assert len(set(codes)) > 3, codes
    q = [[[book[codes[y * w + x]][c] for x in range(w)] for y in range(h)] for c in range(EMBED)]
    out = pixels(decode(q))
    out = [2 * v - 1 for v in out] if unit else out
    want = [v / 127.5 - 1 for v in pixels(plane(raw, 3, H, W))]
    l1 = sum(abs(a - b) for a, b in zip(out, want)) / len(out)
    l2 = sum((a - b) ** 2 for a, b in zip(out, want)) / len(out)
    inside = sum(abs(v) < 1 for v in out)
    assert inside > len(out) / 3, inside  # the others are clipped
    print('{ .name = "%s", .unit = %d, .margin = %.3g, .l1 = %.9g, .l2 = %.9g, .vq = %.9g,' % (name, unit, margin, l1, l2, vq))
    print("  .code = %s," % braces(codes, "%d"))
    print("  .z = %s," % braces(pixels(z)))
    print("  .pixel = %s }," % braces([min(max((v + 1) * 127.5, 0), 255) for v in out], "%.3f"))


print("/* Made by make.py of this folder; not written by hand. */")
write("pixels of [-1,1]", 0)
write("pixels of [0,1]", 1)
