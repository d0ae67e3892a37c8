"""Jobs live on their own: their status is read from their folders, whichever process has died."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from trainer import wait_until

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.webui.work import jobs as module
from musicgen_lora.webui.work.job import JOB_FILE, Job, note_process, read_job
from musicgen_lora.webui.work.jobs import Jobs
from musicgen_lora.webui.work.processes import birth, is_alive, send

LONG = {"create_example": True, "num_samples": 400, "num_workers": 0}
SHORT = {"create_example": True, "num_samples": 1, "num_workers": 0}
SIGKILL = signal.SIGKILL


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    found = Jobs(tmp_path / "jobs")
    yield found
    for job in found.all():
        if not job.is_over:
            found.stop(job.id, by_force=True)


def submit(jobs: Jobs, settings: dict[str, Any], name: str) -> Job:
    folder = jobs.folder.parent / name
    return jobs.submit(
        "prepare", {**settings, "output_dir": str(folder)}, title=name, folder=folder
    )


def process(jobs: Jobs, job: Job, which: str = "working") -> int:
    return json.loads((jobs.folder / job.id / f"{which}.json").read_text())["pid"]


def wait_for(jobs: Jobs, job: Job, *statuses: str) -> None:
    wait_until(lambda: jobs.get(job.id).status in statuses, 90.0)


def test_a_job_runs_our_command_ends_with_its_code_and_leaves_no_process(jobs: Jobs) -> None:
    """Neither the command nor the process around it, which the server started and which would
    otherwise stay a zombie until the server ends."""
    job = submit(jobs, SHORT, "beats")
    wait_for(jobs, job, "finished", "failed")
    found = jobs.get(job.id)
    assert (found.status, found.code) == ("finished", 0), jobs.log(job.id)
    assert found.took_s is not None
    assert 0.0 < found.took_s < 90.0
    assert (jobs.folder.parent / "beats" / "metadata.json").exists()
    assert "Making 1 example beat in" in jobs.log(job.id)
    for which in ("working", "waiting"):
        pid = process(jobs, job, which)
        wait_until(lambda pid=pid: not psutil.pid_exists(pid), 10.0)


def test_a_failing_command_says_its_own_line(jobs: Jobs) -> None:
    job = submit(jobs, {"input_dir": str(jobs.folder / "nothing")}, "beats")
    wait_for(jobs, job, "finished", "failed")
    assert jobs.get(job.id).code == 2
    assert "no such folder; give the one with your audio." in jobs.log(job.id).splitlines()[-1]


def test_second_waits_kill_shows_interrupted_and_the_next_starts(jobs: Jobs) -> None:
    first = submit(jobs, LONG, "one")
    wait_for(jobs, first, "running")
    second, third = submit(jobs, SHORT, "two"), submit(jobs, SHORT, "three")
    time.sleep(1.5)
    # A server that was started again knows no more than the folder.
    other = Jobs(jobs.folder)
    assert [other.get(job.id).status for job in (first, second, third)] == [
        "running",
        "waiting",
        "waiting",
    ]
    other.stop(third.id)
    wait_for(jobs, third, "cancelled")
    os.kill(process(jobs, first), SIGKILL)
    wait_for(jobs, first, "interrupted")
    assert jobs.get(first.id).can_resume
    wait_for(jobs, second, "finished")


def test_a_clock_that_was_set_back_keeps_no_job_waiting(tmp_path: Path) -> None:
    """Its process never began, and by the clock it won't be made for another two hours."""
    facts = {"command": "train", "title": "x", "folder": str(tmp_path), "language": "en"}
    for ahead_s, status in ((7200.0, "interrupted"), (5.0, "waiting"), (-7200.0, "interrupted")):
        atomic.write_json(tmp_path / JOB_FILE, facts | {"created": time.time() + ahead_s})
        job = read_job(tmp_path)
        assert job is not None
        assert job.status == status


def test_jobs_keep_their_order_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, now = Jobs(tmp_path / "jobs", start=lambda place: None), time.time()
    made = []
    for name, back_s in (("one", 0.0), ("two", 20.0), ("three", 10.0)):
        monkeypatch.setattr(time, "time", lambda back_s=back_s: now - back_s)
        made.append(submit(jobs, SHORT, name))
    assert [job.title for job in jobs.all()] == ["three", "two", "one"]
    assert [jobs.is_turn(job.id) for job in made] == [True, False, False]


