"""folder: any tree of root/train/<class>/…/<image> and root/test (or val)/<class>/…/<image>; images
without a label are in root/unlabelled."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from trainers.data.base import DataConfig, DataDamaged, DataMissing, Raw, missing

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

VALIDATION, UNLABELLED = ("val", "valid", "validation"), "unlabelled"
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # none that is a program, as EPS is
MOST_PIXELS = 2**26  # of one image: it is decoded whole, in up to 256 MB
THREADS = 4  # each holds an image
MODES = {1: "L", 3: "RGB"}


def read(config: DataConfig) -> Raw:
    """Every image decoded once to a square of `data.image_size` pixels. Test is root/test, or
    root/val (valid, validation) where there is no test; where both are, root/val is the validation
    part, and `data.val_fraction` is of no account. Transparency is dropped, and a photograph that
    was taken with the camera turned is not turned back (its EXIF entry is not read).

    Raises:
        DataMissing: no such folders.
        DataDamaged: classes that do not fit data.classes, no images, or one that is none.
    """
    # Of palettes with transparency, damaged EXIF entries: the pixels are the same.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
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
    if config.channels not in MODES:
        raise DataDamaged(f"data.channels={config.channels}: type 1 (grey) or 3 (colour)")
    for part in (test, val) if val is not None else (test,):
        if strange := [name for name in _classes(part) if name not in classes]:
            raise DataDamaged(f"{part / strange[0]}: a class of which {train} has no images")
    return Raw(
        *_decoded(train, classes, config),
        *_decoded(test, classes, config),
        classes,
        val=None if val is None else _decoded(val, classes, config),
        unlabelled=_unlabelled(config),
    )


def _unlabelled(config: DataConfig) -> np.ndarray | None:
    """The images of root/unlabelled, in subfolders or not, by path: decoded only where
    `data.unlabelled` takes some."""
    folder = _root(config) / UNLABELLED
    if config.unlabelled == 0 or not folder.is_dir():
        return None
    return _pixels(_images(folder), config)


def has_validation(config: DataConfig) -> bool:
    """Whether the folder has validation images of its own, next to those of the test."""
    folders = {path.name for path in _root(config).glob("*/")}
    return "test" in folders and not folders.isdisjoint(VALIDATION)


def _root(config: DataConfig) -> Path:
    return Path(config.root or "data")


def _validation(root: Path) -> Path | None:
    found = [root / name for name in VALIDATION if (root / name).is_dir()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataDamaged(f"{root}: {names}: several folders of validation images; keep one")
    return found[0] if found else None


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
    root = _root(config)
    val = _validation(root)
    test = root / "test" if (root / "test").is_dir() else None
    if not (root / "train").is_dir():
        raise missing("folder", "folder train", [root], ways)
    if test is None and val is None:
        raise missing("folder", "folder test, nor val", [root], ways)
    return root / "train", test or cast(Path, val), val if test else None


def _classes(part: Path) -> tuple[str, ...]:
    """Names of the class folders, sorted; hidden ones are none. Images next to them are a
    warning."""
    found = sorted(path for path in part.iterdir() if not path.name.startswith("."))
    loose = [p for p in found if not p.is_dir() and p.suffix.lower() in ENDINGS]
    _report(part, loose, len(loose))
    return tuple(path.name for path in found if path.is_dir())


def _decoded(
    part: Path, classes: Sequence[str], config: DataConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N, C, S, S], labels [N]), by class, then by name."""
    found = [(path, label) for label, name in enumerate(classes) for path in _images(part / name)]
    pixels = _pixels([path for path, _ in found], config)
    return pixels, np.array([label for _, label in found], dtype=np.int64)


def _pixels(paths: Sequence[Path], config: DataConfig) -> np.ndarray:
    """The decoded images, [N, C, S, S]."""
    size, channels = config.image_size, config.channels
    pixels = np.empty((len(paths), channels, size, size), dtype=np.uint8)

    def fill(number: int) -> None:
        pixels[number] = decode(paths[number], size, channels)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(len(paths))):  # the first error ends it
            pass
    return pixels


def _images(folder: Path) -> list[Path]:
    """The images of a class and of its subfolders, sorted by path, without what is hidden. Files
    that are left out are a warning; no image at all is an error in training only."""
    paths = sorted(_files(folder))
    found = [path for path in paths if path.suffix.lower() in ENDINGS]
    _report(folder, [path for path in paths if path.suffix.lower() not in ENDINGS], len(paths))
    if folder.parent.name == "train" and not found:
        raise DataDamaged(f"{folder}: no images (of the endings {' '.join(ENDINGS)})")
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder and below folders that it links to, each folder once."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(root, name)) not in seen
        ]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _report(folder: Path, others: Sequence[Path], count: int) -> None:
    """A warning of files that are left out, of a number of files in all."""
    if others:
        kinds = sorted({path.suffix or path.name for path in others})
        log.warning(
            "%s: %d of %d files are not taken for images of a class (%s)",
            *(folder, len(others), count, ", ".join(kinds[:5])),
        )


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
