"""View banks on disk: the outputs of a frozen teacher for every (image, view), made once and shared
by all rungs, seeds and sweeps. They are written in parts (`bank_parts`), so that several processes
can make one, and an interrupted one is resumed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor, nn

from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.identity import KEY_LENGTH, canonical, digest_of, run_key, splits
from pipeline.session import Session
from pipeline.stages.bank_parts import Parts, part_name
from pipeline.storage.atomic import CorruptFile
from pipeline.storage.lease import acquire
from pipeline.storage.run_record import BankRecord
from pipeline.storage.run_store import RunFolder, Store, if_intact
from trainers import models
from trainers.bank_codes import BankConfig, Codes
from trainers.data import DataConfig, TrainingData
from trainers.data.views import Normaliser, Views
from trainers.errors import UserError
from trainers.numerics import Numerics
from trainers.view_bank import (
    BANK_CHUNK,
    Bank,
    Rows,
    ViewOutputs,
    assemble,
    bank_bytes,
    image_outputs,
    mapped,
    packed,
    view_outputs,
)

log = logging.getLogger("pipeline")

BANK_VERSION = 1  # raise it when the outputs in a bank change


def bank_key(config: Config, teacher: int) -> str:
    """The key of the view bank of one of the bench's teachers."""
    return bank_key_of(config, run_key("finetune", config, teacher=teacher))


def bank_key_of(config: Config, run: str) -> str:
    """The key of a view bank: of the network's run, data, recipe of the views and numerics."""
    recipe = {
        "version": BANK_VERSION,
        "teacher": run,
        "data": splits(config.data).digest,
        **_unlabelled(config.data),
        "chunk": BANK_CHUNK,
        "views": canonical(config.data),
        "numerics": canonical(config.numerics),
        "dtype": "float16",
        **canonical(config.bank),
    }
    return digest_of(recipe)[:KEY_LENGTH]


def _unlabelled(config: DataConfig) -> dict[str, str]:
    found = splits(config).unlabelled
    return {"unlabelled": found.digest} if found is not None else {}


def has_banks(config: Config) -> bool:
    """Whether teachers have view banks: not where every epoch has fresh crops."""
    return config.data.views > 0


def is_made(store: Store, key: str) -> bool:
    """Whether the bank of a key is complete on disk."""
    return bank_record(store.run("bank", key)) is not None


def bank_record(folder: RunFolder) -> BankRecord | None:
    """The record of a bank that is complete; None, with a warning, for one that is damaged, which
    is made again from the parts that are there."""
    return if_intact(lambda: folder.read_record("bank", BankRecord))


def view_bank(
    session: Session,
    key: str,
    name: str,
    model: nn.Module,
    data: TrainingData,
    config: DataConfig,
    numerics: Numerics,
    tables: Path | None = None,
    kept: BankConfig | None = None,
) -> tuple[Bank, float]:
    """The bank of a key, read or made; and the seconds that making it took. With a folder for
    tables of its size it is not held on the device, but mapped from its parts. `kept`: of the
    training views (None: everything).

    Raises:
        UserError: there is no room for it on the disk of the store.
        Interrupted: a stop was requested; the parts that are written are kept.
        LeaseLost: another process took over.
    """
    folder = session.store.run("bank", key)
    views = Views(data.train, config, numerics, data.unlabelled)
    normalise = Normaliser(config, numerics, views.device)
    codes = Codes.of(kept or BankConfig(), config.classes)

    def chunks(start: int, stop: int) -> Iterator[ViewOutputs]:
        for chunk in view_outputs(model, views, numerics, start=start, stop=stop):
            yield packed(chunk, codes)

    def validation() -> dict[str, Tensor]:
        out = image_outputs(model, data.val, normalise, numerics)
        return {"logits": out.logits.half().cpu(), "pooled": out.pooled.half().cpu()}

    done = bank_record(folder)
    if done is None:
        parts = Parts(session, folder, views.rows)
        rows, images = parts.missing_rows, len(data.val.labels)
        shape = config.classes, models.pooled_dim(model)
        needed = bank_bytes(rows, *shape, codes) + bank_bytes(images, *shape)
        check_space(folder.path, {name: needed})
        parts.make(name, chunks)
        done, own = _finished(session, folder, name, parts, validation)
        if own or session.ranks.world > 1:  # of several ranks only the first prints
            say(f"finished view bank  {name}  key {key}  {done.seconds:.1f} s")
    try:
        stored = _read(folder, done.parts, mapped=tables is not None)
        if tables is None:
            train: Rows = assemble(stored, views.rows, views.device, codes=codes)
        else:
            train = mapped(list(stored), views.rows, views.device, tables, codes)
        val = _rows(folder.load_tensors("val", done.val))
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("view bank %s is damaged (%s): the damaged part is rebuilt", key, error)
        (folder.path / "bank.json").unlink(missing_ok=True)
        return view_bank(session, key, name, model, data, config, numerics, tables, kept)
    return Bank(train, ViewOutputs(*(t.to(views.device) for t in val))), done.seconds