def playing(jobs: Jobs) -> Job:
    """A job that generates, or would if its base existed."""
    folder = jobs.folder.parent / "generated"
    settings = {"prompts": ["808"], "base_model_path": str(folder / "none")}
    return jobs.submit("generate", settings, title="808", folder=folder)


def test_what_plays_begins_beside_what_runs_when_asked(jobs: Jobs) -> None:
    first = submit(jobs, LONG, "one")
    wait_for(jobs, first, "running")
    second, waiting, cancelled = playing(jobs), playing(jobs), playing(jobs)
    time.sleep(1.0)
    assert [jobs.get(job.id).status for job in (second, waiting)] == ["waiting"] * 2
    jobs.stop(cancelled.id)
    # Asked by a server that was started again; and the process around it waits as before.
    Jobs(jobs.folder).start_beside(waiting.id)
    wait_for(jobs, waiting, "failed")
    assert "none" in jobs.log(waiting.id)
    assert [jobs.get(job.id).status for job in (first, second)] == ["running", "waiting"]
    again = jobs.again(waiting.id)
    assert (again.status, again.is_beside) == ("waiting", False)
    jobs.stop(again.id)
    wait_for(jobs, again, "cancelled")
    wait_for(jobs, cancelled, "cancelled")
    with pytest.raises(UserError, match="is no longer waiting"):
        jobs.start_beside(cancelled.id)
    jobs.stop(first.id, by_force=True)
    wait_for(jobs, second, "failed")


