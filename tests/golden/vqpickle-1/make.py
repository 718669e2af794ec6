#!/usr/bin/env python3
"""Makes the pickles beside it: frame tokenizers as LWM stores them, of a net with four channels.

    pip install numpy jax       # whichever numpy: its version is part of the name
    python3 make.py

The names are flax's: modules counted by kind, in the order in which they are made. Beside each stands the one that diffusers gives to the
same layer. With these sorted, value j of tensor i is 1000 i + j, in the order rows, columns, in, out.
"""
import os, pickle
import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
C, Z, EMBED, CODES = (4, 8), 3, 2, 5
pairs = []  # flax, diffusers, shape

def conv(flax, other, cin, cout, k=3):
    pairs.append((flax + "/kernel", other + ".weight", (k, k, cin, cout)))
    pairs.append((flax + "/bias", other + ".bias", (cout,)))

def norm(flax, other, c):
    pairs.append((flax + "/scale", other + ".weight", (c,)))
    pairs.append((flax + "/bias", other + ".bias", (c,)))

def resnet(flax, other, cin, cout):
    norm(flax + "/GroupNorm_0", other + ".norm1", cin)
    conv(flax + "/Conv_0", other + ".conv1", cin, cout)
    norm(flax + "/GroupNorm_1", other + ".norm2", cout)
    conv(flax + "/Conv_1", other + ".conv2", cout, cout)
    if cin != cout:
        conv(flax + "/Conv_2", other + ".conv_shortcut", cin, cout, 1)

conv("encoder/Conv_0", "encoder.conv_in", 3, C[0])
resnet("encoder/DownsamplingBlock_0/ResnetBlock_0", "encoder.down_blocks.0.resnets.0", C[0], C[0])
conv("encoder/DownsamplingBlock_0/Downsample_0/Conv_0", "encoder.down_blocks.0.downsamplers.0.conv", C[0], C[0])
resnet("encoder/DownsamplingBlock_1/ResnetBlock_0", "encoder.down_blocks.1.resnets.0", C[0], C[1])
for i in range(2):
    resnet("encoder/MidBlock_0/ResnetBlock_%d" % i, "encoder.mid_block.resnets.%d" % i, C[1], C[1])
norm("encoder/GroupNorm_0", "encoder.conv_norm_out", C[1])
conv("encoder/Conv_1", "encoder.conv_out", C[1], Z)
conv("quant_conv", "quant_conv", Z, EMBED, 1)
pairs.append(("quantize/embeddings", "quantize.embedding.weight", (CODES, EMBED)))
conv("post_quant_conv", "post_quant_conv", EMBED, Z, 1)
conv("decoder/Conv_0", "decoder.conv_in", Z, C[1])
for i in range(2):
    resnet("decoder/MidBlock_0/ResnetBlock_%d" % i, "decoder.mid_block.resnets.%d" % i, C[1], C[1])
for i in range(2):
    resnet("decoder/UpsamplingBlock_0/ResnetBlock_%d" % i, "decoder.up_blocks.0.resnets.%d" % i, C[1], C[1])
conv("decoder/UpsamplingBlock_0/Upsample_0/Conv_0", "decoder.up_blocks.0.upsamplers.0.conv", C[1], C[1])
resnet("decoder/UpsamplingBlock_1/ResnetBlock_0", "decoder.up_blocks.1.resnets.0", C[1], C[0])
resnet("decoder/UpsamplingBlock_1/ResnetBlock_1", "decoder.up_blocks.1.resnets.1", C[0], C[0])
norm("decoder/GroupNorm_0", "decoder.conv_norm_out", C[0])
conv("decoder/Conv_1", "decoder.conv_out", C[0], 3)

tree = {}
for i, (flax, other, shape) in enumerate(sorted(pairs, key=lambda p: p[1])):
    at = tree
    *above, last = flax.split("/")
    for part in above:
        at = at.setdefault(part, {})
    n = int(numpy.prod(shape))
    at[last] = (1000 * i + numpy.arange(n)).astype(numpy.float32).reshape(shape)

major = numpy.__version__.split(".")[0]
for protocol in (4, 5):
    with open(os.path.join(HERE, "numpy%s-p%d.pkl" % (major, protocol)), "wb") as f:
        pickle.dump({"params": tree} if protocol == 5 else tree, f, protocol=protocol)
with open(os.path.join(HERE, "names.txt"), "w") as f:
    for name, shape in sorted((p[1], p[2]) for p in pairs):
        f.write("%s %s\n" % (name, " ".join(map(str, shape))))
with open(os.path.join(HERE, "p2.pkl"), "wb") as f:
    pickle.dump({"quantize": tree["quantize"]}, f, protocol=2)
with open(os.path.join(HERE, "fortran.pkl"), "wb") as f:
    pickle.dump({"quantize": {"embeddings": numpy.asfortranarray(tree["quantize"]["embeddings"])}}, f, protocol=4)
try:
    import jax.numpy
    with open(os.path.join(HERE, "jax.pkl"), "wb") as f:
        pickle.dump({"quantize": {"embeddings": jax.numpy.ones((5, 2))}}, f, protocol=4)
except ImportError:
    pass
