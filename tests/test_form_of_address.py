"""Forms of address in German text."""

from __future__ import annotations

import pytest

from quickstudy.form_of_address import formality_of_german, forms_of_german

FORMAL = [
    "Klicken Sie auf die Schaltfläche.",
    "Bitte geben Sie Ihr Kennwort ein.",
    "Möchten Sie die Datei speichern?",
    "Wie geht es Ihnen?",
    "Das ist Ihre Nummer.",
    "Wir danken Ihnen für Ihren Besuch.",
    "Sie können die Einstellungen jederzeit ändern.",
    "Sie müssen zuerst ein Konto anlegen.",
    "(Wählen Sie eine Farbe.)",
    "1. Öffnen Sie die Tür.",
    "Wenn Sie fertig sind, geht es weiter.",
    "Alle Ihre Daten sind gelöscht.",
    "Eine Liste für alle Ihre Geräte.",
    "Ohne Ihre Zustimmung geht es nicht.",
]
INFORMAL = [
    "Klick auf deinen Namen.",
    "Du bist spät dran.",
    "Hast du Zeit?",
    "Ich habe dir geschrieben.",
    "Das ist dein Hund.",
    "Ihr seid zu spät.",
    "Habt ihr euch verlaufen?",
    "Ist das euer Auto?",
    "Eure Eltern warten.",
    "Wo steht eures?",
    "Bitte gib eine gültige Adresse ein.",
    "Bitte starte den Rechner nach der Aktualisierung neu.",
    "Starte den Rechner neu.",
    "Komm nicht zu spät!",
    "Komm her!",
    "Sag mir, was fehlt.",
    "Fertig. Lies die Anleitung.",
    "Nimm den Zug um acht.",
    "Gib Ihre E-Mail-Adresse ein",  # of both forms, and so not in Sie
    "Bitte gib Ihren Namen ein.",
    "Wähle Ihr Land",
    "1. Öffne bitte das Fenster.",
    "Schließ die Tür.",
    "Fass das nicht an!",
    "Gut. Frag ihn doch.",
    "Drück hier.",
]
NEITHER = [
    "Sie ist nett.",
    "Sie lacht.",
    "Gestern hat sie angerufen.",
    "Sie wurden gestern entlassen.",
    "Dort stehen sie.",
    "Er ging. Sie blieb.",
    "Er hat ihnen geholfen.",
    "Ihr Hund bellt.",
    "Ihre Mutter ist krank.",
    "Maria sucht ihren Schlüssel.",
    "Das Wetter ist schön.",
    "Datei speichern",
    "Das individuelle Duell endete.",
    "Bitte eine Tasse Kaffee.",
    "Bitte alle Felder ausfüllen.",
    "Bitte warten",
    "Heute den ganzen Tag geschlossen",
    "Bitte keine Werbung!",
    "Halt!",
    "Siehe den Anhang.",
    "Suche nach Dateien",
    "Ruf des Adlers",
    "Das kostet 100 EUR.",
    "Sagst du es ihm, oder sagen Sie es ihm?",
    "",
]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        *((text, "formal") for text in FORMAL),
        *((text, "informal") for text in INFORMAL),
        *((text, None) for text in NEITHER),
    ],
)
def test_german_forms_of_address(text: str, form: str | None) -> None:
    assert formality_of_german(text) == form


ALONE = {
    "formal": [
        "Sei die Funktion f gegeben. Berechnen Sie die Ableitung.",
        "Sollte uns ein Fehler unterlaufen, kontaktieren Sie uns bitte.",
    ],
    "informal": ["Sie können dir helfen.", "Sie werden dich lieben."],
}
"""Texts that seem to have both."""
BOTH = "Sagst du es ihm, oder sagen Sie es ihm?"


@pytest.mark.parametrize(
    "text",
    [
        "Gib Ihre E-Mail-Adresse ein",
        "Melde dich bei Ihrem Konto an",
        "Gib uns Ihr Feedback",
        "Sag mir, wo Ihr Koffer ist.",
        BOTH,
    ],
)
def test_a_text_may_mix_both(text: str) -> None:
    assert forms_of_german(text) == {"formal", "informal"}


def test_the_forms_of_a_text_are_its_form() -> None:
    """Wherever a text does not mix them."""
    for texts, forms in ((FORMAL, {"formal"}), (NEITHER, set())):
        for text in texts:
            if len(forms_of_german(text)) < 2:
                assert forms_of_german(text) == forms, text
    assert [text for text in (*FORMAL, *NEITHER) if len(forms_of_german(text)) > 1] == [BOTH]
    for text in ALONE["formal"]:
        assert forms_of_german(text) == {"formal"}, text
    for text in ALONE["informal"]:
        assert forms_of_german(text) == {"informal"}, text
    for text in INFORMAL:
        assert "informal" in forms_of_german(text)
