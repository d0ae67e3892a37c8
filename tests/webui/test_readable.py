"""What the page shows can be found and read, however long its forms and outputs are."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
pytest.importorskip("playwright", reason="playwright is not installed")

from made_datasets import write_metadata
from playwright.sync_api import Browser, expect
from served_page import WIDE, Served, open_page, tab

from musicgen_lora.atomic import remove_folder
from musicgen_lora.webui.work.job import END_FILE, LOG_FILE
from musicgen_lora.webui.work.jobs import Jobs


def test_a_job_s_output_is_shown_from_its_end(browser: Browser, served: Served) -> None:
    jobs = Jobs(served.workspace / "jobs", start=lambda place: None)
    job = jobs.submit("prepare", {}, title="beats", folder=served.workspace / "datasets" / "beats")
    place = jobs.folder / job.id
    (place / LOG_FILE).write_text("".join(f"line {n}\n" for n in range(100)))
    (place / END_FILE).write_text('{"code": 0, "at": 1.0}')
    page, _ = open_page(browser, served, viewport=WIDE, locale="en-GB")
    page.locator("#jobs button.label-wrap").click()
    output = page.locator("#job-log textarea")
    expect(output).to_have_value("\n".join(f"line {n}" for n in range(100)))
    page.wait_for_function(
        "(box => box.scrollTop + box.clientHeight > box.scrollHeight - 10)"
        "(document.querySelector('#job-log textarea'))",
        timeout=20_000,
    )
    page.context.close()


def test_a_clip_is_continued_from_its_end_unless_a_second_is_given(
    browser: Browser, served: Served
) -> None:
    """The field is empty then, as its label says; it showed 0."""
    page, _ = open_page(browser, served, viewport=WIDE, locale="zh-CN")
    tab(page, 2)
    page.locator("#recording-box button.label-wrap").click()
    expect(page.locator("#at input")).to_have_value("")
    page.context.close()


def test_what_is_gone_is_said_until_something_else_is_chosen(
    browser: Browser, served: Served
) -> None:
    for name in ("one", "two"):
        (served.workspace / "datasets" / name).mkdir(exist_ok=True)
        write_metadata(served.workspace / "datasets" / name, [{"audio": "a.wav", "text": name}])
    page, _ = open_page(browser, served, viewport=WIDE, locale="en-GB")
    listed, gone = page.locator("#dataset"), "What was chosen here no longer exists."

    def choose(name: str) -> None:
        listed.locator("input").click()
        page.get_by_role("option", name=name, exact=True).click()

    choose("one")
    expect(page.get_by_test_id("cell-0-1")).to_contain_text("one")
    remove_folder(served.workspace / "datasets" / "one")
    height = listed.bounding_box()
    expect(listed).to_contain_text(gone)
    # Longer than a look takes.
    page.wait_for_timeout(5_000)
    expect(listed).to_contain_text(gone)
    choose("two")
    expect(listed).not_to_contain_text(gone, timeout=10_000)
    assert listed.bounding_box() == height
    expect(page.get_by_test_id("cell-0-1")).to_contain_text("two")
    remove_folder(served.workspace / "datasets" / "two")
    page.context.close()


def test_the_strip_stays_in_view_where_a_long_form_ends(browser: Browser, served: Served) -> None:
    """What the button at the form's end has started was said out of sight."""
    page, _ = open_page(browser, served, viewport=WIDE, locale="en-GB")
    tab(page, 2)
    page.locator("#generate").scroll_into_view_if_needed()
    expect(page.locator("#prompt")).not_to_be_in_viewport()
    expect(page.locator("#strip .strip")).to_be_in_viewport(ratio=1)
    page.context.close()
