"""Mistakes of new users and the error messages for them, and unusual input that must work."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Converted, Finished, Program

pytestmark = pytest.mark.any_engine

PREFIX = "model.ckpt-400000"


@dataclass(frozen=True, kw_only=True)
class User:
    """A user with the stand-in, their own folder, and the program."""

    program: Program
    model_dir: Path
    folder: Path

    def refused(self, *arguments: str | Path) -> str:
        """Run a command that is refused, and return the error message and the tip, if any."""
        done = self.program(*arguments)
        assert done.exit_code == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert re.search("^(error|Error|  try): ", done.stderr, re.MULTILINE)
        return done.stderr

    def export(self, config: Path, prefix: Path) -> tuple[str | Path, ...]:
        return ("export", "--pipeline-config", config, "--checkpoint", prefix, "--out", self.folder / "out")

    def edited_config(self, pattern: str, replacement: str) -> Path:
        text = (self.model_dir / "fp32" / "pipeline.config").read_text()
        edited, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
        assert count == 1
        config = self.folder / "my own.config"
        config.write_text(edited)
        return config

    @property
    def prefix(self) -> Path:
        return self.model_dir / "fp32" / PREFIX


@pytest.fixture
def user(program: Program, stand_in_dir: Path, tmp_path: Path) -> User:
    return User(program=program, model_dir=stand_in_dir, folder=tmp_path)


def last_line(said: str) -> str:
    return said.splitlines()[-1]


def test_variables_that_do_not_fit_are_named(user: User) -> None:
    config = user.model_dir / "uint8" / "pipeline.config"
    said = user.refused(*user.export(config, user.prefix))
    assert f"402 of 832 variables of {config} do not fit {user.prefix}" in said
    assert "BoxPredictor_0/BoxEncodingPredictor/act_quant/max: missing" in said
    assert "only quantization ranges are missing" in last_line(said)


def test_number_of_classes_that_does_not_fit_is_named(user: User) -> None:
    config = user.edited_config(r"num_classes: \d+", "num_classes: 7")
    said = user.refused(*user.export(config, user.prefix))
    assert str(config) in said
    assert "[48] in the model, [546] in the checkpoint" in said
    assert "is not what the checkpoint was trained for" in last_line(said)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message", "tip"),
    [
        (".*", "model { faster_rcnn { num_classes: 3 } }", "this is a faster_rcnn model", "model { ssd"),
        (
            r"ssd \{",
            "ssd {\n no_such_field: 1",
            "line 3: .* has no field no_such_field in Ssd",
            "--drop-unknown-fields",
        ),
        (
            r"ssd_mobiledet_edgetpu",
            "ssd_mobiledet_tpu",
            "has no feature extractor 'ssd_mobiledet_tpu'",
            "has: ",
        ),
        (r"max_total_detections: \d+", "max_total_detections: 10", "is above max_total", "in a copy"),
        (r"\}\s*$", "", "line ", "pipeline config syntax"),
    ],
)
def test_config_is_refused_by_name(
    user: User, pattern: str, replacement: str, message: str, tip: str
) -> None:
    config = user.edited_config(pattern, replacement)
    said = user.refused(*user.export(config, user.prefix))
    assert re.search(f"error: {re.escape(str(config))}.*{message}", said), said
    assert tip in last_line(said)


def test_kind_of_quantization_that_was_not_asked_for_is_named(user: User) -> None:
    for name, other in (("fp32", "uint8"), ("uint8", "fp32")):
        (user.folder / "swapped" / name).parent.mkdir(exist_ok=True)
        (user.folder / "swapped" / name).symlink_to(user.model_dir / other)
    arguments = ("--model-dir", user.folder / "swapped", "--out", user.folder / "out")
    said = user.refused("fp32", *arguments)
    assert "fp32 is converted as a float model: 402 quantization ranges" in said
    assert "use the checkpoint of the float model" in last_line(said)
    assert "this looks like a float checkpoint" in user.refused("uint8", *arguments)


@pytest.mark.parametrize(
    ("variant", "config_of", "message"),
    [
        ("uint8", "fp32", "a uint8 model is requested, but the config has no graph_rewriter"),
        ("fp32", "uint8", "a float model is requested, but the config has a graph_rewriter"),
    ],
)
def test_config_of_the_other_variant_is_named(user: User, variant: str, config_of: str, message: str) -> None:
    mixed = user.folder / "mixed" / variant
    mixed.mkdir(parents=True)
    for original in (user.model_dir / variant).glob(f"{PREFIX}.*"):
        (mixed / original.name).symlink_to(original)
    (mixed / "pipeline.config").symlink_to(user.model_dir / config_of / "pipeline.config")
    said = user.refused(variant, "--model-dir", mixed.parent, "--out", user.folder / "out")
    assert message in said
    assert "use the config and checkpoint of" in last_line(said)


def test_ranges_that_the_config_would_ignore_are_counted_and_can_be_ignored(user: User) -> None:
    config = user.model_dir / "fp32" / "pipeline.config"
    export = user.export(config, user.model_dir / "uint8" / PREFIX)
    said = user.refused(*export)
    assert f"{config} has no graph_rewriter: 402 quantization ranges" in said
    assert not (user.folder / "out" / "tflite_graph.pb").exists()
    (option,) = re.findall(r"--ignore\S+", last_line(said))
    done = user.program(*export, option)
    assert done.exit_code == 0, done.stderr
    assert b"FakeQuant" not in (user.folder / "out" / "tflite_graph.pb").read_bytes()


@pytest.mark.parametrize(
    ("checkpoint", "message", "tip"),
    [
        (f"fp32/{PREFIX}.index", "is one file of a checkpoint, not its prefix", PREFIX),
        (f"fp32/{PREFIX}.data-00000-of-00001", "is one file of a checkpoint", PREFIX),
        ("fp32", "is a folder", PREFIX),
        ("fp32/pipeline.config", "is not a checkpoint: it contains text", PREFIX),
        ("fp32/model.ckpt", "model.ckpt.index is missing", PREFIX),
    ],
)
def test_wrong_prefix_gets_the_right_one_as_a_tip(
    user: User, checkpoint: str, message: str, tip: str
) -> None:
    config = user.model_dir / "fp32" / "pipeline.config"
    said = user.refused(*user.export(config, user.model_dir / checkpoint))
    assert message in said
    assert tip in last_line(said)


def test_refusal_of_toco_is_the_message(user: User, converted: Converted) -> None:
    graph, out = converted.out_dir / "fp32" / "tflite_graph.pb", user.folder / "x.tflite"
    said = user.refused("toco", graph, "--out", out, "--input-shape", "1,300,300,3")
    assert "1,300,300,3 here and 1,320,320,3 in the graph" in said
    assert last_line(said) == "  try: --input_shapes=1,320,320,3"
    given = ("toco", graph, "--out", user.folder / "as advised.tflite", "--input-shape", "1,300,300,3")
    done = user.program(*given, "--input_shapes=1,320,320,3", "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json["sha256"] == converted.results["fp32"]["sha256"]
    said = user.refused("toco", graph, "--out", out, "--allow_custom_op")
    assert "unknown flag --allow_custom_op" in said
    assert "--allow_custom_ops" in last_line(said)
    assert not out.exists()


def test_what_is_no_frozen_graph_is_named(user: User, converted: Converted) -> None:
    model = converted.out_dir / "ssd_mobiledets.f32.tflite"
    assert "is a .tflite file already" in user.refused("toco", model, "--out", user.folder / "x.tflite")
    assert "is a folder" in user.refused("toco", converted.out_dir, "--out", user.folder / "x.tflite")
    graph = converted.out_dir / "fp32" / "tflite_graph.pb"
    assert last_line(user.refused("toco", graph, "--out", user.folder)).endswith("/model.tflite")


@pytest.mark.parametrize("option", ["--out", "--model-dir"])
def test_empty_path_is_not_this_folder(user: User, option: str) -> None:
    assert "is a shell variable unset?" in user.refused("fp32", option, "")


def test_output_directory_that_is_a_file_is_named(user: User) -> None:
    (user.folder / "file").touch()
    said = user.refused("fp32", "--model-dir", user.model_dir, "--out", user.folder / "file")
    assert f"the output directory {user.folder / 'file'} is a file" in said


def test_variant_folder_instead_of_the_model_gets_the_right_path_as_a_tip(user: User) -> None:
    said = user.refused("fp32", "--model-dir", user.model_dir / "fp32", "--out", user.folder / "out")
    assert f"--model-dir {user.model_dir} " in last_line(said)


def told(done: Finished) -> str:
    assert done.exit_code == 3
    return done.stderr


@pytest.mark.engine("docker")
def test_each_reason_for_an_unreachable_daemon_has_its_own_message(user: User) -> None:
    image = user.program.__class__(engine_name="docker")
    without = {"DOCKER_CONTEXT": "no-such", "DOCKER_HOST": ""}
    assert "DOCKER_CONTEXT=no-such: there is no such Docker context" in told(image("image", env=without))
    assert "nothing listens" in told(image("image", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"}))
    assert "is not running" in told(image("image", env={"DOCKER_HOST": "tcp://127.0.0.1:1"}))
    assert "does not see this machine's folders" in told(image("image", env={"DOCKER_HOST": "ssh://far"}))
    assert "does not answer" in told(image("image", env={"DOCKER_HOST": "garbage"}))


@pytest.mark.slow
def test_checkpoint_of_links_and_strange_names_converts(user: User, converted: Converted) -> None:
    links = user.folder / "a:b, ç"
    (links / "fp32").mkdir(parents=True)
    for original in (user.model_dir / "fp32").iterdir():
        (links / "fp32" / original.name).symlink_to(os.path.relpath(original, links / "fp32"))
    arguments = ("--model-dir", links, "--out", user.folder / "out", "--no-check", "--force", "--json")
    done = user.program("fp32", *arguments)
    assert done.exit_code == 0, done.stderr
    assert done.json[0]["sha256"] == converted.results["fp32"]["sha256"]


@pytest.mark.slow
def test_config_beside_the_output_exports(user: User) -> None:
    config = user.edited_config(r"score_threshold: \S+", "score_threshold: 0.25")
    done = user.program(*user.export(config, user.prefix))
    assert done.exit_code == 0, done.stderr
    assert (user.folder / "out" / "tflite_graph.pb").is_file()
