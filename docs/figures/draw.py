"""Draws the figures of the course: runs every lesson, and makes its pictures small."""

import runpy
import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent
EXAMPLES = FOLDER.parents[1] / "examples"

sys.path.insert(0, str(EXAMPLES))
for lesson in sorted(EXAMPLES.glob("lesson_*.py")):
    print(f"\n{lesson.name}")
    sys.argv = [str(lesson), str(FOLDER)]
    runpy.run_path(str(lesson), run_name="__main__")

for path in FOLDER.glob("*.png"):
    with Image.open(path) as picture:
        size = [side * 2 // 3 for side in picture.size]
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # 256 colors are all that these need, and take a third of the bytes.
    small.quantize(256, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
