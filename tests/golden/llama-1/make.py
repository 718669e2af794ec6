#!/usr/bin/env python3
"""Losses, logits and gradients of tiny models, computed by a second program: plain Python, double precision.

    python3 tests/golden/llama-1/make.py > tests/golden/llama-1/values.inc

Written from the formulas of Touvron et al. 2023, Su et al. 2021 (rotary pairs 2i, 2i+1), Zhang & Sennrich 2019 and
Shazeer 2020, not from the C code. Weights, directions and tokens come from a counter that both sides can run, so there
are no files of weights. tests/unit/test_llama_golden.c compares; nothing at test time needs Python.
"""
import math

DIM, FFN, LAYERS, HEADS, TEXT = 24, 20, 2, 4, 23
E = DIM // HEADS
DOCS = [9, 1, 7]  # tokens of the documents in the row; the rest of TOKENS is padding
TOKENS = 20
ROWS = [5, 12, 16]  # positions of which logits are written down

CASES = [  # name, theta, eps, causal, tied, kv heads, vision codes (0: text only), rows of the vision table
    ("plain", 100.0, 1e-6, 1, 0, 4, 0, 0),
    ("epsilon", 100.0, 0.5, 1, 0, 4, 0, 0),
    ("theta", 1e6, 1e-6, 1, 0, 4, 0, 0),
    ("not causal", 100.0, 1e-6, 0, 0, 4, 0, 0),
    ("tied", 100.0, 1e-6, 1, 1, 4, 0, 0),
    ("two key heads", 100.0, 1e-6, 1, 0, 2, 0, 0),
    ("vision", 100.0, 1e-6, 1, 0, 4, 6, 11),
    ("vision, tied, one key head", 5000.0, 1e-2, 1, 1, 1, 6, 11),
]


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


def shapes(case):
    _, _, _, _, tied, kv, codes, rows = case
    s = {"model.embed_tokens.weight": (TEXT, DIM)}
    if codes:
        s["model.vision_embed_tokens.weight"] = (rows, DIM)
    for layer in range(LAYERS):
        p = "model.layers.%d." % layer
        s[p + "input_layernorm.weight"] = (DIM,)
        s[p + "self_attn.q_proj.weight"] = (DIM, DIM)
        s[p + "self_attn.k_proj.weight"] = (kv * E, DIM)
        s[p + "self_attn.v_proj.weight"] = (kv * E, DIM)
        s[p + "self_attn.o_proj.weight"] = (DIM, DIM)
        s[p + "post_attention_layernorm.weight"] = (DIM,)
        s[p + "mlp.gate_proj.weight"] = (FFN, DIM)
        s[p + "mlp.up_proj.weight"] = (FFN, DIM)
        s[p + "mlp.down_proj.weight"] = (DIM, FFN)
    s["model.norm.weight"] = (DIM,)
    if not tied:
        s["lm_head.weight"] = (TEXT, DIM)
        if codes:
            s["vision_head.weight"] = (rows, DIM)
    return s


def count(shape):
    return math.prod(shape)


def first_weights(case):
    w = {}
    for name, shape in shapes(case).items():
        v = numbers(name, count(shape))
        w[name] = [1 + x / 2 for x in v] if len(shape) == 1 else v
    return w


def row(case):
    """tokens, targets, weights, segments, positions"""
    codes = case[6]
    ids = TEXT + (codes + 2 if codes else 0)
    token, target, weight, seg, pos = [], [-1] * TOKENS, [], [], []
    for d, n in enumerate(DOCS):
        for i in range(n):
            token.append(0)
            seg.append(d)
            pos.append(i)
    used = len(token)
    for t, v in enumerate(numbers("tokens of " + case[0], used)):
        token[t] = int((v + 0.5) * ids)
    for t in range(used - 1):
        if seg[t] == seg[t + 1]:
            target[t] = token[t + 1]
    weight = [0.0 if t % 5 == 4 else (1 + t % 3) / 64 for t in range(TOKENS)]
    return (token + [0] * (TOKENS - used), target, weight, seg + [-1] * (TOKENS - used), pos + [0] * (TOKENS - used))


def times(m, x, rows):
    """matrix (rows, len(x)) times x"""
    n = len(x)
    return [sum(a * b for a, b in zip(m[r * n:(r + 1) * n], x)) for r in range(rows)]


def rmsnorm(x, w, eps):
    r = 1 / math.sqrt(sum(v * v for v in x) / len(x) + eps)
    return [a * v * r for a, v in zip(w, x)]


