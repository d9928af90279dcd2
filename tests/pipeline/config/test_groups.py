"""Names and descriptions in conf/."""

from pathlib import Path

from pipeline.config.groups import first_comment


def test_first_comment_leaves_directives_out(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# @package _global_\n# One line,\n# and another.\ncfg: a  # not this\n")
    assert first_comment(path) == "One line, and another."
    path.write_text("cfg: a\n# not this\n")
    assert first_comment(path) == ""
