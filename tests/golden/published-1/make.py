#!/usr/bin/env python3
"""What the released LWM trains on and how, computed with the libraries that it pins: losses, gradients, rows, rates, updates.

    python3 -m venv v && v/bin/pip install jax==0.4.29 jaxlib==0.4.29 optax==0.2.2 'numpy<2'
    cd tests/golden/published-1 && v/bin/python make.py

Written from lwm/train.py, lwm/data.py (LWM f45d2b7), tux/loss.py and tux/optimizers.py (tux 61c11e1), in other words. In double
precision, where the release casts logits to single.
"""
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

TEXT, VISION = 40, 18  # vocabularies; a vision id v is TEXT + v in a document shard
BOS, EOS, EOF, EOV = 1, 2, 16, 17
OPEN, CLOSE = [33, 34, 35], [36, 34, 35]

# ---- documents, as VisionTextProcessor makes them: (id, loss, vision) for every token ----


def caption(k, n):
    return [(3 + (5 * k + 7 * i) % 30, 1, 0) for i in range(n)]


def clip(k, frames, codes):
    out = []
    for f in range(frames):
        out += [((11 * k + 3 * (codes * f + i)) % 16, 1, 1) for i in range(codes)]
        out.append((EOF if f < frames - 1 else EOV, 1, 1))
    return [(t, 1, 0) for t in OPEN] + out + [(t, 1, 0) for t in CLOSE]


def masked(part):
    return [(t, 0, v) for t, _, v in part]


def document(k, words, frames, codes, draw):
    """draw: [caption],vision; else [vision],caption; without frames: caption."""
    parts = [caption(k, words)]
    if frames:
        parts = [masked(parts[0]), clip(k, frames, codes)] if draw else [masked(clip(k, frames, codes)), parts[0]]
    return [(BOS, 0, 0)] + parts[0] + (parts[1] if frames else []) + [(EOS, 1, 0)]


# words, frames, codes a frame, draw: as `docs` in unit/test_published.c
DOCS = [document(k, *d) for k, d in enumerate([
    (7, 2, 16, True), (12, 3, 16, False), (3, 2, 16, False), (20, 2, 16, True),  # four captioned clips
    (30, 0, 0, False), (5, 0, 0, False),                                         # text
    (7, 1, 256, True), (7, 1, 256, False)])]                                     # an image and seven words

# ---- rows ----


def pad(tokens, seq):
    """mode pad, and rows of several documents in the same way: seq targets, those behind the end without loss."""
    t = (tokens + [(BOS, 0, 0)] * (seq + 1))[:seq + 1]
    return t[:-1], t[1:]


def stream(docs, seq):
    """mode no_pad: documents end to end; a row has seq inputs and seq targets, the next row begins with its last target."""
    flat = [t for d in docs for t in DOCS[d]]
    rows = []
    while len(flat) > seq + 1:
        rows.append((flat[:seq], flat[1:seq + 1]))
        flat = flat[seq:]
    return rows


def logit(doc, pos, head, v):
    """What a model could say at a token of a document; padding is nobody's."""
    if doc < 0:
        return 0.0
    return 2 * math.sin(0.9 * doc + 0.31 * pos + 1.7 * v + 0.013 * pos * v) + math.cos(2.3 * v + 0.7 * head + 0.11 * pos)


def direction(j, doc, pos, head, v):
    return math.cos(0.7 * j + 0.11 * doc + 0.29 * pos + 0.53 * v + head) if doc >= 0 else 0.0


# ---- the released loss ----


def masked_mean(logits, tokens, valid):
    valid = valid.astype(jnp.float64)
    count = jnp.maximum(jnp.sum(valid, axis=-1), 1e-10)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), tokens[..., None], axis=-1)[..., 0]
    return -jnp.mean(jnp.sum(jnp.where(valid > 0.0, logp, 0.0), axis=-1) / count)


def losses(text_logits, vision_logits, target, mask, is_vision, both):
    text = masked_mean(text_logits, jnp.where(is_vision, 0, target), mask * (1.0 - is_vision))
    if not both:
        return text, text, 0.0
    vision = masked_mean(vision_logits, jnp.where(is_vision, target, 0), mask * is_vision)
    return 0.5 * (vision + text), text, vision


def others(rows, where, seq, units, z):
    """The same labels by example (units: where each of a row's segments ends) and by token, text and vision not told apart."""
    examples, nll, n = [], 0.0, 0
    for r, (_, y) in enumerate(rows):
        of = {}
        for t, (tok, loss, v) in enumerate(y):
            if not loss:
                continue
            a = z[v][r, t]
            x = float(np.log(np.sum(np.exp(a))) - a[tok])
            of.setdefault(where[r][t][0] if units else 0, []).append(x)
            nll, n = nll + x, n + 1
        examples += [sum(v) / len(v) for v in of.values()]
    return sum(examples) / len(examples), nll / n


