"""The requests that other programs send to DeepL and LibreTranslate, to a served process."""

from __future__ import annotations

from collections.abc import Iterator

import deepl
import httpx
import pytest
from deepl.api_data import MultilingualGlossaryDictionaryEntries

from export.runtime.bundle import Bundle
from tests.service.conftest import MakePair
from tests.service.serving import serving

pytestmark = pytest.mark.slow

CAT = "the old cat."
KEY = {"Authorization": "DeepL-Auth-Key any"}


@pytest.fixture(scope="module")
def served(
    tiny_bundle: Bundle, make_pair: MakePair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("clients")
    models = f"{tiny_bundle.path},{make_pair('fr', 'en').path}"
    with serving(folder, models=models, suggestions_file=folder / "suggestions.db") as one:
        yield one.client


@pytest.fixture
def client(served: httpx.Client) -> deepl.DeepLClient:
    return deepl.DeepLClient("a key", server_url=str(served.base_url))


def test_deepls_client_keeps_glossaries_of_one_pair(client: deepl.DeepLClient) -> None:
    pairs = [(pair.source_lang, pair.target_lang) for pair in client.get_glossary_languages()]
    assert pairs == [("en", "de"), ("fr", "de"), ("fr", "en")]
    terms = {"cat": "Katze", "dog": "Hund"}
    made = client.create_glossary("pets", "EN", "DE", terms)
    assert (made.ready, made.source_lang, made.target_lang, made.entry_count) == (
        True,
        "EN",
        "DE",
        2,
    )
    assert [one.glossary_id for one in client.list_glossaries()] == [made.glossary_id]
    assert client.get_glossary(made.glossary_id).name == "pets"
    assert client.get_glossary_entries(made) == terms
    found = client.translate_text(CAT, source_lang="EN", target_lang="DE", glossary=made)
    assert not isinstance(found, list)
    assert "Katze" in found.text
    csv = client.create_glossary_from_csv("csv", "EN", "DE", '"a ""b"", c",Tee')
    assert client.get_glossary_entries(csv) == {'a "b", c': "Tee"}
    for one in (made, csv):
        client.delete_glossary(one)
    with pytest.raises(deepl.GlossaryNotFoundException):
        client.get_glossary(made.glossary_id)


def test_deepls_client_keeps_glossaries_of_several_pairs(client: deepl.DeepLClient) -> None:
    of = MultilingualGlossaryDictionaryEntries
    made = client.create_multilingual_glossary(
        "pets", [of("EN", "DE", {"cat": "Katze"}), of("FR", "EN", {"chat": "cat"})]
    )
    assert [one.entry_count for one in made.dictionaries] == [1, 1]
    assert client.get_multilingual_glossary(made.glossary_id).name == "pets"
    assert len(client.list_multilingual_glossaries()) == 1
    renamed = client.update_multilingual_glossary_name(made, "animals")
    assert renamed.name == "animals"
    client.update_multilingual_glossary_dictionary(made, of("EN", "DE", {"dog": "Hund"}))
    found = client.get_multilingual_glossary_entries(made, "EN", "DE")
    assert found.dictionaries[0].entries == "cat\tKatze\ndog\tHund"
    replaced = client.replace_multilingual_glossary_dictionary(
        made, of("EN", "DE", {"cat": "Kater"})
    )
    assert replaced.entry_count == 1
    translated = client.translate_text(CAT, source_lang="EN", target_lang="DE", glossary=made)
    assert not isinstance(translated, list)
    assert "Kater" in translated.text
    client.delete_multilingual_glossary_dictionary(made, replaced)
    assert [
        one.source_lang for one in client.get_multilingual_glossary(made.glossary_id).dictionaries
    ] == ["FR"]
    client.delete_multilingual_glossary(made)
    assert client.list_multilingual_glossaries() == []


def test_deepls_client_translates_documents_with_a_glossary(client: deepl.DeepLClient) -> None:
    made = client.create_glossary("pets", "EN", "DE", {"cat": "Katze"})
    handle = client.translate_document_upload(
        CAT, filename="a.txt", source_lang="EN", target_lang="DE", glossary=made
    )
    client.translate_document_wait_until_done(handle, timeout_s=60)
    assert b"Katze" in client.translate_document_download(handle).content
    client.delete_glossary(made)


def test_deepls_client_is_told_what_is_not_supported(client: deepl.DeepLClient) -> None:
    for options in (
        {"style_rule": "abc"},
        {"translation_memory": "abc"},
        {"custom_instructions": ["Be brief."]},
        {"model_type": deepl.ModelType.QUALITY_OPTIMIZED},
    ):
        with pytest.raises(deepl.DeepLException, match="leave it out"):
            client.translate_text(CAT, target_lang="DE", **options)
    (found,) = client.translate_text(
        [CAT],
        source_lang="EN",
        target_lang="DE",
        context="about cats",
        split_sentences=deepl.SplitSentences.OFF,
        tag_handling="xml",
        outline_detection=False,
        splitting_tags=["par"],
        non_splitting_tags=["row"],
        ignore_tags=["keep"],
        preserve_formatting=True,
    )
    assert found.text


def test_weblate_on_deepl(served: httpx.Client) -> None:
    """It lists languages, asks for the pairs of glossaries, keeps one by name, and translates XML
    with a tag for each placeholder."""

    def get(path: str, **params: str) -> list[dict[str, str]] | dict[str, list[dict[str, str]]]:
        answer = served.get(f"/v2/{path}", params=params, headers=KEY)
        assert answer.status_code == 200
        found: list[dict[str, str]] | dict[str, list[dict[str, str]]] = answer.json()
        return found

    sources = [one["language"] for one in get("languages", type="source")]
    targets = [one["language"].upper() for one in get("languages", type="target")]
    assert {"EN", "FR"} <= set(sources)
    assert "DE" in targets
    pairs = get("glossary-language-pairs")["supported_languages"]
    assert ("EN", "DE") in {(p["source_lang"].upper(), p["target_lang"].upper()) for p in pairs}
    assert get("glossaries") == {"glossaries": []}
    glossary = {
        "name": "weblate:1:EN:DE:abc",
        "source_lang": "EN",
        "target_lang": "DE",
        "entries": "cat\tKatze\nCat\tKater",
        "entries_format": "tsv",
    }
    served.post("/v2/glossaries", json=glossary, headers=KEY).raise_for_status()
    (stored,) = get("glossaries")["glossaries"]
    assert stored["name"] == glossary["name"]
    request = {
        "text": ['the <x id="4"></x> cat &amp; dog', "the old Cat"],
        "source_lang": "EN",
        "target_lang": "DE",
        "formality": "default",
        "tag_handling": "xml",
        "ignore_tags": ["x"],
        "context": "software",
        "model_type": "prefer_quality_optimized",
        "glossary_id": stored["glossary_id"],
    }
    answer = served.post("/v2/translate", json=request, headers=KEY)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["translations"]
    assert first["text"].count('<x id="4"></x>') == 1
    assert "Katze" in first["text"]
    assert "Kater" in second["text"]
    gone = served.delete(f"/v2/glossaries/{stored['glossary_id']}", headers=KEY)
    assert gone.status_code == 204
    again = served.delete(f"/v2/glossaries/{stored['glossary_id']}", headers=KEY)
    assert again.status_code == 404


def test_mastodon_on_deepl(served: httpx.Client) -> None:
    """It sends a form with several texts, and no source where it knows none."""
    texts = ["<p>the old cat.</p>", "the red dog."]
    form = {"text": texts, "target_lang": "de", "tag_handling": "html"}
    for more in ({}, {"source_lang": "EN"}):
        answer = served.post("/v2/translate", data={**form, **more}, headers=KEY)
        first, second = answer.json()["translations"]
        assert first["text"].startswith("<p>")
        assert first["text"].endswith("</p>")
        assert second["detected_source_language"].lower() in ("en", "fr", "de")
    for kind in ("source", "target"):
        assert served.get(f"/v2/languages?type={kind}", headers=KEY).json()


def test_mastodon_on_libretranslate(served: httpx.Client) -> None:
    """It takes what each language is translated to without itself, and sends lists of HTML."""
    languages = {
        one["code"]: set(one["targets"]) - {one["code"]} for one in served.get("/languages").json()
    }
    assert languages == {"de": set(), "en": {"de"}, "fr": {"de", "en"}}
    texts = ["<p>the old cat.</p>", "the red dog."]
    body = {"q": texts, "source": "auto", "target": "de", "format": "html", "api_key": ""}
    answer = served.post("/translate", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["translatedText"]) == len(answer.json()["detectedLanguage"]) == 2
    assert answer.json()["translatedText"][0].startswith("<p>")


def test_weblate_on_libretranslate(served: httpx.Client) -> None:
    """It lists pairs, and sends a form or a list, with an empty key where it has none."""
    pairs = [(one["code"], to) for one in served.get("/languages").json() for to in one["targets"]]
    assert ("en", "de") in pairs
    body = {"q": CAT, "source": "en", "target": "de", "api_key": ""}
    expected = served.post("/translate", data=body).json()["translatedText"]
    assert expected
    many = served.post("/translate", json={**body, "q": [CAT, CAT]}).json()
    assert many["translatedText"] == [expected, expected]


def test_libretranslates_page_suggests(served: httpx.Client) -> None:
    assert served.get("/frontend/settings").json()["suggestions"] is True
    form = {"q": CAT, "s": "die alte Katze.", "source": "auto", "target": "de"}
    multipart = {name: (None, value) for name, value in form.items()}
    answer = served.post("/suggest", files=multipart)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
