"""The page behind its guard: whom it answers, which files it serves, what forged values do."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harm.kills import contents
from made_datasets import write_metadata

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr
from fastapi.testclient import TestClient
from gradio.state_holder import SessionState, StateHolder

from musicgen_lora.errors import UserError
from musicgen_lora.webui import server, ui
from musicgen_lora.webui.app import MAX_SESSIONS, build_page, fill
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.server import make_app
from musicgen_lora.webui.tabs.history import SHOWN
from musicgen_lora.webui.watches import Look, all_of
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

LOCAL = "http://127.0.0.1:7860"
HOSTS = ui.LOCAL_HOSTS
BASE = "tiny-beats"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset, a run and a clip, and a secret beside it."""
    outside = tmp_path_factory.mktemp("page")
    (outside / "secret.wav").write_bytes(b"secret")
    root = outside / "workspace"
    data, run = root / "datasets" / "beats", root / "runs" / "run"
    for folder in (data / "train", run / "previews", run / "evaluation", root / "generated"):
        folder.mkdir(parents=True)
    (data / "train" / "a.wav").write_bytes(b"clip")
    (data / "train" / "link.wav").symlink_to(outside / "secret.wav")
    names = ["train/a.wav", "train/link.wav", "../../../secret.wav", str(outside / "secret.wav")]
    write_metadata(data, [{"audio": name, "text": "a <b>beat</b>"} for name in names])
    (run / "previews" / "p.wav").write_bytes(b"preview")
    (run / "evaluation" / "report.html").write_text("<html>report</html>")
    (root / "generated" / "x.wav").write_bytes(b"sound")
    adapters = [{"path": "/runs/<i>trap/best_model", "strength": 0.7}, {"path": "b/x"}, "odd"]
    facts = {"prompt": "<script>alert(1)</script>", "seed": 1, "adapters": adapters}
    (root / "generated" / "x.json").write_text(json.dumps(facts))
    (root / "generated" / "link.wav").symlink_to(outside / "secret.wav")
    return root


@pytest.fixture(scope="module")
def app(root: Path) -> Any:
    return make_app(Workspace(root), None, HOSTS, "")


@pytest.fixture(scope="module")
def demo(root: Path) -> gr.Blocks:
    return build_page(Workspace(root, start=lambda place: None), "en", root / "uploads")


@pytest.fixture(scope="module")
def page(root: Path) -> Page:
    """A filled page whose looks can each be called separately."""
    with gr.Blocks() as demo:
        work = Workspace(root, start=lambda place: None)
        page = Page(work, Words("en"), gr.Timer(1), root / "uploads")
        fill(page, demo)
    return page


@pytest.fixture
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url=LOCAL, follow_redirects=False) as client:
        yield client


