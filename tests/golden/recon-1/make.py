#!/usr/bin/env python3
"""What the VQGAN's training compares frames by: the distance of features and the patch discriminator, computed by a second program:
JAX, double precision.

    python3 -m venv v && v/bin/pip install jax==0.10.2
    cd tests/golden/recon-1 && v/bin/python make.py

Written from the formulas (Zhang et al. 2018; Isola et al. 2017; Wu & He 2018; Esser et al. 2021), not from the C code. Weights and
images come from a counter that both sides can run. unit/test_perceptual and unit/test_patchgan compare.
"""
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def numbers(name, shape):
    """Numbers in [-1/2, 1/2) with 16 bits: FNV-1a of the name begins a linear congruence."""
    x = 2166136261
    for b in name.encode():
        x = ((x ^ b) * 16777619) & 0xFFFFFFFF
    out = []
    for _ in range(int(np.prod(shape))):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append((x >> 16) / 65536 - 0.5)
    return jnp.array(out).reshape(shape)


def conv(x, w, b, stride=1):
    """x NHWC, w (kh, kw, in, out); one row and column of zeros on each side"""
    return jax.lax.conv_general_dilated(x, w, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")) + b


# ---- LPIPS ----

FEATURES = [(0, 3, 4), (2, 4, 5), (5, 5, 6), (8, 6, 4), (10, 4, 7)]  # features.N: from, to channels; N + 3: behind a pooling


def features(x):
    x = (x - jnp.array([-0.030, -0.088, -0.188])) / jnp.array([0.458, 0.448, 0.450])
    out, before = [], None
    for n, cin, cout in FEATURES:
        if before is not None and n == before + 3:
            out.append(x)
            h, w = x.shape[1] // 2, x.shape[2] // 2
            x = x[:, :2 * h, :2 * w].reshape(x.shape[0], h, 2, w, 2, -1).max(axis=(2, 4))
        w = numbers("features.%d.weight" % n, (cout, cin, 3, 3))
        x = jax.nn.relu(conv(x, w.transpose(2, 3, 1, 0), numbers("features.%d.bias" % n, (cout,)) / 4))
        before = n
    return out + [x]


def lpips(x, t):
    total = 0
    for k, (f, g) in enumerate(zip(features(x), features(t))):
        w = numbers("lin%d.model.1.weight" % k, (f.shape[-1],)) + 0.5
        a = f / (jnp.sqrt(jnp.sum(f * f, -1, keepdims=True) + 1e-30) + 1e-10)
        b = g / (jnp.sqrt(jnp.sum(g * g, -1, keepdims=True) + 1e-30) + 1e-10)
        total += jnp.mean(jnp.sum(w * (a - b) ** 2, -1))
    return total


# ---- patch discriminator ----

LAYERS = [(3, 4, 2, False), (4, 8, 2, True), (8, 16, 1, True), (16, 1, 1, None)]  # from, to, stride, norm; None: neither norm nor relu


def weights():
    w = {}
    for i, (cin, cout, _, normed) in enumerate(LAYERS):
        # the last one is large, so that some patches are beyond the hinge
        w["discriminator.conv%d.weight" % i] = numbers("discriminator.conv%d.weight" % i, (4, 4, cin, cout)) * (0.5 if cout > 1 else 2)
        w["discriminator.conv%d.bias" % i] = numbers("discriminator.conv%d.bias" % i, (cout,)) / 4
        if normed:
            w["discriminator.norm%d.weight" % i] = 1 + numbers("discriminator.norm%d.weight" % i, (cout,)) / 2
            w["discriminator.norm%d.bias" % i] = numbers("discriminator.norm%d.bias" % i, (cout,)) / 2
    return w


def group_norm(x, groups, scale, bias):
    n, h, w, c = x.shape
    y = x.reshape(n, h, w, groups, c // groups)
    mean = y.mean(axis=(1, 2, 4), keepdims=True)
    y = (y - mean) / jnp.sqrt(((y - mean) ** 2).mean(axis=(1, 2, 4), keepdims=True) + 1e-5)
    return y.reshape(x.shape) * scale + bias


def judge(w, x):
    for i, (_, cout, stride, normed) in enumerate(LAYERS):
        x = conv(x, w["discriminator.conv%d.weight" % i], w["discriminator.conv%d.bias" % i], stride)
        if normed:
            x = group_norm(x, np.gcd(cout // 4, 32), w["discriminator.norm%d.weight" % i], w["discriminator.norm%d.bias" % i])
        if normed is not None:
            x = jnp.where(x > 0, x, 0.2 * x)
    return x


def hinge(w, x, xr):
    return 0.5 * (jnp.mean(jax.nn.relu(1 - judge(w, x))) + jnp.mean(jax.nn.relu(1 + judge(w, xr))))


# ---- out ----

def braces(values):
    v = np.asarray(values).reshape(-1)
    rows = [", ".join("%.9g" % a for a in v[i:i + 8]) for i in range(0, len(v), 8)]
    return "{ " + ",\n    ".join(rows) + " }"


def array(out, name, values):
    print("static const double %s[] = %s;" % (name, braces(values)), file=out)


def main():
    x, t = 2 * numbers("x", (2, 9, 10, 3)), 2 * numbers("t", (2, 9, 10, 3))
    value, grad = jax.value_and_grad(lpips)(x, t)
    with open("lpips.inc", "w") as out:
        array(out, "golden_loss", [value])
        array(out, "golden_grad", grad)
    w = weights()
    x, xr = 2 * numbers("real", (2, 24, 20, 3)), 2 * numbers("made", (2, 24, 20, 3))
    d, dw = jax.value_and_grad(hinge)(w, x, xr)
    g, dx = jax.value_and_grad(lambda v: -jnp.mean(judge(w, v)))(xr)
    with open("patchgan.inc", "w") as out:
        array(out, "golden_real", judge(w, x))
        array(out, "golden_made", judge(w, xr))
        array(out, "golden_losses", [d, g])
        array(out, "golden_grad", dx[:, ::3, ::3])
        print("static const struct { const char *name; double norm, some[3]; } golden_weights[] = {", file=out)
        for name, v in dw.items():
            v = np.asarray(v).reshape(-1)
            print("    { \"%s\", %.9g, %s }," % (name, np.sqrt((v * v).sum()), braces(v[[0, len(v) // 2, len(v) - 1]])), file=out)
        print("};", file=out)


main()
