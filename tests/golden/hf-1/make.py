#!/usr/bin/env python3
"""Makes one model folder of this directory with Hugging Face's transformers, as save_pretrained leaves it, and what the same
program says of it: logits, losses, gradients and a greedy continuation.

    pip install torch transformers
    python3 make.py NAME...       # all without a NAME; says which versions made it in NAME/golden.txt

golden.txt: "version ..." "ids ..." "loss MEAN" "nll I VALUE" "grad TENSOR NORM" "greedy IDS" "logits I VALUES..." in nine digits.
Weights are random, ten times the usual size, so that softmax and norms do more than nothing.
"""
import os, shutil, sys
import torch, transformers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, bos_token_id=1, eos_token_id=2, initializer_range=0.2, attn_implementation="eager")

def rope(theta):
    """The base of the rotation, where this version of transformers wants it."""
    if int(transformers.__version__.split(".")[0]) >= 5:
        return dict(rope_parameters=dict(rope_type="default", rope_theta=theta))
    return dict(rope_theta=theta)

MODELS = {
    "llama": (LlamaForCausalLM, lambda: LlamaConfig(**BASE)),
    "grouped": (LlamaForCausalLM, lambda: LlamaConfig(**BASE, num_key_value_heads=2, rms_norm_eps=1e-5, **rope(500000.0))),
    "tied": (LlamaForCausalLM, lambda: LlamaConfig(**BASE, num_key_value_heads=1, tie_word_embeddings=True, head_dim=8,
                                                         **rope(50000.0))),
    "mistral": (MistralForCausalLM, lambda: MistralConfig(**BASE, num_key_value_heads=2, sliding_window=None, **rope(1000000.0))),
}

def text(values):
    return " ".join("%.9g" % v for v in values)

def make(name, suffix):
    kind, config = MODELS[name]
    torch.manual_seed(sum(name.encode()))
    model = kind(config())
    if name != "llama":  # half the bytes
        model = model.to(torch.bfloat16)
    for n, p in model.named_parameters():
        if "norm" in n:
            p.data.add_(0.3 * torch.randn_like(p))
    where = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + suffix)
    shutil.rmtree(where, ignore_errors=True)
    model.save_pretrained(where)
    model = kind.from_pretrained(where, attn_implementation="eager").to(torch.float64)  # the folder, not what made it
    ids = torch.randint(3, BASE["vocab_size"], (1, 16))
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    logits = out.logits[0].detach()
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    grads = {}
    for n, p in model.named_parameters():
        grads[n] = p.grad.norm().item()
    greedy = ids
    for _ in range(12):
        with torch.no_grad():
            greedy = torch.cat([greedy, model(input_ids=greedy).logits[:, -1:].argmax(-1)], 1)
    with open(os.path.join(where, "golden.txt"), "w") as f:
        print("version transformers %s torch %s" % (transformers.__version__, torch.__version__), file=f)
        print("ids", *ids[0].tolist(), file=f)
        print("loss %.9g" % out.loss.item(), file=f)
        for i, v in enumerate(nll.tolist()):
            print("nll %d %.9g" % (i, v), file=f)
        for n, v in sorted(grads.items()):
            print("grad %s %.9g" % (n, v), file=f)
        print("greedy", *greedy[0, 16:].tolist(), file=f)
        for i in range(16):
            print("logits %d %s" % (i, text(logits[i].tolist())), file=f)

if __name__ == "__main__":
    suffix = "-v" + transformers.__version__.split(".")[0]
    for name in sys.argv[1:] or MODELS:
        make(name, suffix)
