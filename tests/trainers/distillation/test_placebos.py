"""Placebos take the information out and leave everything else as it is."""

import pytest
import torch

from trainers.distillation import placebos


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("images", "views"), [(2, 1), (7, 3), (40, 4)])
def test_every_row_gets_another_image_of_the_same_view(images: int, views: int) -> None:
    other = placebos.other_images(images, views, draw())
    rows = torch.arange(images * views)
    assert torch.equal(other.sort().values, rows)
    assert torch.equal(other % views, rows % views)
    assert (other // views != rows // views).all()
    assert not torch.equal(other, placebos.other_images(images, views, draw(1))) or images == 2


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_labels_logit_stays_and_the_rest_is_shuffled_alike(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placebos, "CHUNK", 16)  # more than one pass
    torch.manual_seed(0)
    one, labels = torch.randn(50, classes), torch.randint(classes, (50,))
    tables = [one.half(), (one * 2).half()]
    first, second = placebos.shuffled_rest(tables, labels, draw())
    for table, shuffled in zip(tables, (first, second), strict=True):
        assert torch.equal(shuffled.gather(1, labels[:, None]), table.gather(1, labels[:, None]))
        assert torch.equal(shuffled.sort(1).values, table.sort(1).values)
    torch.testing.assert_close(second, first * 2)  # the same shuffle for every teacher
    moved = (first != tables[0]).float().mean()
    assert (moved == 0) == (classes == 2)  # with two classes there is nothing to shuffle
