"""View banks on disk: the outputs of a frozen teacher for every (image, view), made once and shared
by all rungs, seeds and sweeps. They are written in parts, so that an interrupted bank is resumed.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from pipeline.cli.console import say
from pipeline.config import Config
from pipeline.identity import KEY_LENGTH, canonical, digest_of, run_key, splits
from pipeline.session import Session
from pipeline.storage.atomic import CorruptFile, set_aside
from pipeline.storage.lease import Holder, Lease, acquire
from pipeline.storage.run_record import BankRecord
from pipeline.storage.run_store import RunFolder, Store, if_intact
from trainers.data import DataConfig, TrainingData
from trainers.data.views import Normaliser, Views
from trainers.errors import Interrupted
from trainers.numerics import Numerics
from trainers.view_bank import BANK_CHUNK, Bank, ViewOutputs, assemble, image_outputs, view_outputs

log = logging.getLogger("pipeline")

BANK_VERSION = 1  # raise it when the outputs in a bank change
CHUNKS_A_PART = 128


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
) -> tuple[Bank, float]:
    """The bank of a key, read or made; and the seconds that making it took.

    Raises:
        Interrupted: a stop was requested; the parts that are written are kept.
        LeaseLost: another process took over.
    """
    folder = session.store.run("bank", key)
    views = Views(data.train, config, numerics, data.unlabelled)
    normalise = Normaliser(config, numerics, views.device)

    def make(lease: Lease) -> BankRecord:
        return _make(session, folder, lease, model, views, data, normalise, numerics)

    done = bank_record(folder) or _once(session, folder, name, make)
    try:
        train = assemble(_read(folder, done.parts), views.rows, views.device)
        val = _rows(folder.load_tensors("val", done.val))
    except (CorruptFile, FileNotFoundError) as error:
        log.warning("view bank %s is damaged (%s): the damaged part is rebuilt", key, error)
        (folder.path / "bank.json").unlink(missing_ok=True)
        return view_bank(session, key, name, model, data, config, numerics)
    return Bank(train, ViewOutputs(*(t.to(views.device) for t in val))), done.seconds


def _once(
    session: Session, folder: RunFolder, name: str, make: Callable[[Lease], BankRecord]
) -> BankRecord:
    """The parts of a bank, made by one process; the others wait for it."""

    def waiting(holder: Holder) -> None:
        say(f"waiting  view bank  {name}  key {folder.key} is being made by {holder}")

    runtime = session.runtime
    with acquire(
        folder.path,
        heartbeat_s=runtime.heartbeat_s,
        expiry_s=runtime.expiry_s,
        poll_s=min(1.0, runtime.heartbeat_s),
        on_wait=waiting,
        should_stop=session.stop,
    ) as lease:
        done = bank_record(folder)
        if done is None:
            done = replace(make(lease), name=name)
            lease.check()
            folder.write_json("bank", done.to_json())
            say(f"finished view bank  {name}  key {folder.key}  {done.seconds:.1f} s")
    return done


def _make(
    session: Session,
    folder: RunFolder,
    lease: Lease,
    model: nn.Module,
    views: Views,
    data: TrainingData,
    normalise: Normaliser,
    numerics: Numerics,
) -> BankRecord:
    """Write the missing parts, then the validation outputs; return the list of all files."""
    digests, seconds = _parts_there(folder)
    rows = view_outputs(model, views, numerics, start=len(digests) * CHUNKS_A_PART)
    while True:
        began = time.perf_counter()
        if session.stop():
            raise Interrupted
        part = list(itertools.islice(rows, CHUNKS_A_PART))
        if not part:
            break
        lease.check()
        tensors = {
            "logits": torch.cat([p.logits for p in part]).cpu(),
            "pooled": torch.cat([p.pooled for p in part]).cpu(),
        }
        digests.append(folder.save_tensors(f"part-{len(digests):06d}", tensors))
        seconds += time.perf_counter() - began
        folder.write_json("seconds", seconds)
    out = image_outputs(model, data.val, normalise, numerics)
    val = {"logits": out.logits.half().cpu(), "pooled": out.pooled.half().cpu()}
    return BankRecord(digests, folder.save_tensors("val", val), seconds)


def _parts_there(folder: RunFolder) -> tuple[list[str], float]:
    """Digests of the leading parts that an earlier process left intact, and their seconds."""
    digests: list[str] = []
    while True:
        name = f"part-{len(digests):06d}"
        try:
            path = folder.tensors_path(name)
            digest = path.name.split(".")[1]
            folder.load_tensors(name, digest)
        except FileNotFoundError:
            return digests, _seconds(folder)
        except (CorruptFile, ValueError) as error:
            log.warning("part of a view bank cannot be used (%s): rebuilt", error)
            for damaged in folder.path.glob(f"{name}.*.safetensors"):
                set_aside(damaged)
            return digests, _seconds(folder)
        digests.append(digest)


def _seconds(folder: RunFolder) -> float:
    found = if_intact(lambda: folder.read_json("seconds"))
    return float(found) if isinstance(found, int | float) else 0.0


def _read(folder: RunFolder, digests: list[str]) -> Iterator[ViewOutputs]:
    for number, digest in enumerate(digests):
        yield _rows(folder.load_tensors(f"part-{number:06d}", digest))


def _rows(tensors: dict[str, torch.Tensor]) -> ViewOutputs:
    return ViewOutputs(tensors["logits"], tensors["pooled"])
