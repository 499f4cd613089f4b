// DeepL's own client, asked all that Quickstudy answers. Prints what it gets as one JSON object.
// node deepl.mjs URL
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import * as deepl from "deepl-node";

const client = new deepl.DeepLClient("a key", { serverUrl: process.argv[2], maxRetries: 0 });
const CAT = "the old cat.";

async function refusal(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return [error.constructor.name, error.message];
  }
}

async function texts() {
  const [first, second] = await client.translateText([CAT, "<b>the red dog</b>"], "en", "de", {
    context: "about cats",
    splitSentences: "nonewlines",
    preserveFormatting: true,
    tagHandling: "html",
    modelType: "prefer_quality_optimized",
  });
  const detected = await client.translateText(CAT, null, "de");
  return { first, second, detected };
}

async function documents() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "deepl-node-"));
  const [from, to] = [path.join(folder, "a.html"), path.join(folder, "a.de.html")];
  fs.writeFileSync(from, `<p class="x">${CAT}</p>`);
  const status = await client.translateDocument(from, to, "en", "de");
  const html = fs.readFileSync(to, "utf8");
  const handle = await client.uploadDocument(Buffer.from(CAT), "en", "de", { filename: "a.txt" });
  await client.isDocumentTranslationComplete(handle);
  const out = path.join(folder, "a.de.txt");
  await client.downloadDocument(handle, out);
  const text = fs.readFileSync(out, "utf8");
  fs.rmSync(folder, { recursive: true });
  return { state: status.status, html, text };
}

async function glossaries() {
  const entries = new deepl.GlossaryEntries({ entries: { cat: "Katze" } });
  const made = await client.createGlossary("pets", "en", "de", entries);
  const listed = (await client.listGlossaries()).map((one) => one.glossaryId);
  const terms = (await client.getGlossaryEntries(made)).entries();
  const used = await client.translateText(CAT, "en", "de", { glossary: made });
  await client.deleteGlossary(made);
  const gone = await refusal(client.getGlossary(made.glossaryId));
  const several = await client.createMultilingualGlossary("pets", [
    { sourceLangCode: "en", targetLangCode: "de", entries },
    { sourceLangCode: "fr", targetLangCode: "en", entries },
  ]);
  const counts = several.dictionaries.map((one) => one.entryCount);
  const names = (await client.listMultilingualGlossaries()).map((one) => one.name);
  await client.deleteMultilingualGlossary(several);
  return { isListed: listed.includes(made.glossaryId), terms, used: used.text, gone, counts, names };
}

const pairs = await client.getGlossaryLanguagePairs();
console.log(
  JSON.stringify({
    texts: await texts(),
    documents: await documents(),
    glossaries: await glossaries(),
    sources: (await client.getSourceLanguages()).map((one) => one.code),
    targets: (await client.getTargetLanguages()).map((one) => one.code),
    pairs: pairs.map((one) => [one.sourceLang, one.targetLang]),
    usage: (await client.getUsage()).character,
    refused: [
      await refusal(client.translateText(CAT, "en", "de", { modelType: "quality_optimized" })),
      await refusal(client.translateText(CAT, "en", "de", { customInstructions: ["Be brief."] })),
      await refusal(client.translateText(CAT, "en", "de", { styleRule: "abc" })),
      await refusal(client.translateText(CAT, "en", "ja")),
      await refusal(client.rephraseText(CAT, "de")),
      await refusal(client.getAllStyleRules()),
    ],
  }),
);
