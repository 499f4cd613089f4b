"""The page translates what is typed, shows what belongs together, and offers other words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.service.page.page import API, OpenPage, needs_browser, says, shows, sync_api

pytestmark = needs_browser


def test_it_translates_what_is_typed_and_asks_nobody_else(
    open_page: OpenPage, address: str
) -> None:
    page = open_page()
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    field = page.get_by_label("Text to translate")
    assert page.evaluate("document.activeElement.id") == "text"
    field.press_sequentially("The weather is nice. Where is it?")
    shows(page, "THE WEATHER IS NICE. WHERE IS IT?")
    says(page, "English (detected)", "#source option:checked")
    sync_api.expect(page.locator("#text")).to_have_attribute("lang", "en")
    sync_api.expect(page.locator("#result")).to_have_attribute("lang", "de")
    says(page, "THE WEATHER IS NICE. WHERE IS IT?", "#spoken")
    sync_api.expect(page).to_have_url(re.compile("q=The.weather"))
    page.reload()
    shows(page, "THE WEATHER IS NICE. WHERE IS IT?")
    assert all(url.startswith(address) and "weather" not in url for url in asked)


def test_a_sentence_lights_up_on_both_sides(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=" + "One cat.%0A%0ATwo  dogs. Three birds.")
    shows(page, "ONE CAT.\n\nTWO  DOGS. THREE BIRDS.")
    lit = page.locator(".lit")
    page.locator("#result span").nth(1).hover()
    sync_api.expect(lit).to_have_text(["Two  dogs.", "TWO  DOGS."])
    box = page.locator("#mirror span").nth(2).bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    sync_api.expect(lit).to_have_text(["Three birds.", "THREE BIRDS."])
    page.locator("#text").press("Control+Home")
    sync_api.expect(lit).to_have_text(["One cat.", "ONE CAT."])
    same = "(a, b) => a.offsetHeight === b.offsetHeight && a.offsetWidth === b.offsetWidth"
    assert page.evaluate(f"({same})(document.querySelector('#text'), mirror)")


def test_another_translation_is_chosen_and_kept(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=A cat. A dog.")
    shows(page, "A CAT. A DOG.")

    def offer(route: Any) -> None:
        asked = route.request.post_data_json
        if not asked.get("alternatives"):
            route.fallback()
            return
        assert (asked["text"], asked["source"]) == ("A dog.", "en")
        item = {"text": "A DOG.", "truncated": False, "warnings": [], "alternatives": ["Ein Hund."]}
        route.fulfill(json={"source": "en", "target": "de", "translations": [item]})

    page.route(API, offer)
    page.locator("#result span").nth(1).click()
    other = page.get_by_role("button", name="Ein Hund.")
    sync_api.expect(other).to_be_focused()
    page.keyboard.press("Escape")
    sync_api.expect(other).to_be_hidden()
    sync_api.expect(page.locator("#result span").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    sync_api.expect(other).to_be_focused()
    page.keyboard.press("Enter")
    shows(page, "A CAT. Ein Hund.")
    page.locator("#text").press("Control+End")
    page.keyboard.type(" A bird.")
    shows(page, "A CAT. Ein Hund. A BIRD.")


def test_a_form_of_address_where_there_is_a_choice(open_page: OpenPage) -> None:
    page = open_page("#s=de&t=en&q=Ein Hund.")
    shows(page, "EIN HUND.")
    form = page.get_by_label("Form of address")
    form.select_option("Informal")
    shows(page, "informal EIN HUND.")
    form.select_option("Formal")
    shows(page, "formal EIN HUND.")
    file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"Eine Katze."}
    page.locator("#file").set_input_files(file)
    with page.expect_download() as download:
        page.locator("#file-download").click()
    assert Path(download.value.path()).read_text() == "formal EINE KATZE."
    page.locator("#swap").click()
    sync_api.expect(form).to_be_hidden()
    page.locator("#text").fill("A dog.")
    shows(page, "A DOG.")


def test_no_choice_where_the_model_is_greedy(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=fr&q=A cat. A dog.")
    shows(page, "A CAT. A DOG.")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    note = page.get_by_text("A click on a translated sentence")
    sentence = page.locator("#result span").nth(1)
    sync_api.expect(note).to_be_hidden()
    sync_api.expect(page.locator("#result [role=button], #result [tabindex]")).to_have_count(0)
    sentence.click()
    sync_api.expect(page.locator("#result span.lit")).to_have_text(["A DOG."])
    sync_api.expect(page.locator("#alternatives")).to_be_hidden()
    assert asked == []
    page.locator("#target").select_option("de")
    shows(page, "A CAT. A DOG.")
    sync_api.expect(note).to_be_visible()
    sync_api.expect(page.locator("#result [role=button]")).to_have_count(2)


def test_languages_are_swapped_only_where_both_ways_are_served(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=fr&q=The house is old and small.")
    shows(page, "THE HOUSE IS OLD AND SMALL.")
    swap = page.get_by_role("button", name="Swap languages")
    sync_api.expect(swap).to_be_hidden()
    page.get_by_label("To", exact=True).select_option("de")
    swap.click()
    sync_api.expect(page.locator("#source")).to_have_value("de")
    sync_api.expect(page.locator("#target")).to_have_value("en")
    sync_api.expect(page.locator("#text")).to_have_value("THE HOUSE IS OLD AND SMALL.")
    sync_api.expect(page).to_have_url(re.compile("#s=de&t=en&q=THE"))


def test_the_glossary_is_sent_and_remembered(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("summary").click()
    page.get_by_role("button", name="Add a term").click()
    page.get_by_label("Term", exact=True).fill("cat")
    page.get_by_label("Its translation").fill("Katze")
    page.locator("#text").fill("A cat.")
    with page.expect_request(API) as asked:
        shows(page, "A Katze.")
    assert asked.value.post_data_json["glossary"] == {"cat": "Katze"}
    page.reload()
    says(page, "(1)", "#term-count")


def test_warnings_are_shown_quietly(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#text").fill("Das Wetter ist heute schön.")
    shows(page, "Das Wetter ist heute schön.")
    says(page, "This is German already.", "#warnings")
    page.route(API, warn)
    page.locator("#text").fill("Go. Go.")
    says(page, "It repeats itself.", "#warnings")
    sync_api.expect(page.locator("#status")).to_have_text("")


def warn(route: Any) -> None:
    warning = {"code": "repetition", "message": "it repeats itself"}
    item = {"text": "Los. Los.", "truncated": False, "warnings": [warning]}
    route.fulfill(json={"source": "en", "target": "de", "translations": [item]})
