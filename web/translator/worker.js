/** The worker's side of `translator.js`: one model, one text after another. */

import { Model } from "./model.js";

let model = null;
let queue = Promise.resolve();
const cancelled = new Set();

const tasks = {
  async load({ base }, tell) {
    model = await Model.load(new URL(base), tell);
    return model.info;
  },
  translate({ text, formality, id }, tell) {
    return model.translate(text, async (part) => {
      tell(part);
      await messages();
      return !cancelled.has(id);
    }, formality);
  },
};

/** Lets messages that wait, such as a cancellation, be handled. */
function messages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

async function answer({ id, task, ...given }) {
  try {
    const result = await tasks[task]({ ...given, id }, (progress) => postMessage({ id, progress }));
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: error.message || String(error) });
  } finally {
    cancelled.delete(id);
  }
}

self.onmessage = ({ data }) => {
  if (data.task === "cancel") cancelled.add(data.id);
  else queue = queue.then(() => answer(data));
};
