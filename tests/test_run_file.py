"""Files of decisions: runs apart, earlier versions, and the line named that is not right."""

import json
import math
import os
import platform
import subprocess
import sys

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_qnewton import NewtonLog, QNewton, Scheduler, project
from keras_qnewton.__main__ import main
from keras_qnewton.decision_log import Decisions
from keras_qnewton.run_file import Epoch, end_line, runs_of, runs_of_file, write_run
from keras_qnewton.scheduling import LUTime
from keras_qnewton.solvers import QSVT
from keras_qnewton.types import Decision
from tests.optimizer.models import compiled, regression_data

# As the version before this one wrote it.
EARLIER = (
    '{"route": "cholesky", "reason": "the only solver", "predicted": {}, "size": 26, '
    '"condition_number": 101.0, "sparsity": 26, "step": %d, "block": "full", "damping": 0.01, '
    '"trust_ratio": null, "loss": 0.5, "loss_after": 0.25, "accepted": true, "length": 1.0, '
    '"residual": 1e-9, "fallback": false, "solved_by": "cholesky", "formed_by": "rows", '
    '"conditioning_seconds": null, "sparsity_before": null, "added_shift": null, '
    '"error_bound": null, "step_seconds": 0.01, "evaluations": null}'
)


def written(path, lines):
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines) + b"\n")
    return path


def decision(step, **values):
    return Decision("lu", "r", {"lu": 1.0}, 8, 10.0, 8, step=step, block="b", **values)


def fitted(path, steps):
    x, y = regression_data()
    log = NewtonLog(path)
    model = compiled(QNewton())
    model.fit(x, y, batch_size=len(x), epochs=steps, verbose=0, callbacks=[log])
    return log


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"epoch,loss\n0,1.0\n", b"[1]\n", b"\xff\xfe"])
def test_a_file_that_is_no_log_is_not_written_to(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    x, y = regression_data()
    model = compiled(QNewton())
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"must be a new file, or one that `NewtonLog` wrote"):
        model.fit(x, y, verbose=0, callbacks=[NewtonLog(path)])
    assert path.read_bytes() == content
    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf{}\n", b'{"run": {"id'])
def test_a_file_that_is_empty_or_a_torn_log_is_one(tmp_path, content):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with open(path, "a", encoding="utf-8") as file:
        end_line(file)
    assert path.read_bytes().startswith(content)


@pytest.mark.parametrize(
    "arguments",
    [{"path": 1}, {"path": True}, {"path": "a\0b"}, {"tensorboard": 2}, {"on_step": "print"}],
)
def test_newton_log_refuses_what_is_no_path(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=rf"Argument `{name}` must be .*Received: {name}="):
        NewtonLog(**arguments)


def test_two_fits_with_one_path_are_two_runs(tmp_path):
    path = tmp_path / "run.jsonl"
    logs = [fitted(path, steps) for steps in (3, 2)]
    runs = runs_of(path)
    assert [list(run.decisions) for run in runs] == [list(log.decisions) for log in logs]
    assert runs[0].title != runs[1].title
    about = runs[0].about
    assert about["settings"]["damping"].startswith("Adaptive")
    assert about["model"]["weights"] == 26 and about["model"]["layers"][0]["name"] == "hidden"
    assert about["keras"] == keras.__version__
    assert list(Decisions.from_jsonl(path)) == [d for log in logs for d in log.decisions]


def test_a_path_that_cannot_be_written_is_found_out_before_the_first_step(tmp_path):
    model = compiled(QNewton())
    with pytest.raises(OSError, match="missing"):
        model.fit(*regression_data(), callbacks=[NewtonLog(tmp_path / "missing" / "run.jsonl")])
    assert int(model.optimizer.iterations) == 0


def test_logs_of_earlier_versions_are_read_and_their_runs_kept_apart(tmp_path):
    path = written(tmp_path / "old.jsonl", [EARLIER % k for k in (0, 1, 2, 0, 1)])
    first, second = runs_of(path)
    assert [d.step for d in first.decisions] == [0, 1, 2]
    assert [d.step for d in second.decisions] == [0, 1]
    (last, *_) = second.decisions
    assert last.attempts is None and math.isnan(last.trust_ratio)


def test_blocks_of_a_step_are_of_one_run():
    assert len(runs_of([decision(0), decision(0), decision(1), decision(1)])) == 1


def test_a_runs_price_is_that_of_one_run(tmp_path):
    cost = LUTime(coefficients=(1e-10, 1e-9, 1e-6))
    scheduler = Scheduler(quantum=QSVT(backend="emulator"), classical_cost=cost)
    path = tmp_path / "two.jsonl"
    Decisions([decision(0), decision(1), decision(2), decision(0)]).to_jsonl(path)
    assert len(project(path, scheduler=scheduler, run=0).by_step("lu")) == 3
    with pytest.warns(UserWarning, match="The log has 2 runs; the last one is priced"):
        assert len(project(path, scheduler=scheduler).by_step("lu")) == 1
    with pytest.raises(ValueError, match="Argument `run` must be one of the log's 2 runs"):
        project(path, scheduler=scheduler, run=2)


def changed(**values):
    return json.dumps(json.loads(EARLIER % 1) | values)