def test_one_at_a_time_plays_beside_what_runs(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", start=lambda place: None)

    def run(job: Job) -> None:
        note_process(jobs.folder / job.id / "working.json", os.getpid())

    training, later = submit(jobs, SHORT, "one"), submit(jobs, SHORT, "two")
    run(training)
    plain, one, two = playing(jobs), playing(jobs), playing(jobs)
    assert not any(jobs.is_turn(job.id) for job in (later, plain, one, two))
    for job in (two, one):
        jobs.start_beside(job.id)
    assert [jobs.is_turn(job.id) for job in (later, plain, one, two)] == [False, False, True, False]
    run(one)
    assert not any(jobs.is_turn(job.id) for job in (later, plain, two))
    # What waits for its turn waits for what was begun beside, too.
    end = json.dumps({"code": 0, "at": 1.0})
    (jobs.folder / training.id / "end.json").write_text(end)
    assert not any(jobs.is_turn(job.id) for job in (later, plain, two))
    (jobs.folder / one.id / "end.json").write_text(end)
    assert [jobs.is_turn(job.id) for job in (later, plain, two)] == [True, False, True]
    with pytest.raises(UserError, match="is no longer waiting"):
        jobs.start_beside(later.id)


def test_stop_is_a_request_and_again_goes_on(jobs: Jobs) -> None:
    job = submit(jobs, LONG, "one")
    wait_for(jobs, job, "running")
    wait_until(lambda: "Making" in jobs.log(job.id))
    jobs.stop(job.id)
    wait_for(jobs, job, "stopped")
    assert jobs.get(job.id).code in (143, -15)
    again = jobs.again(job.id)
    assert again.id != job.id
    assert again.folder == job.folder
    assert again.title == job.title
    wait_for(jobs, again, "running")
    jobs.stop(again.id, by_force=True)
    wait_for(jobs, again, "interrupted")


def test_a_job_outlives_its_server_and_its_supervisor(tmp_path: Path) -> None:
    """kill -9 of whoever started it, and of the process around it: the command continues and shows
    as running; once it has ended silently it shows as interrupted."""
    jobs = Jobs(tmp_path / "jobs")
    folder = tmp_path / "one"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from musicgen_lora.webui.work.jobs import Jobs\n"
        f"Jobs(Path({str(jobs.folder)!r})).submit('prepare', "
        f"{ ({**LONG, 'output_dir': str(folder)})!r}, title='one', folder=Path({str(folder)!r}))\n"
        "time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: any(job.status == "running" for job in jobs.all()), 60.0)
    server.kill()
    server.wait()
    (job,) = jobs.all()
    pid = process(jobs, job)
    born = birth(pid)
    assert born
    assert job.status == "running"
    os.kill(process(jobs, job, "waiting"), SIGKILL)
    time.sleep(0.3)
    assert jobs.get(job.id).status == "running"
    jobs.stop(job.id, by_force=True)
    wait_until(lambda: not is_alive(pid, born))
    assert jobs.get(job.id).status == "interrupted"


def old_job(jobs: Jobs, tmp_path: Path) -> Path:
    """The folder of a job that an earlier server started."""
    place = jobs.folder / "20260101-000000-0123abcd"
    place.mkdir()
    facts = {
        "command": "train",
        "title": "old",
        "folder": str(tmp_path / "o"),
        "language": "en",
        "created": 1.0,
    }
    (place / "job.json").write_text(json.dumps(facts))
    return place


def test_a_number_given_again_is_no_job_of_ours(jobs: Jobs, tmp_path: Path) -> None:
    """A process with the job's pid that started at another time is a stranger: it doesn't make the
    job show as running, and is not stopped."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    place = old_job(jobs, tmp_path)
    for name in ("waiting.json", "working.json"):
        (place / name).write_text(json.dumps({"pid": stranger.pid, "born": "x 1", "at": 1.0}))
    assert jobs.get(place.name).status == "interrupted"
    with pytest.raises(UserError, match="has already ended"):
        jobs.stop(place.name, by_force=True)
    assert not send(stranger.pid, "x 1", SIGKILL)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_an_ended_job_stays_as_it_is_until_its_folder_is_gone(jobs: Jobs, tmp_path: Path) -> None:
    place = old_job(jobs, tmp_path)
    assert jobs.get(place.name).status == "interrupted"
    (place / "working.json").write_text('{"pid": 1, "born": "x 1", "at": 1.0}')
    (place / "end.json").write_text('{"code": 0, "at": 2.0}')
    for _ in range(2):
        assert [job.status for job in jobs.all()] == ["finished"]
    (place / "end.json").unlink()
    assert jobs.get(place.name).status == "interrupted"
    shutil.rmtree(place)
    assert jobs.all() == []
    with pytest.raises(UserError, match="No such job"):
        jobs.get(place.name)


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"code": "x", "at": 1}', '{"code": 0}'])
def test_torn_files_are_as_none(jobs: Jobs, tmp_path: Path, torn: str) -> None:
    place = old_job(jobs, tmp_path)
    for name in ("waiting.json", "working.json", "end.json"):
        (place / name).write_text(torn)
    assert jobs.get(place.name).status == "interrupted"
    (place / "job.json").write_text(torn)
    assert jobs.all() == []


def test_queue_is_short_a_folder_is_one_jobs_and_commands_are_ours(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", start=lambda place: None)
    for number in range(module.MAX_WAITING):
        submit(jobs, SHORT, f"n{number}")
    with pytest.raises(UserError, match="n0: another job is still writing there; wait, or stop it"):
        submit(jobs, SHORT, "n0")
    with pytest.raises(UserError, match="Busy"):
        submit(jobs, SHORT, "more")
    with pytest.raises(UserError, match="has no such command"):
        jobs.submit("doctor", {}, title="x", folder=jobs.folder)
    assert len(jobs.all()) == module.MAX_WAITING


@pytest.mark.parametrize("name", ["", "..", "../jobs", "20260101-000000-0123abcd", "/etc", "a\0b"])
def test_ids_are_names_of_jobs_alone(jobs: Jobs, name: str) -> None:
    for act in (jobs.get, jobs.log, jobs.again, jobs.stop):
        with pytest.raises(UserError, match="No such job"):
            act(name)


def test_what_is_typed_is_never_a_flag(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", start=lambda place: None)
    texts = ["--output_dir", "/tmp/elsewhere", "$(reboot)", "- a\nb: c", "1e-5", "808低音"]
    job = jobs.submit("generate", {"prompts": texts}, title="--x", folder=jobs.folder.parent / "g")
    line = jobs.command_line(job.id)
    assert line[3:5] == ["generate", "--config"]
    assert line[6:] == ["--language", "en"]
    from musicgen_lora.config_file import read_config

    assert read_config(Path(line[5]), "generate") == {"prompts": texts}
