/** Of work that is asked for again and again, only the newest is done; what is older is cancelled. */

/** `work(signal)` returns a promise and deals with its own errors. */
export function latest(work) {
  let timer = 0;
  let running = null;

  function stop() {
    const wasBusy = Boolean(timer || running);
    clearTimeout(timer);
    timer = 0;
    running?.abort();
    running = null;
    return wasBusy;
  }

  async function now() {
    stop();
    const mine = new AbortController();
    running = mine;
    await work(mine.signal);
    if (running === mine) running = null;
  }

  function soon(milliseconds) {
    stop();
    timer = setTimeout(now, milliseconds);
  }

  return { now, soon, stop };
}
