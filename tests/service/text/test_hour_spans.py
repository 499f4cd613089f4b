"""Hours of spans and lists say which half of the day is meant; dates and labels are none."""

from __future__ import annotations

import pytest

from service.text.hour_spans import with_both_halves


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("Sunday, March 8, 2 - 4 pm", "Sunday, March 8, 2 pm to 4 pm"),
        ("Open 9-5pm, Mon-Fri 9-5 pm", "Open 9am to 5pm, Mon-Fri 9 am to 5 pm"),
        ("Breakfast 7 - 10 am, lunch 12-1pm", "Breakfast 7 am to 10 am, lunch 12pm to 1pm"),
        ("moved from 4 to 3 pm", "moved from 4 pm to 3 pm"),
        ("We postponed it from 11 to 10 am.", "We postponed it from 11 am to 10 am."),
        ("from 10 to 6 pm", "from 10 am to 6 pm"),
        ("Trains at 5, 6 and 7 pm.", "Trains at 5 pm, 6 pm and 7 pm."),
        ("at 5:30, 6, or 7pm", "at 5:30pm, 6pm or 7pm"),
    ],
)
def test_hours_have_their_half_of_the_day(text: str, sent: str) -> None:
    assert with_both_halves(text) == sent


@pytest.mark.parametrize(
    "text",
    [
        "Concert: June 3 - 5:30 pm",
        "The webinar is on March 12 – 3 pm.",
        "On 12/5-6pm we meet.",
        "Day 1 - 9 am: Keynote",
        "see session 2 - 10 am",
        "Flight 12 - 6:30 am",
        "the scores 5, 6 and 7 pm",
    ],
)
def test_dates_and_labels_stay(text: str) -> None:
    assert with_both_halves(text) == text
