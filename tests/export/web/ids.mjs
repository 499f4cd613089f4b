// Ids and decoded texts of strings: `node ids.mjs tokenizer.model < strings.json`.
import { readFileSync } from "node:fs";
import { Tokenizer } from "../../../web/translator/tokenizer.js";

const tokenizer = new Tokenizer(readFileSync(process.argv[2]));
const { texts, ids } = JSON.parse(readFileSync(0, "utf-8"));
const answer = {
  encoded: texts.map((text) => tokenizer.encode(text)),
  decoded: ids.map((row) => tokenizer.decode(row)),
};
process.stdout.write(JSON.stringify(answer));
