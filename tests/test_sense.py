"""Sentences as people type them, through the shipped English → Portuguese and → German models.

From a newspaper, a manual, an e-mail and a form, written for this test: names, numbers and
placeholders come out right, the words that carry the sense are there, and nothing is warned of.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.models import load_models
from service.pivot import TranslatedText, TranslationRequest
from service.settings import Settings
from service.translator import Translator

MODELS = Path(__file__).parents[1] / "models"

NEWSPAPER = {
    "The mayor of Lisbon opened a new library near the river on Tuesday.": (
        *("Lisboa", "nova biblioteca", "rio", "terça"),
    ),
    "Inflation in the euro area fell to 2.4 percent in March, the lowest figure since 2021.": (
        *("[Ii]nflação", "euro", r"2,4", "março", "2021"),
    ),
    "Heavy rain closed three roads in the north of the country, and 120 families had to leave "
    "their homes.": ("chuva", "três", "norte do país", "120 famílias", "casas"),
    "The company, which employs 3,500 people in Porto, will close two of its five factories next "
    "year.": ("empresa", r"3[. ]?500 pessoas", "Porto", "cinco fábricas", "próximo ano"),
    '"We have to talk about water," said Maria Santos, who has run the farm since 1998.': (
        *("água", "Maria Santos", "1998", "fazenda|quinta"),
    ),
}
MANUAL = {
    "Click the Save button to store your changes.": (
        *("[Cc]lique", "botão", "Salvar|Guardar", "alterações|mudanças"),
    ),
    "Before you clean the machine, switch it off and wait until the red light goes out.": (
        *("[Aa]ntes de limpar", "máquina", "deslig", "luz vermelha"),
    ),
    "Do not install the update while the battery is below 20%.": (
        *("[Nn]ão", "instal", "atualização", "bateria", "20 ?%"),
    ),
    "Copy {file_name} to the folder {target} and restart the server.": (
        *("[Cc]opi", r"\{file_name\}", r"pasta \{target\}", "reinici", "servidor"),
    ),
    "Turn the screw to the right until you hear a click, then close the cover.": (
        *("parafuso", "direita", "clique", "fech"),
    ),
}
EMAIL = {
    "Dear Ms Almeida, thank you for your message of 14 May.": (
        *("Almeida", "[Oo]brigad[oa]", "mensagem", "14 de [Mm]aio"),
    ),
    "Please find attached the invoice for October.": ("fatura", "outubro", "anex"),
    "Could we move our meeting to Thursday at 10:30?": (
        *("reunião", "quinta-feira", "10[:h]30", r"\?$"),
    ),
    "I am sorry, but we cannot deliver your order before the end of the month.": (
        *("não", "entregar", "pedido|encomenda", "fim do mês|final do mês"),
    ),
    "If you have any questions, please call João Pereira at the office.": (
        *("João Pereira", "dúvidas?|perguntas?|questões", "escritório"),
    ),
}
FORM = {
    "First name": ("[Nn]ome",),
    "Date of birth": ("[Dd]ata de [Nn]ascimento",),
    "Enter your e-mail address": ("endereço", "e-mail|correio"),
    "Have you ever been treated for high blood pressure?": ("trata", "pressão", r"\?$"),
    "I agree to the terms and conditions.": ("[Cc]oncord|[Aa]ceit", "termos", "condições"),
}
SENTENCES = {**NEWSPAPER, **MANUAL, **EMAIL, **FORM}


WORDS = {
    **{"dog": "Hund", "water": "Wasser", "house": "Haus", "bread": "Brot", "green": "grün"},
    **{"Monday": "Montag", "apple": "Apfel", "cheese": "Käse", "beautiful": "schön"},
    **{"Save": "Speichern", "Cancel": "Abbrechen", "Settings": "Einstellungen"},
}
GERMAN = {
    "Click the Save button to store your changes.": (
        *("Klicken Sie", "Schaltfläche", "Speichern", "Änderungen"),
    ),
    "Please send me the invoice by Friday.": ("Bitte", "Sie", "Rechnung", "Freitag"),
    "Enter your name": ("Geben Sie Ihren Namen ein",),
    "Select your country": ("Sie Ihr Land",),
    "Do you have any questions?": ("Haben Sie", r"Fragen\?"),
    "Copy {file_name} to the folder {target} and restart the server.": (
        *(r"\{file_name\}", r"Ordner \{target\}", "Server"),
    ),
    "My brother is taller than me.": ("Bruder", "größer als ich"),
    "François Hollande met João Gonçalves.": ("François Hollande", "João Gonçalves"),
    "Dear customer,": ("^Sehr geehrte",),
    "Kind regards,": ("Grüßen?",),
    "Yours sincerely,": ("Mit freundlichen Grüßen",),
    "Dear Ms. Smith,": ("^Sehr geehrte Frau Smith,$",),
    "Dear Mr. Novak,": ("^Sehr geehrter Herr Novak,$",),
    "Dear Dr. Smith,": (r"Dr\. Smith,$",),
    "Dear John,": ("^Lieber John,$",),
    "Dear Maria,": ("^Liebe Maria,$",),
    "Please do not hesitate to contact us.": ("zögern Sie nicht", "kontakt"),
    "The strike at the airport ended on Friday.": ("Streik", "Flughafen", "Freitag"),
    "Anna Schmidt's report is attached.": ("Anna Schmidts? Bericht|Bericht von Anna Schmidt",),
    "Best regards, Anna": ("Grüßen?,? Anna$",),
    "The conference takes place on Dec. 3-5.": (r"3\. bis 5\. Dezember",),
    "The office is open between 9 and 5pm.": ("zwischen 9 und 17 Uhr",),
    "We meet between 5 and 6pm.": ("zwischen 17(?: Uhr)? und 18 Uhr",),
    "We meet from 3-4pm.": ("15(?: Uhr)? bis 16 Uhr",),
    "We flew to São Paulo on Monday.": ("São Paulo", "Montag"),
    "The office is closed from December 24-26.": (
        *("Büro", r"24\.?(?: bis |[-–])26\. Dezember", "geschlossen"),
    ),
    "We are open from 9am-5pm on weekdays.": ("9(?: Uhr)? bis 17 Uhr", "geöffnet"),
    "A man in a yellow helmet is repairing a bicycle in front of a shop.": (
        *("Ein Mann", "gelben (?:Schutz)?[Hh]elm", "repariert", "Fahrrad", "vor einem"),
    ),
}


def translations(texts: list[str], name: str) -> dict[str, TranslatedText]:
    bundle, target = MODELS / name, name[-2:]
    settings = Settings(model=bundle, inter_threads=1)
    models = load_models([bundle], settings)

    async def translate() -> dict[str, TranslatedText]:
        translator = Translator(models, settings)
        result = await translator.translate(TranslationRequest(texts, "en", target))
        await translator.close_now()
        return dict(zip(texts, result.texts, strict=True))

    return asyncio.run(translate())


@pytest.fixture(scope="module")
def translated() -> dict[str, TranslatedText]:
    return translations(list(SENTENCES), "en-pt")


@pytest.fixture(scope="module")
def distilled() -> dict[str, TranslatedText]:
    return translations(list(SENTENCES), "small/en-pt")


@pytest.fixture(scope="module")
def german() -> dict[str, TranslatedText]:
    return translations([*WORDS, *GERMAN], "en-de")


@pytest.mark.parametrize("word", WORDS)
def test_a_lone_word_is_that_word(word: str, german: dict[str, TranslatedText]) -> None:
    assert german[word].text == WORDS[word]
    assert not german[word].warnings


def check_sense(translation: TranslatedText, signs: Sequence[str]) -> None:
    missing = [sign for sign in signs if not re.search(sign, translation.text)]
    assert not missing, translation.text
    assert not translation.warnings, translation.text


@pytest.mark.parametrize("sentence", GERMAN)
def test_a_german_sentence_makes_sense(sentence: str, german: dict[str, TranslatedText]) -> None:
    check_sense(german[sentence], GERMAN[sentence])


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_makes_sense(sentence: str, translated: dict[str, TranslatedText]) -> None:
    translation = translated[sentence]
    check_sense(translation, SENTENCES[sentence])
    assert not translation.truncated
    assert len(translation.text) <= 1.6 * len(sentence) + 10, translation.text
    assert sentence[-1].isalnum() or translation.text[-1] in '.?!"”', translation.text


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_distilled_model_makes_sense(
    sentence: str, distilled: dict[str, TranslatedText]
) -> None:
    check_sense(distilled[sentence], SENTENCES[sentence])