def rotate(x, heads, pos, theta):
    for h in range(heads):
        for i in range(E // 2):
            angle = pos * theta ** (-2 * i / E)
            a, b = x[h * E + 2 * i], x[h * E + 2 * i + 1]
            x[h * E + 2 * i] = a * math.cos(angle) - b * math.sin(angle)
            x[h * E + 2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return x


def attention(q, k, v, seg, pos, case):
    causal, kv = case[3], case[5]
    out = []
    for t in range(TOKENS):
        o = []
        for h in range(HEADS):
            c = h // (HEADS // kv) * E
            seen = [s for s in range(TOKENS)
                    if seg[t] >= 0 and seg[s] == seg[t] and (not causal or pos[s] <= pos[t])]
            score = [sum(q[t][h * E + i] * k[s][c + i] for i in range(E)) / math.sqrt(E) for s in seen]
            p = [math.exp(x) for x in score]
            o += [sum(p[j] * v[s][c + i] for j, s in enumerate(seen)) / sum(p) if seen else 0.0 for i in range(E)]
        out.append(o)
    return out


def forward(case, w, token, seg, pos):
    """the normed residual stream behind the last layer"""
    _, theta, eps, _, _, kv, codes, _ = case
    x = []
    for t in token:
        table = w["model.embed_tokens.weight"] if t < TEXT else w["model.vision_embed_tokens.weight"]
        r = t if t < TEXT else t - TEXT
        x.append(table[r * DIM:(r + 1) * DIM])
    for layer in range(LAYERS):
        p = "model.layers.%d." % layer
        n = [rmsnorm(v, w[p + "input_layernorm.weight"], eps) for v in x]
        q = [rotate(times(w[p + "self_attn.q_proj.weight"], v, DIM), HEADS, pos[t], theta) for t, v in enumerate(n)]
        k = [rotate(times(w[p + "self_attn.k_proj.weight"], v, kv * E), kv, pos[t], theta) for t, v in enumerate(n)]
        v = [times(w[p + "self_attn.v_proj.weight"], v, kv * E) for v in n]
        o = attention(q, k, v, seg, pos, case)
        x = [[a + b for a, b in zip(x[t], times(w[p + "self_attn.o_proj.weight"], o[t], DIM))] for t in range(TOKENS)]
        for t in range(TOKENS):
            n = rmsnorm(x[t], w[p + "post_attention_layernorm.weight"], eps)
            g = times(w[p + "mlp.gate_proj.weight"], n, FFN)
            u = times(w[p + "mlp.up_proj.weight"], n, FFN)
            h = [a / (1 + math.exp(-a)) * b for a, b in zip(g, u)]
            x[t] = [a + b for a, b in zip(x[t], times(w[p + "mlp.down_proj.weight"], h, DIM))]
    return [rmsnorm(v, w["model.norm.weight"], eps) for v in x]


def head(case, w, vision):
    tied, rows = case[4], case[7]
    name = ("model.vision_embed_tokens.weight" if vision else "model.embed_tokens.weight") if tied else \
        ("vision_head.weight" if vision else "lm_head.weight")
    return w[name], rows if vision else TEXT


def loss(case, w, r):
    """of each modality: sum of weight * nll, sum of nll, hits, tokens"""
    token, target, weight, seg, pos = r
    x = forward(case, w, token, seg, pos)
    out = [[0.0, 0.0, 0, 0], [0.0, 0.0, 0, 0]]
    for t in range(TOKENS):
        if target[t] < 0 or weight[t] == 0:
            continue
        vision = target[t] >= TEXT  # the head of what is predicted
        m, rows = head(case, w, vision)
        y = times(m, x[t], rows)
        want = target[t] - (TEXT if vision else 0)
        nll = math.log(sum(math.exp(v) for v in y)) - y[want]
        s = out[vision]
        s[0] += weight[t] * nll
        s[1] += nll
        s[2] += y.index(max(y)) == want
        s[3] += 1
    return out


def slope(case, w, r, name):
    """of the loss along the tensor's direction, by central differences"""
    d = numbers("direction of " + name, len(w[name]))
    kept, h, total = w[name], 1e-5, 0.0
    for sign in (1, -1):
        w[name] = [a + sign * h * b for a, b in zip(kept, d)]
        s = loss(case, w, r)
        total += sign * (s[0][0] + s[1][0])
    w[name] = kept
    return total / (2 * h)


def braces(values):
    return "{ " + ", ".join("%.9g" % v for v in values) + " }"


def write(case):
    name, theta, eps, causal, tied, kv, codes, rows = case
    w, r = first_weights(case), row(case)
    x = forward(case, w, r[0], r[3], r[4])
    s = loss(case, w, r)
    print('{ .name = "%s", .theta = %g, .eps = %g, .causal = %d, .tied = %d, .kv_heads = %d, .codes = %d, .rows = %d,' %
          (name, theta, eps, causal, tied, kv, codes, rows))
    print("  .token = { %s }," % ", ".join(str(t) for t in r[0]))
    for i, key in enumerate(["loss", "nll", "hits", "tokens"]):
        print("  .%s = %s," % (key, braces([s[0][i], s[1][i]])))
    for vision in range(2 if codes else 1):
        m, n = head(case, w, vision)
        print("  .logit[%d] = {" % vision)
        for t in ROWS:
            y = times(m, x[t], n)
            print("    %s," % braces(y[:3] + [sum(v * v for v in y)]))
        print("  },")
    print("  .slope = {")
    for tensor in shapes(case):
        if ".layers.1." in tensor:
            continue
        print('    { "%s", %.9g },' % (tensor, slope(case, w, r, tensor)))
    print("  } },")


print("/* Made by make.py of this folder; not written by hand. */")
for c in CASES:
    write(c)
