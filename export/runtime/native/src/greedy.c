/* Greedy decoding: all sentences begin together; one that has ended leaves. */
#include "run.h"

static int begin(qs_run *run) {
    int rows = run->call->rows;
    for (int row = 0; row < rows; row++) {
        run->active[row] = row;
        run->last[row] = QS_BOS;
        run->call->target_lengths[row] = 0;
        run->call->ended[row] = 0;
        if (run->call->scored) run->call->scores[row] = 0.0f;
    }
    return rows;
}

/* Write the chosen tokens; gives how many rows go on, which move together. A full translation goes on
 * where the distribution of its </s> is wanted, and leaves a step later. */
static int keep_going(qs_run *run, int rows, int place) {
    const qs_call *call = run->call;
    int going = 0;
    for (int row = 0; row < rows; row++) {
        int32_t sentence = run->active[row], id = run->best_id[row];
        if (place == call->limits[sentence]) continue;
        if (id == QS_EOS) {
            call->ended[sentence] = 1;
            continue;
        }
        int length = call->target_lengths[sentence]++;
        call->targets[run->written_at[sentence] + (size_t)length] = id;
        if (length + 1 >= qs_steps(call, sentence)) continue;
        run->active[going] = sentence;
        run->last[going++] = id;
    }
    return going;
}

void qs_decode_greedily(qs_run *run) {
    int rows = begin(run);
    for (int place = 0; rows > 0; place++) {
        qs_step(run, rows, place);
        qs_choose(run, rows, place);
        rows = keep_going(run, rows, place);
    }
}
