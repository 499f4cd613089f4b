/* The likeliest words of a position and their log-probabilities: log softmax of its logits. */
#include <math.h>

#include "run.h"

/* The largest logits in descending order, of equal ones the first, and where they stand; how many
 * there are: less than `most` only where fewer are above minus infinity. */
static int largest_logits(const float *logits, int count, int most, int32_t *places,
                          float *values) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        float logit = logits[i];
        if (!(logit > (kept == most ? values[most - 1] : -INFINITY))) continue;
        int at = kept < most ? kept++ : most - 1;
        for (; at > 0 && values[at - 1] < logit; at--) {
            values[at] = values[at - 1];
            places[at] = places[at - 1];
        }
        values[at] = logit;
        places[at] = i;
    }
    return kept;
}

void qs_keep_top(qs_run *run, int sentence, int place, const float *logits, int count) {
    const qs_call *call = run->call;
    int most = call->top_k;
    /* every sentence before this one has a position more than it may write */
    size_t position = run->written_at[sentence] + (size_t)sentence + (size_t)place;
    int32_t *ids = call->top_ids + position * (size_t)most;
    float *logp = call->top_logp + position * (size_t)most;
    int kept = largest_logits(logits, count, most, ids, logp);
    float shift = kept ? logp[0] : 0.0f;
    double sum = run->model->kernel->floats->exp_sum(logits, count, shift), among = 0.0;
    for (int i = 0; i < kept; i++) {
        double above = (double)logp[i] - shift;
        ids[i] = qs_token_at(run, sentence, ids[i]);
        logp[i] = (float)(above - log(sum));
        among += exp(above);
    }
    for (int i = kept; i < most; i++) {
        ids[i] = QS_PAD;
        logp[i] = -INFINITY;
    }
    double tail = 1.0 - among / sum; /* rounding may leave it a little below 0 */
    call->tails[position] = tail > 0.0 ? (float)tail : 0.0f;
}
