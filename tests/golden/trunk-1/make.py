#!/usr/bin/env python3
"""Losses and gradients of the objectives over continuous inputs, computed by a second program: JAX, double precision.

    python3 -m venv v && v/bin/pip install jax==0.10.2
    cd tests/golden/trunk-1 && v/bin/python make.py

Written from the formulas (Touvron et al. 2023; Su et al. 2021, rotary pairs 2i, 2i+1; van den Oord et al. 2018; Chen et al. 2020;
He et al. 2020), not from the C code. Weights, directions and inputs come from a counter that both sides can run.
"""
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

DIM, FFN, LAYERS, HEADS, KV, INPUT, THETA, EPS = 16, 20, 2, 4, 2, 12, 100.0, 1e-6
E = DIM // HEADS


def numbers(name, shape):
    """Numbers in [-1/2, 1/2) with 16 bits: FNV-1a of the name begins a linear congruence."""
    x = 2166136261
    for b in name.encode():
        x = ((x ^ b) * 16777619) & 0xFFFFFFFF
    out = []
    for _ in range(int(np.prod(shape))):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((x >> 16) / 65536 - 0.5)
    return np.array(out).reshape(shape)


def trunk_shapes(name="model", layers=LAYERS, inputs=INPUT):
    """All trunks here have the same width."""
    s = {name + ".input_proj.weight": (DIM, inputs)}
    for layer in range(layers):
        p = name + ".layers.%d." % layer
        s[p + "input_layernorm.weight"] = (DIM,)
        s[p + "self_attn.q_proj.weight"] = (DIM, DIM)
        s[p + "self_attn.k_proj.weight"] = (KV * E, DIM)
        s[p + "self_attn.v_proj.weight"] = (KV * E, DIM)
        s[p + "self_attn.o_proj.weight"] = (DIM, DIM)
        s[p + "post_attention_layernorm.weight"] = (DIM,)
        s[p + "mlp.gate_proj.weight"] = (FFN, DIM)
        s[p + "mlp.up_proj.weight"] = (FFN, DIM)
        s[p + "mlp.down_proj.weight"] = (DIM, FFN)
    s[name + ".norm.weight"] = (DIM,)
    return s


def first_weights(shapes):
    return {n: jnp.array(1 + numbers(n, s) / 2 if len(s) == 1 else numbers(n, s)) for n, s in shapes.items()}


def norm(x, w):
    return w * x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + EPS)


def rotate(x, pos):
    """x (T, heads, E)"""
    angle = pos[:, None] * THETA ** (-jnp.arange(0, E, 2) / E)
    c, s = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    a, b = x[..., 0::2], x[..., 1::2]
    return jnp.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