def test_it_opens_in_the_browsers_language_and_loads_nothing_from_elsewhere(
    client: TestClient,
) -> None:
    for accepted, language in (("zh-CN,en", "zh"), ("en-GB", "en"), ("", "en")):
        sent = client.get("/", headers={"accept-language": accepted})
        assert sent.headers["location"] == f"/{language}/"
        page = client.get(f"/{language}/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert ("数据" in page.text) == (language == "zh")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ":1"}, 403),
        ({"host": "["}, 403),
        ({"host": "[::1"}, 403),
    ],
)
def test_it_answers_to_its_own_name_alone(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.get("/en/", headers=headers).status_code == status


def test_other_pages_and_large_bodies_are_refused(client: TestClient) -> None:
    address = "/en/gradio_api/queue/join"
    assert client.post(address, headers={"origin": "http://evil.example"}).status_code == 403
    for odd in ("null", "http://[", "", "http://127.0.0.1:7860@evil.example"):
        assert client.post(address, headers={"origin": odd}).status_code == 403
    assert client.post(address, headers={"origin": LOCAL}).status_code == 422
    large = {"content-length": str(server.MAX_BODY_BYTES + 1)}
    assert client.post(address, headers=large).status_code == 413
    for path in (address, "/en/gradio_api/upload"):
        assert client.post(path, content=iter([b"x"] * 3)).status_code == 411
    more = {"content-length": str(server.MAX_UPLOAD_BYTES + 1)}
    assert client.post("/en/gradio_api/upload", headers=more).status_code == 413


def test_a_password_is_asked_of_every_request(app: server.Guard) -> None:
    guarded = server.Guard(app.app, None, "correct horse")

    def given(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    with TestClient(guarded, base_url="http://studio:7860", follow_redirects=False) as client:
        for path in ("/", "/en/", f"/files/sound/{id_of('x.wav')}", "/en/gradio_api/info"):
            for headers in ({}, given("me:wrong"), given("correct horse"), {"authorization": "x"}):
                answer = client.get(path, headers=headers)
                assert (answer.status_code, answer.text) == (401, "Password?")
        assert client.get("/", headers=given("me:correct horse")).headers["location"] == "/en/"


def test_files_are_given_by_ids(client: TestClient) -> None:
    clip = f"/files/clip/{id_of('beats')}/{id_of('train/a.wav')}"
    run = id_of("run")
    for path, content in (
        (clip, b"clip"),
        (f"/files/sound/{id_of('x.wav')}", b"sound"),
        (f"/files/preview/{run}/{id_of('p.wav')}", b"preview"),
        (f"/files/report/{run}", b"<html>report</html>"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["x-content-type-options"] == "nosniff"
    policy = client.get(f"/files/report/{run}").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-scripts allow-downloads" in policy
    assert "script-src 'sha256-" in policy
    for kind in ("wave", "spectrum"):
        # What is no sound has an empty picture; other names are none.
        drawn = client.get(f"{clip}/{kind}")
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/svg+xml")
    assert client.get(f"{clip}/picture").status_code == 422
    assert client.get(f"/files/sound/{id_of('link.wav')}/wave").status_code == 404
    part = client.get(clip, headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"li")
    saved = client.get(f"/files/sound/{id_of('x.wav')}?save=1").headers["content-disposition"]
    assert saved.startswith("attachment")


def test_no_address_leads_outside(client: TestClient, root: Path) -> None:
    """Clips whose metadata names what lies elsewhere, links, paths in place of ids, and the
    addresses that Gradio itself has for files."""
    secret = root.parent / "secret.wav"
    beats = id_of("beats")
    paths = [
        *(f"/files/clip/{beats}/{id_of(name)}" for name in ("../../../secret.wav", str(secret))),
        f"/files/clip/{beats}/{id_of('train/link.wav')}",
        f"/files/sound/{id_of('link.wav')}",
        "/files/sound/x.wav",
        "/files/sound/..%2F..%2Fsecret.wav",
        "/files/report/..",
        f"/files/preview/{id_of('run')}/..%2Fevaluation%2Freport.html",
    ]
    for name in (secret, root / "generated" / "x.wav", root / "runs" / "run", "/etc/passwd"):
        for way in ("file=", "file/", "stream/", "proxy="):
            paths += [f"/en/gradio_api/{way}{name}", f"/en/{way}{name}"]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code >= 400, path
        assert b"secret" not in answer.content.replace(str(secret).encode(), b"")


def test_the_api_is_not_offered(client: TestClient) -> None:
    info = client.get("/en/gradio_api/info").json()
    assert info["named_endpoints"] == {}
    assert client.get("/docs").status_code == 404
    assert client.get("/openapi.json").status_code == 404


FORGED = [
    None,
    "",
    "..",
    "../../secret.wav",
    "/etc/passwd",
    "http://example.org/a.wav",
    "--output_dir=/tmp/x",
    id_of("../secret.wav"),
    10**400,
    [["../../secret.wav", "x", "90", "C"]],
    {"path": "/etc/passwd"},
]


@pytest.mark.parametrize("forged", FORGED, ids=lambda value: repr(value)[:30])
def test_forged_values_read_and_write_nothing(
    root: Path, demo: gr.Blocks, page: Page, forged: Any
) -> None:
    """Every handler of the page is called with one value for all its inputs, as any program that
    reaches the port could. It refuses, or returns something harmless."""
    before = contents(root.parent)
    ran = 0
    handlers = [(fn.fn, len(fn.inputs)) for fn in demo.fns.values() if fn.fn is not None]
    looks = [*page.watches.first, *page.watches.again]
    for handler, n_inputs in [*handlers, *((look.find, len(look.inputs)) for look in looks)]:
        try:
            said = handler(*_values(handler, forged, n_inputs))
        except (gr.Error, UserError, TypeError, ValueError, AttributeError, OverflowError):
            continue
        ran += 1
        assert "secret" not in repr(said).replace("secret.wav", "")
    assert ran > 5
    after = {n: v for n, v in contents(root.parent).items() if "/uploads" not in n}
    assert {n: v for n, v in before.items() if "/uploads" not in n} == {
        n: v for n, v in after.items() if n in before
    }
    new = [name for name in after if name not in before]
    assert all("workspace/jobs/" in name or name.endswith(".lock") for name in new), new


def _values(handler: Any, forged: Any, n_inputs: int) -> list[Any]:
    """One value per input, and what Gradio adds for a click."""
    behind = inspect.unwrap(handler)
    added = [
        p for p in inspect.signature(behind).parameters.values() if "Data" in str(p.annotation)
    ]
    data = {"act": "again", "target": forged}
    event = type("Event", (), {"row_value": [forged, forged], "_data": data})()
    return [*[forged] * n_inputs, *[event for _ in added]]


def test_what_another_tab_has_deleted_is_no_error_at_each_tick(page: Page) -> None:
    looks = page.watches.again
    assert len(looks) >= 9
    for look in looks:
        given = [each.value if each.value == SHOWN else id_of("gone") for each in look.inputs]
        assert len(look.found(given)) == len(look.outputs)


def test_a_moment_is_one_request(demo: gr.Blocks) -> None:
    """However many looks there are; each browser asks again every two seconds."""
    for event in ("load", "tick"):
        asked = [f for f in demo.fns.values() if event in [name for _, name in f.targets]]
        # Gradio's own script runs at load too, in the browser.
        assert len([f for f in asked if f.fn is not None]) == 1


def test_it_watches_once_it_is_filled(demo: gr.Blocks) -> None:
    timer = next(block for block in demo.blocks.values() if isinstance(block, gr.Timer))
    assert not timer.active
    events = list(demo.fns.values())
    opened = next(f for f in events if f.fn and "load" in [name for _, name in f.targets])
    after = next(f for f in events if f.trigger_after == opened._id)
    assert after.outputs == [timer]
    assert after.fn is not None
    assert after.fn().active


def test_a_look_that_fails_is_said_once_and_keeps_no_other_from_looking() -> None:
    def broken(_: Any) -> Any:
        raise UserError("<i>metadata.json: is torn.")

    def works(value: Any) -> Any:
        return value, "b"

    looks = [Look(broken, ["x"], ["x"]), Look(works, ["y"], ["y", "z"])]
    every = all_of(looks, Words("en"))
    told, *found = every("", 1, 2)
    assert found == [gr.skip(), 2, "b"]
    assert told == '<p role="alert">! &lt;i&gt;metadata.json: is torn.</p>'
    assert every(told, 1, 3) == [gr.skip(), gr.skip(), 3, "b"]
    # Mended, and torn again.
    assert all_of(looks[1:], Words("en"))(told, 2) == ["", 2, "b"]
    assert every("", 1, 2)[0] == told


def test_no_more_sessions_are_kept_than_a_person_has(demo: gr.Blocks) -> None:
    holder = StateHolder()
    holder.set_blocks(demo)
    for number in range(3 * MAX_SESSIONS):
        assert holder[str(number)] is not None
    assert len(holder.session_data) == MAX_SESSIONS


def test_a_page_that_stays_open_costs_no_memory(demo: gr.Blocks) -> None:
    """Gradio kept each component that an update had made: 70 kB per look, 1.5 GB per night."""
    tick = next(f for f in demo.fns.values() if "tick" in [name for _, name in f.targets])
    state, sizes = SessionState(demo), []

    async def look(times: int) -> None:
        for _ in range(times):
            await demo.process_api(tick, [None] * len(tick.inputs), state=state)
            sizes.append((len(state.blocks_config.blocks), len(state.config_values)))

    asyncio.run(look(4))
    assert len({*sizes}) == 1


def test_strangers_words_are_text(root: Path) -> None:
    from musicgen_lora.webui.tabs.history import history

    work = Workspace(root)
    with gr.Blocks():
        page = Page(work, Words("en"), gr.Timer(1), root)
    html = history(work.sounds(9), page)
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "&lt;i&gt;trap x 0.7 + b · " in html
    assert html.count("<a ") == 2
    assert 'download="x.mid"' in html


def test_the_base_beside_an_adapter_is_asked_without_its_strength(tmp_path: Path) -> None:
    from musicgen_lora.webui.tabs.generate import BASE_ONLY, Form

    asked: list[dict[str, Any]] = []
    work = SimpleNamespace(adapter=tmp_path.joinpath, base_of=lambda _: BASE, generated=tmp_path)
    page: Any = SimpleNamespace(workspace=work, words=Words("en"))
    page.submit = lambda _, given, title, __: asked.append({**given, "title": title})
    Form(page, [], []).generate("808", "run", 0.5, BASE_ONLY, 1, BASE, True, 5, 1, 0, True)
    assert ["strength" in one for one in asked] == [False, True]
    assert [one["title"] for one in asked] == ["808 · base", f"808 · {tmp_path.name}"]
    assert asked[1].items() >= {"strength": [0.5], "lora_model_path": [f"{tmp_path}/run"]}.items()


def test_what_is_sent_is_not_printed_at_any_length(
    client: TestClient, demo: gr.Blocks, capfd: pytest.CaptureFixture[str]
) -> None:
    """One value of a megabyte, where twenty are wanted, and where a choice is."""
    wanted = [number for number, fn in demo.fns.items() if fn.fn is not None and fn.inputs]
    for number in wanted:
        sent = {"data": ["x" * 2**20], "fn_index": number, "session_hash": "a"}
        client.post("/en/gradio_api/run/predict", json=sent)
    written = capfd.readouterr()
    assert len(written.out) + len(written.err) < 2**20


def test_what_was_deleted_since_it_was_listed_is_a_line_on_the_page(
    client: TestClient, demo: gr.Blocks, capfd: pytest.CaptureFixture[str]
) -> None:
    """And numbers out of range: the terminal had a traceback of Gradio's for each."""
    told = set()
    for number, fn in demo.fns.items():
        for kind, bad in ((gr.Dropdown, "gone"), (gr.Slider, 1e6)):
            sent = [bad if isinstance(each, kind) else None for each in fn.inputs]
            if fn.fn is not None and bad in sent:
                body = {"data": sent, "fn_index": number, "session_hash": "b"}
                answer = client.post("/en/gradio_api/run/predict", json=body)
                told.add(answer.json().get("error"))
    assert "That no longer exists; reload the page." in told
    assert "Traceback" not in capfd.readouterr().err


def test_fifty_at_once(client: TestClient) -> None:
    def ask(number: int) -> int:
        path = f"/files/sound/{id_of('x.wav')}" if number % 2 else "/en/gradio_api/queue/join"
        return (client.get(path) if number % 2 else client.post(path, json={})).status_code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(ask, range(50))) == {200, 422}