def loss_case(name, rows, seq, both, where):
    """rows: (inputs, targets); where: for every row the (document, position) of each input."""
    target = jnp.array([[t for t, _, _ in y] for _, y in rows])
    mask = jnp.array([[l for _, l, _ in y] for _, y in rows], dtype=jnp.float64)
    vision = jnp.array([[v for _, _, v in y] for _, y in rows], dtype=jnp.float64)
    z = [np.array([[[logit(d, p, h, v) for v in range(n)] for d, p in (w + [(-1, 0)] * seq)[:seq]] for w in where])
         for h, n in ((0, TEXT), (1, VISION))]
    total = lambda a, b: losses(a, b, target, mask, vision == 1, both)[0]
    value, text, vis = losses(jnp.array(z[0]), jnp.array(z[1]), target, mask, vision == 1, both)
    grad = jax.grad(total, argnums=(0, 1))(jnp.array(z[0]), jnp.array(z[1]))
    dots = []
    for j in range(3):
        dots.append(sum(float(np.sum(np.asarray(grad[h]) * np.array(
            [[[direction(j, d, p, h, v) for v in range(n)] for d, p in (w + [(-1, 0)] * seq)[:seq]] for w in where])))
            for h, n in ((0, TEXT), (1, VISION))))
    example, token = others(rows, where, seq, name != "stream", z)
    print(name, example, token, float(value), float(text), float(vis), dots)
    numbers = ", ".join(f"{x:.12g}" for x in (value, text, vis + 0.0, example, token))
    return f'{{ "{name}", {numbers}, {{ {", ".join(f"{x:.12g}" for x in dots)} }} }},\n'


def joined(groups, seq):
    rows = [pad([t for d in g for t in DOCS[d]], seq) for g in groups]
    return rows, [[(d, p) for d in g for p in range(len(DOCS[d]))] for g in groups]


def make_losses():
    out = ""
    clips = [[0, 1, 2, 3]]
    mixed = [[0, 4], [5, 4], [1, 2, 5], []]
    for name, groups, seq, both in (("packed", clips, 256, True), ("padded", [[d] for d in clips[0]], 256, True),
                                    ("mixed", mixed, 256, True), ("draw", [[6]], 512, True), ("tell", [[7]], 512, True),
                                    ("text", [[4], [4, 5], [5]], 64, False)):
        rows, where = joined(groups, seq)
        out += loss_case(name, rows, seq, both, where)
    docs = [4, 0, 5, 1, 5, 4, 2, 3]
    rows = stream(docs, 48)
    at = [(d, p) for d in docs for p in range(len(DOCS[d]))]
    out += loss_case("stream", rows, 48, True, [at[48 * r:48 * r + 48] for r in range(len(rows))])
    open("loss.inc", "w").write(out)
    flat = ""
    for x, y in rows:
        flat += "{ { " + ", ".join(str(t + TEXT * v) for t, _, v in x) + " },\n  { "
        flat += ", ".join(str(t + TEXT * v) for t, _, v in y) + " },\n  \"" + "".join(str(l) for _, l, _ in y) + "\" },\n"
    open("stream.inc", "w").write(flat)


# ---- rates and updates ----


def make_rates():
    out = ""
    for init, peak, end, warm, decay in ((0.0, 8e-5, 8e-5, 5, 200), (0.0, 0.01, 0.001, 20, 100), (1e-3, 0.01, 0.002, 8, 40)):
        f = optax.warmup_cosine_decay_schedule(init, peak, warm, decay, end)
        for n in (0, 1, 4, 5, 7, 8, 9, 19, 20, 21, 39, 40, 41, 60, 99, 100, 101, 199, 200, 250):
            out += f"{{ {init!r}, {peak!r}, {end!r}, {warm}, {decay}, {n}, {float(f(n)):.15g} }},\n"
    open("rates.inc", "w").write(out)


def gradient(n, i):
    return 0.4 * math.sin(1.3 * n + 0.9 * i) + 0.05 * i


def make_updates():
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.02, 4, 12, 0.004)
    tx = optax.chain(optax.clip_by_global_norm(1.0),
                     optax.adamw(learning_rate=rate, weight_decay=0.1, b1=0.9, b2=0.95, mask=lambda p: {k: True for k in p}))
    p = {"norm": jnp.array([1.0, 1.1, 0.9]), "w": jnp.array([0.5, -0.25, 0.125, 2.0, -1.5])}
    state, out = tx.init(p), ""
    for n in range(14):
        g = {"norm": jnp.array([gradient(n, i) for i in range(3)]), "w": jnp.array([gradient(n, i) for i in range(3, 8)])}
        step, state = tx.update(g, state, p)
        p = optax.apply_updates(p, step)
        out += "{ " + ", ".join(f"{float(x):.12g}" for x in list(p["norm"]) + list(p["w"])) + " },\n"
    open("updates.inc", "w").write(out)


make_losses()
make_rates()
make_updates()