def missing_bytes(config: Config, teacher: int, store: Store) -> int:
    """Bytes that are still to be written of the view bank of one of the bench's teachers."""
    folder = store.run("bank", bank_key(config, teacher))
    if bank_record(folder) is not None:
        return 0
    stored = sum(path.stat().st_size for path in folder.path.glob("part-*.safetensors"))
    return max(0, whole_bytes(config, config.teachers()[teacher].model) - stored)


def whole_bytes(config: Config, model: str) -> int:
    """Bytes of the view bank of a network; 0 where the network cannot be built."""
    data, width = config.data, models.known_width(model)
    if width is None:
        width = models.trial(model, data.classes, data.image_size, data.channels).width
    found = splits(data)
    images = len(found.train.labels) + len(found.unlabelled.pixels if found.unlabelled else ())
    codes, rows = Codes.of(config.bank, data.classes), images * data.views
    train = bank_bytes(rows, data.classes, width, codes)
    return train + bank_bytes(len(found.val.labels), data.classes, width) if width else 0


def check_space(folder: Path, needed: dict[str, int]) -> None:
    """Raise UserError where the disk of a folder, which may not exist yet, has no room for view
    banks of these names and bytes."""
    disk = next(path for path in (folder, *folder.parents) if path.exists())
    free, total = shutil.disk_usage(disk).free, sum(needed.values())
    if total > free:
        raise UserError(
            f"no room for view bank {', '.join(needed)}: {in_bytes(total)} are needed in {disk}, "
            f"{in_bytes(free)} are free; delete what is not needed, put the store on another disk "
            "(runtime.store=FOLDER), keep less of every view (bank.logits, bank.features), or make "
            "fewer views of every image (data.views)"
        )


def in_bytes(count: int) -> str:
    """`20.5 GB`, `3.1 MB`: powers of 1000, as `bytes_of` reads them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _finished(
    session: Session,
    folder: RunFolder,
    name: str,
    parts: Parts,
    validation: Callable[[], dict[str, Tensor]],
) -> tuple[BankRecord, bool]:
    """The record of a bank whose parts are all stored, written by one process; whether by this."""
    runtime = session.runtime
    with acquire(
        folder.path,
        heartbeat_s=runtime.heartbeat_s,
        expiry_s=runtime.expiry_s,
        poll_s=min(1.0, runtime.heartbeat_s),
        should_stop=session.stop,
    ) as lease:
        if (done := bank_record(folder)) is not None:
            return done, False
        digests, seconds = parts.finish()
        val = folder.save_tensors("val", validation())
        done = BankRecord(digests, val, seconds, name)
        lease.check()
        folder.write_json("bank", done.to_json())
        parts.clear()
        return done, True


def _read(folder: RunFolder, digests: list[str], *, mapped: bool) -> Iterator[ViewOutputs]:
    for number, digest in enumerate(digests):
        yield _rows(folder.load_tensors(part_name(number), digest, mapped=mapped))


def _rows(tensors: dict[str, Tensor]) -> ViewOutputs:
    return ViewOutputs(tensors["logits"], tensors["pooled"])
