"""folder: any tree of root/train/<class>/…/<image> and root/test (or val)/<class>/…/<image>."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from trainers.data.base import DataConfig, DataDamaged, DataMissing, Raw, not_here

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

VALIDATION = ("val", "valid", "validation")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # none that is a program, as EPS is
MOST_PIXELS = 2**26  # of one image: it is decoded whole, in up to 256 MB
THREADS = 4  # each holds an image
MODES = {1: "L", 3: "RGB"}


def read(config: DataConfig) -> Raw:
    """Every image decoded once to a square of `data.image_size` pixels. Test is root/test, or
    root/val (valid, validation) where there is no test; where both are, root/val is the validation
    part, and `data.val_fraction` is of no account.

    Raises:
        DataMissing: no such folders.
        DataDamaged: classes that do not fit data.classes, no images, or one that is none.
    """
    train, test, val = _parts(config)
    classes = _classes(train)
    if len(classes) == 1:
        raise DataDamaged(
            f"data set folder has one class folder in {train} ({classes[0]}): one class alone "
            "cannot be learned; give every class its own folder"
        )
    if len(classes) != config.classes:
        raise DataDamaged(
            f"data set folder has {len(classes)} class folders in {train}, the configuration says "
            f"data.classes={config.classes}: type data.classes={len(classes)}"
        )
    if strange := [name for name in _classes(test) if name not in classes]:
        raise DataDamaged(f"{test / strange[0]}: a class of which {train} has no images")
    if config.channels not in MODES:
        raise DataDamaged(f"data.channels={config.channels}: type 1 (grey) or 3 (colour)")
    for part in (val,) if val is not None else ():
        if strange := [name for name in _classes(part) if name not in classes]:
            raise DataDamaged(f"{part / strange[0]}: a class of which {train} has no images")
    return Raw(
        *_decoded(train, classes, config),
        *_decoded(test, classes, config),
        classes,
        val=None if val is None else _decoded(val, classes, config),
    )


def _parts(config: DataConfig) -> tuple[Path, Path, Path | None]:
    """The folders of training, test and validation images. Without root/test the validation
    folder is the test, and a part of the training images is for validation."""
    if config.download:
        raise DataMissing(
            "data set folder is your own and cannot be fetched: type data.download=false and name "
            "the folder: data.root=PATH"
        )
    ways = [
        "name a folder with train/<class>/<image> and test/<class>/<image> (or val/): "
        "data.root=PATH; its images: " + " ".join(ENDINGS)
    ]
    root = Path(config.root or "data")
    val = next((root / name for name in VALIDATION if (root / name).is_dir()), None)
    test = root / "test" if (root / "test").is_dir() else None
    if not (root / "train").is_dir():
        raise not_here("folder", "folder train", [root], ways)
    if test is None and val is None:
        raise not_here("folder", "folder test, nor val", [root], ways)
    return root / "train", test or cast(Path, val), val if test else None


def _classes(part: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; hidden ones are none."""
    return tuple(
        sorted(p.name for p in part.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _decoded(
    part: Path, classes: Sequence[str], config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N, C, S, S], labels [N]), by class, then by name."""
    found = [(path, label) for label, name in enumerate(classes) for path in _images(part / name)]
    size, channels = config.image_size, config.channels
    pixels = np.empty((len(found), channels, size, size), dtype=np.uint8)

    def fill(number: int) -> None:
        pixels[number] = decode(found[number][0], size, channels)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(len(found))):  # the first error ends it
            pass
    return pixels, np.array([label for _, label in found], dtype=np.int64)


def _images(folder: Path) -> list[Path]:
    """The images of a class and of its subfolders, sorted by path, without what is hidden. Files
    that are left out are a warning; no image at all is an error in training only."""
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    found = [path for path in paths if path.suffix.lower() in ENDINGS]
    if len(found) < len(paths):
        others = sorted({path.suffix or path.name for path in paths if path not in set(found)})
        log.warning(
            "%s: %d of %d files are not taken for images (%s)",
            folder,
            len(paths) - len(found),
            len(paths),
            ", ".join(others[:5]),
        )
    if folder.parent.name == "train" and not found:
        raise DataDamaged(f"{folder}: no images (of the endings {' '.join(ENDINGS)})")
    return found


def decode(path: Path, size: int, channels: int) -> np.ndarray:
    """An image as uint8 [C, size, size]: its shorter side resized to `size`, centre cropped.

    Raises:
        DataDamaged: no image of the known formats, truncated, or too large.
    """
    from PIL import Image, ImageOps  # only where images are decoded: it takes time to import

    if not path.is_file():
        raise DataDamaged(f"{path}: no plain file, or a link that leads nowhere; remove it")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:  # known from the header: nothing is decoded yet
                raise DataDamaged(
                    f"{path}: {width} × {height} pixels, more than the {MOST_PIXELS:,} that are "
                    "decoded; make it smaller"
                )
            square = ImageOps.fit(_plain(image, channels), (size, size), Image.Resampling.BILINEAR)
    except DataDamaged:
        raise
    except Exception as error:  # whatever a damaged image makes a decoder do
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataDamaged(
            f"{path}: cannot be decoded as an image ({reason}); mend or remove it"
        ) from error
    return np.asarray(square).reshape(size, size, channels).transpose(2, 0, 1)


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """In 8 bits, grey or RGB. Of 16 bits the upper 8 (Pillow's own conversion would clip)."""
    if image.mode.startswith("I;16"):
        from PIL import Image

        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 or 16 bits")
    return image.convert(MODES[channels])