WRONG = {
    "text for a number": changed(condition_number="big"),
    "null for a count": changed(size=None),
    "a fraction for a count": changed(size=2.5),
    "a negative count": changed(sparsity=-1),
    "a flag for a number": changed(loss=True),
    "a number for a flag": changed(accepted=1),
    "a number for text": changed(block=3),
    "a list for prices": changed(predicted=[1.0]),
    "text for a price": changed(predicted={"lu": "fast"}),
    "a number beyond double precision": changed(loss=10**400),
    "a count beyond 64 bits": changed(step=2**63),
    "half a character": changed(reason="\ud800"),
    "digits beyond Python's limit": (EARLIER % 1).replace("26", "9" * 5000, 1),
    "nesting": "[" * 100_000,
    "a run of a number": '{"run": 3}',
    "an epoch of a number": '{"epoch": 3}',
    "an epoch of half a step": '{"epoch": {"number": 0, "step": 0.5, "logs": {}}}',
    "an epoch of text": '{"epoch": {"number": 0, "step": 1, "logs": {"loss": "low"}}}',
    "text that is not UTF-8": b"\xff\xfe\x00",
    "a number for an encoding": changed(encoding=1),
    "text for alpha": changed(alpha="2"),
    "half a line": (EARLIER % 1)[:40],
    "a number alone": "3",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_is_not_right_is_named(tmp_path, name, capsys):
    path = written(tmp_path / "run.jsonl", [EARLIER % 0, WRONG[name]])
    for read in (Decisions.from_jsonl, project):
        with pytest.raises(ValueError, match=r"run\.jsonl', line 2: "):
            read(path)
    assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) == 1
    assert "line 2" in capsys.readouterr().err


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@settings(deadline=None, max_examples=200)
@given(field=st.sampled_from(sorted(json.loads(EARLIER % 0))), value=VALUES)
def test_a_field_of_any_value_is_read_or_named(field, value):
    values = json.loads(json.dumps(json.loads(EARLIER % 0) | {field: value}))
    try:
        read = Decision.from_dict(values)
    except ValueError as error:
        assert f"`{field}`" in str(error)
    else:
        again = Decision.from_dict(json.loads(json.dumps(read.to_dict(), allow_nan=False)))
        assert again.to_dict() == read.to_dict()


def test_a_report_is_made_without_tensorflow(tmp_path):
    path = written(tmp_path / "run.jsonl", [EARLIER % k for k in (0, 1)])
    command = [sys.executable, "-X", "importtime", "-m", "keras_qnewton", "report", str(path)]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "page.html")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not {"tensorflow", "keras"} & imported
    assert all(line.startswith("import time:") for line in done.stderr.splitlines())


def test_importing_the_package_registers_what_saved_models_are_made_of():
    code = "import keras_qnewton, keras; keras.optimizers.deserialize({'class_name': "
    code += "'keras_qnewton>QNewton', 'config': {}, 'registered_name': 'keras_qnewton>QNewton'})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_epochs_have_lines_of_their_own(tmp_path):
    x, y = regression_data()
    model, path = compiled(QNewton(seed=3), metrics=["mae"]), tmp_path / "run.jsonl"
    keras.utils.set_random_seed(7)
    history = model.fit(
        x,
        y,
        batch_size=len(x) // 2,
        epochs=3,
        verbose=0,
        validation_data=(x, y),
        callbacks=[NewtonLog(path)],
    ).history
    (run,) = runs_of(path)
    assert [(epoch.number, epoch.step) for epoch in run.epochs] == [(0, 1), (1, 3), (2, 5)]
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert [epoch.logs[name] for epoch in run.epochs] == history[name]
    assert "damping" not in run.epochs[0].logs  # which every decision has
    assert run.about["seed"] == 7 and run.about["settings"]["seed"] == 3
    assert run.about["fit"] == {"epochs": 3, "steps": 2}
    assert run.about["python"] == platform.python_version()
    assert len(Decisions.from_jsonl(path)) == 6
    assert len(project(path).decisions) == 6


def test_epochs_belong_to_the_run_that_they_are_written_in(tmp_path):
    epoch = json.dumps({"epoch": {"number": 0, "step": 1, "logs": {"loss": None}}})
    lines = [EARLIER % 0, EARLIER % 1, epoch, EARLIER % 0, epoch, epoch]
    first, second = runs_of(written(tmp_path / "old.jsonl", lines))
    assert len(first.epochs) == 1 and len(second.epochs) == 2
    assert math.isnan(first.epochs[0].logs["loss"])


@given(values=st.dictionaries(st.sampled_from(["number", "step", "logs"]), VALUES))
def test_an_epoch_of_any_values_is_read_or_refused(values):
    try:
        values = json.loads(json.dumps(values))
        read = Epoch.from_dict(values)
    except ValueError as error:
        assert "`epoch`" in str(error)
    else:
        assert Epoch.from_dict(read.to_dict()).to_dict() == read.to_dict()


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    whole = {"route": "lu", "reason": "", "predicted": {}, "size": 2, "condition_number": 1.0}
    line = json.dumps(whole | {"sparsity": 2, "step": 0})
    path.write_text(f"{line}\n{line[:30]}", "utf-8")
    with pytest.warns(RuntimeWarning, match="line 2: cut off"):
        assert len(Decisions.from_jsonl(path)) == 1
    with open(path, "a", encoding="utf-8") as file:  # as the training goes on
        end_line(file)
        write_run(file, {"id": "second"})
        file.write(f"{line}\n")
    with pytest.warns(RuntimeWarning, match="line 2: cut off"):
        first, second = runs_of_file(path)
    assert second.about["id"] == "second"
    assert len(first.decisions) == len(second.decisions) == 1


@pytest.mark.parametrize("text", ["", "{}\n"])
def test_a_line_that_has_its_end_stays(tmp_path, text):
    path = tmp_path / "run.jsonl"
    path.write_text(text, "utf-8")
    with open(path, "a", encoding="utf-8") as file:
        end_line(file)
    assert path.read_text("utf-8") == text
