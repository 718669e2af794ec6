"""Frames cropped and resized by Pillow, as Vista's data code does it (vwm/data/subsets/common.py):

    pip install pillow==10.4.0

    python make.py > lanczos.inc

Rows are resized first, then columns. Pillow 13 does it the other way round for some sizes.

Of each case the sizes, the FNV-1a hash of all bytes of the result, and its first 12 bytes. Pixels are those of the formula in
picture(), which unit/test_annos has too."""
import PIL
from PIL import Image

CASES = [(1600, 900, 576, 320), (1600, 900, 1024, 576), (640, 480, 64, 64), (48, 97, 128, 64), (64, 64, 64, 64), (65, 64, 64, 64),
         (37, 23, 192, 128), (1280, 720, 1024, 576), (7, 5, 64, 64), (300, 200, 64, 192)]


def picture(w, h):
    out = bytearray()
    for y in range(h):
        for x in range(w):
            r = (x * 7 + y * 13 + (x * y) % 31 * 5) & 255
            g = 255 if (x // 5 + y // 3) % 2 else 0
            b = (x * x + 3 * y * y) >> 3 & 255
            out += bytes((r, g, b))
    return Image.frombytes("RGB", (w, h), bytes(out))


def resized(image, tw, th):
    w, h = image.size
    if w / h > tw / th:
        tmp = int(tw / th * h)
        image = image.crop(((w - tmp) // 2, 0, (w + tmp) // 2, h))
    elif w / h < tw / th:
        tmp = int(th / tw * w)
        image = image.crop((0, (h - tmp) // 2, w, (h + tmp) // 2))
    return image.resize((tw, th), resample=Image.LANCZOS)


print(f"/* made by make.py with Pillow {PIL.__version__} */")
for w, h, tw, th in CASES:
    data = resized(picture(w, h), tw, th).tobytes()
    fnv = 0xcbf29ce484222325
    for byte in data:
        fnv = (fnv ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    print(f"{{ {w}, {h}, {tw}, {th}, 0x{fnv:016x}ULL, {{ {', '.join(str(v) for v in data[:12])} }} }},")
