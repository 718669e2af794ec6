#!/usr/bin/env python3
"""Makes the folders beside it: models of ../hf-1 as torch.save leaves them.

    pip install torch safetensors numpy
    python3 make.py

zip        one archive; the head shares its numbers with the embedding
older      the form of before PyTorch 1.6
parts      two files and an index; of the second, matrices lie transposed, and several in one piece of memory
wrapped    as a trainer saves: names that begin with "model.", beside them steps, optimizer state and an object of a class of Python
unsummed   an archive without CRC-32

made.txt says which versions made them.
"""
import argparse, collections, json, os, shutil
import safetensors.torch, torch

HERE = os.path.dirname(os.path.abspath(__file__))

def folder(name, of):
    """The weights of a model there, its configuration here."""
    to = os.path.join(HERE, name)
    shutil.rmtree(to, ignore_errors=True)
    os.mkdir(to)
    shutil.copy(os.path.join(HERE, "../hf-1", of, "config.json"), to)
    return to, safetensors.torch.load_file(os.path.join(HERE, "../hf-1", of, "model.safetensors"))

to, w = folder("zip", "tied-v5")
w["lm_head.weight"] = w["model.embed_tokens.weight"]
torch.save(collections.OrderedDict(w), os.path.join(to, "pytorch_model.bin"))

to, w = folder("older", "grouped-v5")
torch.save(w, os.path.join(to, "pytorch_model.bin"), _use_new_zipfile_serialization=False)

to, w = folder("parts", "mistral-v5")
names = sorted(w)
first, second = {n: w[n] for n in names[:9]}, {}
matrices = [n for n in names[9:] if w[n].dim() == 2]
for n in names[9:]:
    second[n] = w[n].t().contiguous().t() if n in matrices else w[n]
big = torch.cat([w[n].flatten() for n in matrices[:2]])  # two of them in one piece of memory
at = 0
for n in matrices[:2]:
    second[n] = torch.as_strided(big, w[n].shape, w[n].stride(), at)
    at += w[n].numel()
files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
for part, f in zip((first, second), files):
    torch.save(part, os.path.join(to, f))
index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in w.values())},
         "weight_map": {n: files[0 if n in first else 1] for n in names}}
with open(os.path.join(to, "pytorch_model.bin.index.json"), "w") as f:
    json.dump(index, f, indent=1)

to, w = folder("wrapped", "grouped-v4")
model = torch.nn.Linear(2, 3)
opt = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 2)).sum().backward()
opt.step()
torch.save({"epoch": 3, "global_step": 1 << 40, "state_dict": {"model." + n: torch.nn.Parameter(t) for n, t in w.items()},
            "optimizer_states": [opt.state_dict()], "hyper_parameters": argparse.Namespace(lr=1e-3, seen={1, 2})},
           os.path.join(to, "pytorch_model.bin"))

to, w = folder("unsummed", "grouped-v4")
torch.serialization.set_crc32_options(False)
torch.save({n: t for n, t in w.items() if "layers" not in n}, os.path.join(to, "pytorch_model.bin"))
torch.serialization.set_crc32_options(True)

with open(os.path.join(HERE, "made.txt"), "w") as f:
    f.write("torch %s\nsafetensors %s\n" % (torch.__version__, safetensors.__version__))
