"""Other commands on files that `convert` made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runner.cli import app
from runner.convert.model_facts import ModelFacts
from runner.errors import ConfigError, IdentityError, UsageError
from runner.evidence.check.files import find_pairs
from runner.evidence.provenance.own_model import own_provenance, recorded_recipe

PREFIX = "model.ckpt-400000"


def test_verify_takes_the_file_for_what_its_provenance_says(own_delivered: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(own_delivered / "mine.tflite")])
    assert done.exit_code == 0, done.output
    assert "same: mine.tflite (final file)" in done.stdout


def test_verify_of_a_byproduct_verifies_its_conversion(own_delivered: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(own_delivered / "mine.raw.tflite")])
    assert done.exit_code == 0, done.output


def test_verify_of_a_changed_file_exits_8_and_does_not_mention_mobiledet(own_delivered: Path) -> None:
    with (own_delivered / "mine.tflite").open("ab") as file:
        file.write(b"\0")
    done = CliRunner().invoke(app, ["verify", str(own_delivered / "mine.tflite"), "--json"])
    assert isinstance(done.exception, IdentityError)
    assert "mine.tflite (final file)" in done.exception.message
    assert not json.loads(done.stdout)["ok"]
    assert "mobiledet" not in done.exception.message.replace(str(own_delivered), "")


def test_another_file_in_the_folder_is_no_file_of_the_conversion(own_delivered: Path) -> None:
    (own_delivered / "other.tflite").write_bytes(b"other")
    assert own_provenance(own_delivered / "other.tflite") is None


def test_a_file_of_a_recipe_is_compared_with_the_published_one(delivered: Path) -> None:
    assert own_provenance(delivered) is None
    done = CliRunner().invoke(app, ["verify", str(delivered / "mobiledet.tflite")])
    assert isinstance(done.exception, IdentityError)
    assert "the published mobiledet.tflite" in done.exception.message


@pytest.mark.parametrize("name", ["", "mine.tflite"])
def test_check_finds_the_file_and_its_graph(own_delivered: Path, name: str) -> None:
    provenance = own_provenance(own_delivered / name)
    assert provenance is not None
    recipe = recorded_recipe(provenance)
    assert recipe is not None
    (pair,) = find_pairs(own_delivered / name, recipe)
    assert (pair.tflite, pair.graph) == (own_delivered / "mine.tflite", own_delivered / "tflite_graph.pb")
    assert (pair.variant.input_shape, pair.variant.toco_flags) == (
        (1, 8, 8, 3),
        ("--drop_control_dependency",),
    )


def test_explain_says_how_it_was_made_and_nothing_of_mobiledet(own_delivered: Path) -> None:
    page = CliRunner().invoke(app, ["explain", str(own_delivered)]).stdout
    assert "A user's own float model, with input [1, 8, 8, 3], converted with" in page
    assert (
        'python -m runner convert --pipeline-config "${TF_MODEL_DIR}/pipeline.config" '
        f'--checkpoint "${{TF_MODEL_DIR}}/{PREFIX}" --out "${{TFLITE_MODEL_DIR}}" --name mine '
        "--engine docker -- --drop_control_dependency"
    ) in page
    assert "not the published file" not in page
    assert "MLCommons" not in page
    assert "with the edited config `pipeline.config`" in page


def arguments(model_dir: Path, *more: str) -> list[str]:
    folder = model_dir / "fp32"
    paths = ["--pipeline-config", str(folder / "pipeline.config"), "--checkpoint", str(folder / PREFIX)]
    return ["convert", *paths, "--out", str(model_dir.parent / "out"), *more]


def test_a_dry_run_does_not_start_the_toolchain_to_read_the_config(model_dir: Path) -> None:
    done = CliRunner().invoke(app, arguments(model_dir, "--dry-run"))
    assert done.exit_code == 0, done.output
    assert "a dry run starts no toolchain" in done.stdout
    assert not (model_dir.parent / "out").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b"])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(model_dir: Path, name: str) -> None:
    done = CliRunner().invoke(app, arguments(model_dir, "--name", name))
    assert isinstance(done.exception, UsageError)


def test_a_missing_config_is_named_before_anything_starts(model_dir: Path) -> None:
    (model_dir / "fp32" / "pipeline.config").unlink()
    done = CliRunner().invoke(app, arguments(model_dir))
    assert isinstance(done.exception, ConfigError)


def test_a_misspelt_option_is_refused(model_dir: Path) -> None:
    done = CliRunner().invoke(app, arguments(model_dir, "--nsm", "fast"))
    assert done.exit_code == 2
    assert "--nsm" in done.output


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_one_file_of_a_checkpoint_gets_the_prefix_as_a_tip(model_dir: Path, suffix: str) -> None:
    words = arguments(model_dir)
    words[words.index("--checkpoint") + 1] += suffix
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception.tip).endswith(f"/{PREFIX}")


def test_a_folder_with_a_checkpoint_file_gets_the_prefix_it_names_as_a_tip(model_dir: Path) -> None:
    folder = model_dir / "fp32"
    for path in sorted(folder.glob(f"{PREFIX}.*")):
        shutil.copy(path, folder / path.name.replace("400000", "7"))
    (folder / "checkpoint").write_text(
        f'model_checkpoint_path: "{PREFIX}"\nall_model_checkpoint_paths: "x"\n'
    )
    words = arguments(model_dir)
    words[words.index("--checkpoint") + 1] = str(folder)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert done.exception.tip == f"the folder's file `checkpoint` names the prefix {folder / PREFIX}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input-shape", "300"], "only height and width can be chosen"),
        (["--input-shape", "2,96,64,3"], "only height and width can be chosen"),
        (["--input-shape", "1,96,64,1"], "only height and width can be chosen"),
        (["--input-shape", "1,0,64,3"], "only height and width can be chosen"),
        (["--input-shape", "big"], "is not a shape"),
        (["--inference-type", "QUANTIZED_UINT8"], "needs ranges"),
        (["--inference-type", "FLOAT", "--mean-value", "3"], "describe quantized input"),
    ],
)
def test_an_override_that_does_not_fit_the_config_is_refused(
    words: list[str], said: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ModelFacts(is_quantized=False, input_shape=(1, 96, 64, 3))
    monkeypatch.setattr("runner.convert.model_facts.known_facts", lambda *_, **__: facts)
    problem = CliRunner().invoke(app, arguments(model_dir, *words)).exception
    assert isinstance(problem, UsageError)
    assert said in problem.message
    assert not (model_dir.parent / "out").exists()


@pytest.mark.parametrize("command", ["export", "toco"])
def test_a_system_folder_is_no_output(command: str, model_dir: Path, tmp_path: Path) -> None:
    graph = tmp_path / "graph.pb"
    graph.write_bytes(b"graph")
    words = [*arguments(model_dir)[:-2], "--out", "/etc/runner-test"]
    if command == "toco":
        words = ["toco", str(graph), "--out", "/etc/runner-test/model.tflite"]
    problem = CliRunner().invoke(app, [command, *words[1:], "--engine", "local"]).exception
    assert isinstance(problem, UsageError)
    assert "system folder" in problem.message
    assert not Path("/etc/runner-test").exists()


def test_verify_warns_of_a_file_that_another_recipe_made(delivered: Path) -> None:
    file, provenance = delivered / "mobiledet.tflite", delivered / "provenance.json"
    assert "records the recipe" not in CliRunner().invoke(app, ["verify", str(file)]).stderr
    statement = json.loads(provenance.read_text("utf-8"))
    statement["predicate"]["buildDefinition"]["externalParameters"]["recipeSha256"] = "0" * 64
    provenance.write_text(json.dumps(statement), "utf-8")
    assert "records the recipe mobiledet_edgetpu" in CliRunner().invoke(app, ["verify", str(file)]).stderr
