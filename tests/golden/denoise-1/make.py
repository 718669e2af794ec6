#!/usr/bin/env python3
"""The loss of a denoised clip, a denoiser and its gradients, and Euler steps, computed by a second program: JAX, double precision.

    python3 -m venv v && v/bin/pip install jax==0.10.2
    cd tests/golden/denoise-1 && v/bin/python make.py

Written from the formulas (Karras et al. 2022; Gao et al. 2024, Vista: equations of dynamics enhancement and structure preservation,
with the library's own FFT), not from the C code. The trunk is that of trunk-1.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "trunk-1"))

import jax
import jax.numpy as jnp
import numpy as np
from make import DIM, first_weights, numbers, trunk, trunk_shapes, write, write_slopes


# ---- the loss of a clip (T, R, C, K) ----


def high_pass(x):
    rows, columns = x.shape[1:3]
    h, w = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    keep = (2 * h / rows - 1) ** 2 + (2 * w / columns - 1) ** 2 > 0.5
    f = jnp.fft.fftshift(jnp.fft.fftn(x, axes=(1, 2)), axes=(1, 2)) * keep[None, :, :, None]
    return jnp.fft.ifftn(jnp.fft.ifftshift(f, axes=(1, 2)), axes=(1, 2)).real


def parts(p, z, clean, w):
    """The three means; the first `clean` times of p are those of z."""
    given = (np.arange(z.shape[0]) < clean)[:, None, None, None]
    p = jnp.where(given, z, p)
    a = ((z[1:] - z[:-1]) - (p[1:] - p[:-1])) ** 2
    a = a / jnp.maximum(jnp.sqrt((a ** 2).sum((0, 1, 2), keepdims=True)), 1e-12)
    a = jax.lax.stop_gradient(jnp.concatenate([jnp.zeros_like(z[:1]), a]))
    square = w * (p - z) ** 2
    return jnp.mean(square), jnp.mean(a * square), 0.1 * jnp.mean(w * (high_pass(p) - high_pass(z)) ** 2)


LOSSES = [((3, 4, 5, 2), 0, 1.7), ((4, 6, 4, 1), 2, 0.3), ((3, 3, 3, 2), 1, 2.5)]


def losses(f):
    what, slopes = [], []
    for i, (shape, clean, w) in enumerate(LOSSES):
        z, p = numbers("true %d" % i, shape), numbers("denoised %d" % i, shape)
        what += [float(x) for x in parts(p, z, clean, w)]
        slopes.append(np.array(jax.grad(lambda q: sum(parts(q, z, clean, w)))(p)).ravel())
    write(f, "golden_parts", what)
    write(f, "golden_gradient", np.concatenate(slopes))


# ---- a denoiser: 3 clips of 3 times of 4 x 4 latents of 2 channels, in patches of 2 x 2 ----

SHAPE, PATCH, FEATURES = (3, 4, 4, 2), 2, 16
SIGMA, CLEAN = [0.05, 1.3, 40.0], [0, 1, 2]
NUMBERS, TOKENS = PATCH * PATCH * SHAPE[3], SHAPE[0] * (SHAPE[1] // PATCH) * (SHAPE[2] // PATCH)


def patches(x):
    t, r, c, k = SHAPE
    return x.reshape(t, r // PATCH, PATCH, c // PATCH, PATCH, k).transpose(0, 1, 3, 2, 4, 5).reshape(TOKENS, NUMBERS)


def joined(v):
    t, r, c, k = SHAPE
    return v.reshape(t, r // PATCH, c // PATCH, PATCH, PATCH, k).transpose(0, 1, 3, 2, 4, 5).reshape(SHAPE)


def denoised(w, x, sigma, clean):
    c_skip, c_out, c_in = 1 / (sigma ** 2 + 1), -sigma / np.sqrt(sigma ** 2 + 1), 1 / np.sqrt(sigma ** 2 + 1)
    noise = np.log(sigma) / 4
    k = np.arange(FEATURES // 2)
    features = np.concatenate([np.cos(k * np.pi / 2 * noise), np.sin((k + 1) * np.pi / 2 * noise)])
    given = np.arange(TOKENS) // (TOKENS // SHAPE[0]) < clean
    last = np.tile(patches(x).reshape(SHAPE[0], -1, NUMBERS)[clean - 1], (SHAPE[0], 1)) * (clean > 0)
    v = np.concatenate([patches(x) * np.where(given, 1, c_in)[:, None], last, np.where(given[:, None], 0, features),
                        np.where(given[:, None], features, 0)], 1)
    h = trunk(w, v, np.arange(TOKENS), np.ones((TOKENS, TOKENS), bool))
    d = c_skip * x + c_out * joined(h @ w["denoise.latents.weight"].T)
    return jnp.where((np.arange(SHAPE[0]) < clean)[:, None, None, None], x, d)


def loss(w, xs, zs):
    out, three = [], np.zeros(3)
    for x, z, sigma, clean in zip(xs, zs, SIGMA, CLEAN):
        d = denoised(w, x, sigma, clean)
        three = three + jnp.stack(parts(d, z, clean, (sigma ** 2 + 1) / sigma ** 2))
        out.append(d)
    return three.sum(), (three, jnp.stack(out))


def nothing(xs, zs):
    return sum(float(sum(parts(x / (s ** 2 + 1), z, n, (s ** 2 + 1) / s ** 2))) for x, z, s, n in zip(xs, zs, SIGMA, CLEAN))


def noisy_clips():
    zs = numbers("latents", (3,) + SHAPE) * 2
    xs = zs + np.array(SIGMA)[:, None, None, None, None] * numbers("noise", (3,) + SHAPE) * 2
    for x, z, n in zip(xs, zs, CLEAN):
        x[:n] = z[:n]
    return xs, zs


def denoiser(f):
    shapes = trunk_shapes(inputs=2 * NUMBERS + 2 * FEATURES)
    shapes["denoise.latents.weight"] = (NUMBERS, DIM)
    w, (xs, zs) = first_weights(shapes), noisy_clips()
    (_, (three, d)), grads = jax.value_and_grad(loss, has_aux=True)(w, xs, zs)
    write(f, "golden_loss", list(np.array(three)) + [nothing(xs, zs)])
    write(f, "golden_denoised", np.array(d).ravel())
    write_slopes(f, "golden_slope", grads)


if __name__ == "__main__":
    with open("denoise.inc", "w") as f:
        losses(f)
        denoiser(f)
