#!/usr/bin/env python3
"""Makes the folders beside it: models of ../hf-1 as LWM's checkpointer leaves them.

    pip install jax flax msgpack safetensors
    python3 make.py

stream     params: records of the model alone (`params::`)
state      streaming_train_state: with step and optimizer state (`trainstate_params::`)
tree       params: one tree of flax (`flax_params::`); arrays of more than 2000 bytes in chunks, as flax does above 2^30

Rows of q and k are as LWM has them: pairs of a head stand side by side, where transformers has one half behind the other.
"""
import json, os, shutil, struct
import flax.serialization, jax.numpy as jnp, ml_dtypes, msgpack, numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
HEADS = 4

def load(of):
    with open(os.path.join(HERE, "../hf-1", of, "model.safetensors"), "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(n))
        data = f.read()
    types = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}
    return {k: np.frombuffer(data[slice(*v["data_offsets"])], types[v["dtype"]]).reshape(v["shape"])
            for k, v in head.items() if k != "__metadata__"}

def side_by_side(w, head):
    """(rows, in): of each head row 2i is row i of its first half, row 2i + 1 that of its second."""
    heads = w.shape[0] // head
    return w.reshape(heads, 2, head // 2, -1).transpose(0, 2, 1, 3).reshape(w.shape)

def tree_of(of):
    w = load(of)
    config = json.load(open(os.path.join(HERE, "../hf-1", of, "config.json")))
    layers, head = config["num_hidden_layers"], config["hidden_size"] // HEADS
    def stacked(name, turn, rope=False):
        all = [w["model.layers.%d.%s.weight" % (i, name)] for i in range(layers)]
        all = [side_by_side(x, head) if rope else x for x in all]
        return {"kernel": jnp.asarray(np.stack([x.T if turn else x for x in all]))}
    block = {
        "attention": {"wq": stacked("self_attn.q_proj", True, True), "wk": stacked("self_attn.k_proj", True, True),
                      "wv": stacked("self_attn.v_proj", True), "wo": stacked("self_attn.o_proj", True)},
        "feed_forward": {"w1": stacked("mlp.gate_proj", True), "w2": stacked("mlp.down_proj", True),
                         "w3": stacked("mlp.up_proj", True)},
        "attention_norm": stacked("input_layernorm", False), "ffn_norm": stacked("post_attention_layernorm", False),
    }
    return {"params": {
        "transformer": {"wte": {"embedding": jnp.asarray(w["model.embed_tokens.weight"])}, "h": {"scan_decoder": block},
                        "ln_f": {"kernel": jnp.asarray(w["model.norm.weight"])}},
        "lm_head": {"kernel": jnp.asarray(w["lm_head.weight"].T)},
    }}

def folder(name, of):
    to = os.path.join(HERE, name)
    shutil.rmtree(to, ignore_errors=True)
    os.mkdir(to)
    shutil.copy(os.path.join(HERE, "../hf-1", of, "config.json"), to)
    return to

def flat(tree, at=()):
    if isinstance(tree, dict):
        for k in sorted(tree):
            yield from flat(tree[k], at + (k,))
    else:
        yield at, tree

def stream(path, tree):
    packer = msgpack.Packer()
    with open(path, "wb") as f:
        for key, value in flat(tree):
            f.write(packer.pack((key, flax.serialization.to_bytes(value))))

to = folder("stream", "grouped-v5")
stream(os.path.join(to, "params"), tree_of("grouped-v5"))

to = folder("state", "grouped-v4")
tree = tree_of("grouped-v4")
small = {"lm_head": {"kernel": jnp.zeros((3, 2))}}
stream(os.path.join(to, "streaming_train_state"),
       {"step": jnp.asarray(7, jnp.int32), "params": tree,
        "opt_state": {"1": {"0": {"count": jnp.asarray(7, jnp.int32), "mu": {"params": small}, "nu": {"params": small}}}}})

to = folder("tree", "mistral-v5")
flax.serialization.MAX_CHUNK_SIZE = 2000
with open(os.path.join(to, "params"), "wb") as f:
    f.write(flax.serialization.to_bytes(tree_of("mistral-v5")))
with open(os.path.join(HERE, "made.txt"), "w") as f:
    f.write("flax %s\nmsgpack %s\nnumpy %s\n" % (flax.__version__, msgpack.version, np.__version__))
