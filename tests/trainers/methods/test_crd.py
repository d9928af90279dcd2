"""CRD: the contrast against a slow formula, its negatives, its memory."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.trainers.methods.parts import IMAGES, TIGHT, Case, case, dims, make, mean, mixed, normal
from trainers import losses
from trainers.methods import crd
from trainers.mixing import UNMIXED, Mix

EPS, T = 1e-7, 0.07


def slow_nce(anchor: Tensor, bank: Tensor, index: list[int], z: Tensor) -> Tensor:
    noise = (len(index) - 1) / IMAGES
    x = [torch.exp((anchor * bank[j]).sum() / T) / z for j in index]
    total = -torch.log(x[0] / (x[0] + noise + EPS))
    for value in x[1:]:
        total = total - torch.log(noise / (value + noise + EPS))
    return total


def slow_z(anchors: Tensor, bank: Tensor, chosen: Tensor) -> Tensor:
    scores = [
        torch.exp((anchors[i] * bank[j]).sum() / T) for i, row in enumerate(chosen) for j in row
    ]
    return mean(scores).detach() * IMAGES


def slow(c: Case, chosen: Tensor, mix: Mix) -> Tensor:
    """0.8 × the mean over teachers and images, with the banks as they are before the step."""
    found = []
    for contrast, pooled in zip(c.method.contrasts, c.teacher_outputs.pooled, strict=True):
        source = pooled
        if mix.partner is not None:
            source = mix.lam * pooled + (1 - mix.lam) * pooled[mix.partner]
        s = F.normalize(
            c.student.pooled @ contrast.project_student.weight.T + contrast.project_student.bias,
            dim=1,
        )
        t = F.normalize(
            source @ contrast.project_teacher.weight.T + contrast.project_teacher.bias, dim=1
        )
        for anchors, bank in (
            (s, contrast.teacher_bank.clone()),
            (t, contrast.student_bank.clone()),
        ):
            z = slow_z(anchors, bank, chosen)
            for i in range(len(anchors)):
                one = slow_nce(anchors[i], bank, chosen[i].tolist(), z)
                if mix.partner is not None:
                    other = chosen[mix.partner[i]].tolist()
                    one = mix.lam * one + (1 - mix.lam) * slow_nce(anchors[i], bank, other, z)
                found.append(one)
    return 0.8 * sum(found) / (len(found) / 2)


def chosen_of(c: Case, seed: int) -> Tensor:
    """The images that the method will draw when it is seeded so."""
    torch.manual_seed(seed)
    image = c.teacher_outputs.image
    classes = crd.classes_of(c.method.dims.labels)
    drawn = crd.draw(image, c.method.config.negatives, classes, counted=False)
    return torch.cat([image[:, None], drawn.negatives], 1)


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("teacher", ["best", "avg"])
@pytest.mark.parametrize("batch", [1, 2, 4])
# The bank gathered from; scored as a whole; scored, and its images counted.
@pytest.mark.parametrize("negatives", [3, 10, 50])
def test_value_and_gradient_are_the_formula(
    batch: int, teacher: str, mixing: bool, negatives: int
) -> None:
    c = case("crd", batch, teacher=teacher, negatives=negatives)
    assert (crd.DENSE * negatives >= IMAGES) == (negatives >= 10)
    assert (negatives >= IMAGES) == (negatives == 50)
    mix = mixed(batch) if mixing else UNMIXED
    want = slow(c, chosen_of(c, 5), mix)
    torch.manual_seed(5)
    got = c.term(mix)
    torch.testing.assert_close(got, want, **TIGHT)
    for fast, slow_one in zip(c.gradient(got), c.gradient(want), strict=True):
        torch.testing.assert_close(fast, slow_one, **TIGHT)
    own = list(c.method.parameters())
    pairs = [torch.autograd.grad(loss, own, retain_graph=True) for loss in (got, want)]
    for fast, slow_one in zip(*pairs, strict=True):
        torch.testing.assert_close(fast, slow_one, **TIGHT)


def test_scoring_the_whole_bank_and_gathering_give_the_same(monkeypatch) -> None:
    found = []
    for dense in (0, 1000):
        monkeypatch.setattr(crd, "DENSE", dense)
        c = case("crd", teacher="avg")
        torch.manual_seed(2)
        loss = c.term(mixed(4))
        found.append([loss, *c.gradient(loss)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_the_order_of_negatives_does_not_matter() -> None:
    x = normal(3, 12).exp()
    shuffled = x[:, torch.randperm(12)]
    one, other = (losses.noise_contrastive(x[:, 0], n, 50) for n in (x, shuffled))
    torch.testing.assert_close(one, other, **TIGHT)


def test_negatives_are_of_other_classes_and_even() -> None:
    labels = torch.tensor([2, 0, 1, 2, 2, 0])
    classes = crd.classes_of(labels)
    torch.manual_seed(0)
    image = torch.tensor([0, 1, 2])
    drawn = crd.draw(image, 6000, classes, counted=False).negatives
    assert (labels[drawn] != labels[image][:, None]).all()
    for row, own in zip(drawn, labels[image], strict=True):
        others = (labels != own).nonzero()[:, 0]
        counts = torch.bincount(row, minlength=6)[others]
        assert (counts * len(others) / 6000 - 1).abs().max() < 0.1


def test_counts_are_those_of_the_images_drawn() -> None:
    classes, image = crd.classes_of(torch.tensor([2, 0, 1, 2, 2, 0])), torch.tensor([0, 1, 2, 5])
    torch.manual_seed(0)
    drawn = crd.draw(image, 500, classes, counted=False)
    torch.manual_seed(0)
    counted = crd.draw(image, 500, classes, counted=True)
    want = torch.stack([torch.bincount(row, minlength=6) for row in drawn.negatives])
    torch.testing.assert_close(counted.negatives, want.float())
    assert counted.number == drawn.number == 500


def test_unknown_labels_leave_out_the_image_itself() -> None:
    method = make("crd", dims(3, 1)._replace(labels=None))
    classes = crd.Classes(*(getattr(method, name) for name in crd.Classes._fields))
    drawn = crd.draw(torch.tensor([0, IMAGES - 1]), 2000, classes, counted=False).negatives
    assert [len(row.unique()) for row in drawn] == [IMAGES - 1] * 2
    assert (drawn[0] != 0).all()
    assert (drawn[1] != IMAGES - 1).all()


def test_the_normaliser_is_that_of_the_first_batch() -> None:
    c = case("crd")
    (contrast,) = c.method.contrasts
    assert (contrast.student_z, contrast.teacher_z) == (-1, -1)
    anchors = F.normalize(contrast.project_student(c.student.pooled), dim=1)
    want = slow_z(anchors, contrast.teacher_bank, chosen_of(c, 1))
    torch.manual_seed(1)
    c.term()
    torch.testing.assert_close(contrast.student_z, want, **TIGHT)
    before = [contrast.student_z.clone(), contrast.teacher_z.clone()]
    c.term()
    assert [contrast.student_z, contrast.teacher_z] == before


@pytest.mark.parametrize("lam", [1.0, 0.3])
def test_the_memory_moves_by_the_own_share(lam: float) -> None:
    c = case("crd")
    mix = UNMIXED if lam == 1 else mixed(4, lam)
    (contrast,) = c.method.contrasts
    old, image = contrast.student_bank.clone(), c.teacher_outputs.image
    feature = F.normalize(contrast.project_student(c.student.pooled), dim=1)
    c.term(mix)
    want = old.clone()
    want[image] = F.normalize((1 - 0.5 * lam) * old[image] + 0.5 * lam * feature, dim=1)
    torch.testing.assert_close(contrast.student_bank, want.detach(), **TIGHT)
    assert not contrast.student_bank.requires_grad


def test_nothing_moves_in_evaluation() -> None:
    c = case("crd")
    c.method.eval()
    before = {name: t.clone() for name, t in c.method.state_dict().items()}
    c.term()
    assert all(torch.equal(t, before[name]) for name, t in c.method.state_dict().items())


def test_the_memory_is_part_of_the_saved_state() -> None:
    saved = case("crd").method.state_dict()
    names = {name.rpartition(".")[2] for name in saved}
    assert {"student_bank", "teacher_bank", "student_z", "teacher_z"} <= names
    assert not names & set(crd.Classes._fields)  # follows from the data


def test_mixed_precision_leaves_the_contrast_alone() -> None:
    found = []
    for on in (False, True):
        c = case("crd")
        c.method.float()
        narrow = c._replace(
            student=c.student._replace(pooled=c.student.pooled.bfloat16()),
            teacher_outputs=c.teacher_outputs._replace(
                pooled=tuple(p.float() for p in c.teacher_outputs.pooled)
            ),
        )
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            found.append(narrow.term())
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
