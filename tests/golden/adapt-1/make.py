#!/usr/bin/env python3
"""Updates of a few weights of which some are frozen and some have a learning rate of their own, the average of them, and updates of
adapters of low rank, by PyTorch.

    python3 -m venv v && v/bin/pip install torch==2.15.0
    cd tests/golden/adapt-1 && v/bin/python make.py

torch.optim.AdamW with parameter groups, in double precision; the average is that of LitEma (ldm/modules/ema.py of latent diffusion,
which Vista trains with), in other words.
"""
import math

import torch

torch.set_default_dtype(torch.float64)

# name, first values, trains, decays, factor of the learning rate: as `list` in unit/test_adapt.c
TENSORS = [("norm", [1.0, 1.1, 0.9], True, False, 1.0), ("frozen", [0.3, -0.7, 0.2, 0.6], False, True, 1.0),
           ("slow", [0.5, -0.25, 0.125, 2.0, -1.5], True, True, 0.25), ("fast", [0.75, -0.5], True, True, 3.0)]
LR, DECAY, BETAS, EPS, WEIGHT_DECAY, UPDATES = 0.02, 0.5, (0.9, 0.95), 1e-8, 0.1, 14


def gradient(n, i):
    return 0.4 * math.sin(1.3 * n + 0.9 * i) + 0.05 * i


class Average:
    def __init__(self, params, decay):
        self.decay, self.updates = decay, 0
        self.shadow = [p.clone().detach() for p in params]

    def __call__(self, params):
        self.updates += 1
        rest = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for s, p in zip(self.shadow, params):
                s.sub_(rest * (s - p))


params = [torch.nn.Parameter(torch.tensor(v), requires_grad=trains) for _, v, trains, _, _ in TENSORS]
groups = [{"params": [p], "lr": LR * rate, "weight_decay": WEIGHT_DECAY if decays else 0.0}
          for p, (_, _, trains, decays, rate) in zip(params, TENSORS) if trains]
adam = torch.optim.AdamW(groups, betas=BETAS, eps=EPS)
average = Average(params, DECAY)
out = ""
for n in range(UPDATES):
    i = 0
    for p in params:
        g = torch.tensor([gradient(n, i + k) for k in range(len(p))])
        i += len(p)
        if p.requires_grad:
            p.grad = g
    adam.step()
    average(params)
    values = [x.item() for p in params for x in p.detach()] + [x.item() for s in average.shadow for x in s]
    out += "{ " + ", ".join(f"{x:.12g}" for x in values) + " },\n"
open("updates.inc", "w").write(out)

# Adapters: y = x W^T + SCALE (x A^T) B^T, never the sum of the weights; half the squared distance from a target, as in unit/test_lora.c
ROWS, COLS, RANK, INPUTS, SCALE = 5, 7, 2, 3, 1.5
w = torch.tensor([[0.4 * math.sin(0.9 * (COLS * i + j)) for j in range(COLS)] for i in range(ROWS)])
x = torch.tensor([[math.cos(0.37 * (COLS * k + j)) for j in range(COLS)] for k in range(INPUTS)])
target = torch.tensor([[0.5 * math.sin(1.1 * (ROWS * k + i)) for i in range(ROWS)] for k in range(INPUTS)])
a = torch.nn.Parameter(torch.tensor([[0.3 * math.sin(COLS * r + j + 1) for j in range(COLS)] for r in range(RANK)]))
b = torch.nn.Parameter(torch.tensor([[0.2 * math.cos(2 * (RANK * i + r)) for r in range(RANK)] for i in range(ROWS)]))
adam = torch.optim.AdamW([a, b], lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
out = ""
for n in range(UPDATES):
    adam.zero_grad()
    y = x @ w.T + SCALE * (x @ a.T) @ b.T
    (0.5 * ((y - target) ** 2).sum()).backward()
    adam.step()
    out += "{ " + ", ".join(f"{float(v):.12g}" for v in list(a.flatten()) + list(b.flatten())) + " },\n"
open("lora.inc", "w").write(out)
