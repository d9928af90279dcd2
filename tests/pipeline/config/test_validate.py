"""Networks that cannot be built: one message, exit code 2."""

import pytest

from pipeline.analyze import analyse_command
from pipeline.config import ConfigError, compose
from pipeline.outcome import exit_code_of
from trainers.models import build


def test_a_network_that_cannot_be_built_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(lambda: build("vgg8", 10, 32, pretrained=True) and None) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "vgg8 has no published weights: set student.pretrained=false" in shown


def test_networks_that_cannot_be_built_are_found_before_anything_runs() -> None:
    with pytest.raises(ConfigError) as raised:
        compose(
            [
                "student.pretrained=true",
                "teacher.1.model=vgg13",
                "data.image_size=4",
                "data.crop_pad=1",
            ]
        )
    text = str(raised.value)
    assert "2 errors" in text
    assert "student.model=resnet8: resnet8 has no published weights" in text
    assert "teacher.1.model=vgg13: vgg13 needs images of at least 8 pixels, not 4" in text


def test_an_analysis_given_without_what_is_an_error():
    with pytest.raises(ConfigError, match=r"beta: no key=value; did you mean what=beta\?"):
        analyse_command(["beta", "experiment=asib"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bank=int8", "bank=int8: a group of options, not a value; give one of: bank.logits, bank"),
        ("bank.logits=null", "bank.logits=null: unknown (allowed: all, a number >= 1)"),
        ("bank.logits=true", "bank.logits=true: unknown (allowed: all, a number >= 1)"),
        ("runtime.graph=null", "runtime.graph=null: unknown (allowed: auto, off)"),
        ("runtime.ranks=null", "runtime.ranks=null: not a whole number"),
    ],
)
def test_a_value_of_another_type_is_shown_as_written_with_those_allowed(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        compose([override])
    assert message in str(raised.value)
