#!/usr/bin/env python3
"""PyTorch's attention on the same GPU, for the column beside ours: flash and cuDNN, causal, bf16, 16K tokens.

    python3 tests/bench/cuda/torch_attention.py

Prints TFLOP/s of the causal half, forward 2 T^2 H D, backward 2.5 times that, and the product that both are held against.
"""
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def seconds(fn, least=0.25):
    fn()
    torch.cuda.synchronize()
    best = 1e9
    start = time.perf_counter()
    fn()
    torch.cuda.synchronize()
    n = max(1, min(200, int(least / 5 / (time.perf_counter() - start + 1e-6))))
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(n):
            fn()
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / n)
    return best


def product():
    a = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16) * 2 - 1
    b = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16) * 2 - 1
    return 2 * 8192**3 / seconds(lambda: a @ b.t())


def attention(backend, t, h, d):
    make = lambda: (torch.rand(1, t, h, d, device="cuda", dtype=torch.bfloat16) * 2 - 1).transpose(1, 2)
    q, k, v, dout = make().requires_grad_(), make().requires_grad_(), make().requires_grad_(), make()
    with sdpa_kernel(backend):
        with torch.no_grad():
            fwd = seconds(lambda: scaled_dot_product_attention(q, k, v, is_causal=True))
        o = scaled_dot_product_attention(q, k, v, is_causal=True)
        bwd = seconds(lambda: torch.autograd.grad(o, (q, k, v), dout, retain_graph=True))
    flop = 2.0 * t * t * h * d
    return flop / fwd, 2.5 * flop / bwd


def main():
    peak = product()
    print(f"# torch {torch.__version__}, product of 8192^3: {peak * 1e-12:.1f} TFLOP/s")
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
        for h, d in ((32, 64), (24, 96), (16, 128)):
            try:
                fwd, bwd = attention(backend, 16384, h, d)
            except RuntimeError as why:
                print(f"torch {name}, causal 16K, {h} x {d}: not measured: {str(why).splitlines()[0]}")
                continue
            print(f"torch {name}, causal 16K, {h} x {d}: forward {fwd * 1e-12:.1f} TFLOP/s ({fwd / peak:.3f} of the product), "
                  f"backward {bwd * 1e-12:.1f} ({bwd / peak:.3f})")


if __name__ == "__main__":
    main()
