"""The page for everybody: by keyboard, in the dark, on a phone."""

from __future__ import annotations

from tests.service.page.page import OpenPage, needs_browser, shows, sync_api

pytestmark = needs_browser


def test_all_is_reached_by_tab_and_has_a_name(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=A cat.")
    shows(page, "A CAT.")
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    reached = []
    for _ in range(13):
        focused = page.evaluate(
            "(() => { const one = document.activeElement; return [one.id || one.className || "
            "one.tagName, getComputedStyle(one).outlineStyle, one.matches(':focus-visible')]; })()"
        )
        reached.append(focused[0])
        assert focused[2], reached
        assert focused[1] == "solid" or focused[0] == "text"
        page.keyboard.press("Tab")
    wanted = ["theme", "source", "swap", "text", "open-file", "clear", "target", "lit"]
    assert reached[:8] == wanted
    assert reached[8:12] == ["copy", "copy-link", "SUMMARY", "A"]
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, select, textarea, input:not([type=file])')]"
        ".filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))"
        ".map((one) => one.id)"
    )
    assert nameless == []


def test_dark_mode_follows_the_system_or_the_choice(open_page: OpenPage) -> None:
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    button = page.get_by_role("button", name="Dark")
    button.click()
    sync_api.expect(button).to_have_attribute("aria-pressed", "true")
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) == light


def test_it_fits_a_phone(open_page: OpenPage) -> None:
    word = "Donaudampfschifffahrtsgesellschaft" * 3
    page = open_page(f"#s=en&t=de&q={word}", viewport={"width": 320, "height": 600})
    shows(page, word.upper())
    page.locator("summary").click()
    page.get_by_role("button", name="Add a term").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320