def trunk(w, vectors, pos, mask, name="model", layers=LAYERS):
    """vectors (T, INPUT) of one segment; mask[i, j]: i sees j"""
    h = vectors @ w[name + ".input_proj.weight"].T
    t = len(pos)
    for layer in range(layers):
        p = name + ".layers.%d." % layer
        n = norm(h, w[p + "input_layernorm.weight"])
        q = rotate((n @ w[p + "self_attn.q_proj.weight"].T).reshape(t, HEADS, E), pos)
        k = rotate((n @ w[p + "self_attn.k_proj.weight"].T).reshape(t, KV, E), pos)
        v = (n @ w[p + "self_attn.v_proj.weight"].T).reshape(t, KV, E)
        k, v = (jnp.repeat(y, HEADS // KV, 1) for y in (k, v))
        score = jnp.where(mask[None], jnp.einsum("ihe,jhe->hij", q, k) / np.sqrt(E), -jnp.inf)
        o = jnp.einsum("hij,jhe->ihe", jax.nn.softmax(score, -1), v).reshape(t, DIM)
        h = h + o @ w[p + "self_attn.o_proj.weight"].T
        n = norm(h, w[p + "post_attention_layernorm.weight"])
        g = n @ w[p + "mlp.gate_proj.weight"].T
        h = h + (jax.nn.silu(g) * (n @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    return norm(h, w[name + ".norm.weight"])


def slopes(grads):
    return [(n, float(np.sum(np.array(g) * numbers("direction of " + n, g.shape)))) for n, g in grads.items()]


def write(f, name, numbers_):
    f.write("static const double %s[] = { %s };\n" % (name, ", ".join("%.15g" % x for x in numbers_)))


def write_slopes(f, name, grads):
    f.write("static const struct slope %s[] = {\n" % name)
    for n, v in slopes(grads):
        f.write("\t{ \"%s\", %.15g },\n" % (n, v))
    f.write("};\n")


# ---- contrastive: 3 pairs of views of 5 vectors; a queue of 6 keys ----

PAIRS, TOKENS, HIDDEN, OUT, TEMPERATURE, QUEUE = 3, 5, 14, 6, 0.07, 6


def contrast_shapes():
    shapes = trunk_shapes()
    shapes.update({"contrast.gate_proj.weight": (HIDDEN, DIM), "contrast.up_proj.weight": (HIDDEN, DIM),
                   "contrast.down_proj.weight": (OUT, HIDDEN)})
    return shapes


def contrast_z(w, views):
    every = np.ones((TOKENS, TOKENS), bool)
    h = jnp.stack([trunk(w, v, np.arange(TOKENS), every) for v in views]).mean(1)
    g = h @ w["contrast.gate_proj.weight"].T
    p = (jax.nn.silu(g) * (h @ w["contrast.up_proj.weight"].T)) @ w["contrast.down_proj.weight"].T
    return p / jnp.linalg.norm(p, axis=1, keepdims=True)


def contrast_loss(w, views):
    z = contrast_z(w, views)
    s = z[:PAIRS] @ z[PAIRS:].T / TEMPERATURE
    there = -jnp.diag(jax.nn.log_softmax(s, 1)).sum()
    back = -jnp.diag(jax.nn.log_softmax(s, 0)).sum()
    return (there + back) / 2, (s, z)


def momentum_loss(w, copy, views, queue):
    """Algorithm 1 of He et al. 2020, q and k of length 1; then without a queue, where keys of the others are negatives."""
    q, k = contrast_z(w, views[:PAIRS]), contrast_z(copy, views[PAIRS:])
    logits = jnp.concatenate([(q * k).sum(1, keepdims=True), q @ queue.T], 1) / TEMPERATURE
    loss = -jax.nn.log_softmax(logits, 1)[:, 0].sum()
    batch = -jnp.diag(jax.nn.log_softmax(q @ k.T / TEMPERATURE, 1)).sum()
    return loss, (logits, jnp.concatenate([q, k]), batch)


def momentum(views):
    w = first_weights(contrast_shapes())
    copy = {n: v + numbers("momentum." + n, v.shape) / 4 for n, v in w.items()}
    queue = numbers("momentum.queue", (QUEUE, OUT))
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    (loss, (s, z, batch)), grads = jax.value_and_grad(momentum_loss, has_aux=True)(w, copy, views, queue)
    return ([loss, batch], (s, z)), grads


def contrastive():
    shapes = contrast_shapes()
    views = numbers("views", (2 * PAIRS, TOKENS, INPUT))
    views[PAIRS:] += views[:PAIRS] * 0.75  # so that some find each other
    (loss, (s, z)), grads = jax.value_and_grad(contrast_loss, has_aux=True)(first_weights(shapes), views)
    hits = sum(int(s[i].argmax() == i) + int(s[:, i].argmax() == i) for i in range(PAIRS)) / 2
    (mloss, (ms, mz)), mgrads = momentum(np.concatenate([views[:PAIRS], views[:PAIRS] + views[PAIRS:] / 4]))
    with open("contrast.inc", "w") as f:
        write(f, "golden_loss", [loss, hits])
        write(f, "golden_z", np.array(z).ravel())
        write_slopes(f, "golden_slope", grads)
        write(f, "momentum_loss", [mloss[0], int((ms.argmax(1) == 0).sum()), mloss[1]])
        write(f, "momentum_z", np.array(mz).ravel())
        write_slopes(f, "momentum_slope", mgrads)


# ---- masked: 2 clips of 6 patches, of which 2 are seen; a decoder of one layer ----

SEEN = [[0, 4], [2, 3]]


def masked_loss(w, patches, targets):
    loss, every = 0, np.ones((6, 6), bool)
    predicted = []
    for x, y, seen in zip(patches, targets, SEEN):
        h = trunk(w, x[np.array(seen)], np.array(seen), every[:2, :2])
        inputs = [h[seen.index(i)] if i in seen else w["masked.token"][0] for i in range(6)]
        d = trunk(w, jnp.stack(inputs), np.arange(6), every, "decoder", 1)
        for i in range(6):
            if i not in seen:
                p = d[i] @ w["masked.pixels.weight"].T
                predicted.append(p)
                loss += jnp.mean((p - y[i]) ** 2)
    return loss, jnp.stack(predicted)


def masked():
    shapes = trunk_shapes()
    shapes["masked.token"] = (1, DIM)
    shapes.update(trunk_shapes("decoder", 1, DIM))
    shapes["masked.pixels.weight"] = (INPUT, DIM)
    patches, targets = numbers("patches", (2, 6, INPUT)), numbers("targets", (2, 6, INPUT))
    (loss, predicted), grads = jax.value_and_grad(masked_loss, has_aux=True)(first_weights(shapes), patches, targets)
    with open("masked.inc", "w") as f:
        write(f, "golden_loss", [loss])
        write(f, "golden_predicted", np.array(predicted).ravel())
        write_slopes(f, "golden_slope", grads)


# ---- masked, of codes: the same clips, 3 codes of 5 in a patch ----

CODES, EACH = 5, 3


def codes_loss(w, patches, codes):
    loss, hits, every = 0, [], np.ones((6, 6), bool)
    for x, y, seen in zip(patches, codes, SEEN):
        h = trunk(w, x[np.array(seen)], np.array(seen), every[:2, :2])
        inputs = [h[seen.index(i)] if i in seen else w["masked.token"][0] for i in range(6)]
        d = trunk(w, jnp.stack(inputs), np.arange(6), every, "decoder", 1)
        for i in range(6):
            if i not in seen:
                z = (w["masked.codes.weight"] @ d[i]).reshape(EACH, CODES)
                loss -= jnp.mean(jax.nn.log_softmax(z, 1)[np.arange(EACH), y[i]])
                hits.append(jnp.mean(z.argmax(1) == y[i]))
    return loss, jnp.stack(hits).sum()


def masked_codes():
    shapes = trunk_shapes()
    shapes["masked.token"] = (1, DIM)
    shapes.update(trunk_shapes("decoder", 1, DIM))
    shapes["masked.codes.weight"] = (EACH * CODES, DIM)
    patches = numbers("patches", (2, 6, INPUT))
    codes = ((numbers("codes", (2, 6, EACH)) + 0.5) * CODES).astype(int)
    (loss, hits), grads = jax.value_and_grad(codes_loss, has_aux=True)(first_weights(shapes), patches, codes)
    with open("masked_codes.inc", "w") as f:
        write(f, "codes_loss", [loss, hits])
        write_slopes(f, "codes_slope", grads)


# ---- next frame: 2 clips of 3 times of 2 patches ----


def forecast_loss(w, patches):
    time = np.arange(4) // 2
    mask = time[:, None] >= time[None]
    loss, predicted = 0, []
    for x in patches:
        past, after = x[:2].reshape(4, INPUT), x[1:].reshape(4, INPUT)
        y = past + trunk(w, past, np.arange(4), mask) @ w["forecast.pixels.weight"].T
        predicted.append(y)
        loss += jnp.mean((y - after) ** 2, 1).sum()
    return loss, jnp.stack(predicted)


def forecast():
    shapes = trunk_shapes()
    shapes["forecast.pixels.weight"] = (INPUT, DIM)
    patches = numbers("clips", (2, 3, 2, INPUT))
    (loss, predicted), grads = jax.value_and_grad(forecast_loss, has_aux=True)(first_weights(shapes), patches)
    still = float(((patches[:, 1:] - patches[:, :-1]) ** 2).mean(-1).sum())
    with open("forecast.inc", "w") as f:
        write(f, "golden_loss", [loss, still])
        write(f, "golden_predicted", np.array(predicted).ravel())
        write_slopes(f, "golden_slope", grads)


if __name__ == "__main__":
    contrastive()
    masked()
    masked_codes()
    forecast()
