/* The output layer: the likeliest token of each sentence.
 *
 * Plain greedy decoding keeps the largest logit of each panel as it is computed. Where scores or
 * distributions are asked for, or tokens that are there already count less, all logits of a sentence
 * are written out first; both ways the same token is chosen, the first of equal ones.
 */
#include <math.h>
#include <string.h>

#include "run.h"

/* The sentence's output layer, and how many of its outputs are tokens. */
const qs_linear *qs_output_of(const qs_run *run, int sentence) {
    return run->shortlists ? &run->shortlists[sentence].output : &run->model->output;
}

/* Where a token stands among a sentence's outputs, or -1. */
int qs_place_of(const qs_run *run, int sentence, int32_t id) {
    if (!run->shortlists) return id;
    const qs_shortlist *shortlist = &run->shortlists[sentence];
    int low = 0, high = shortlist->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (shortlist->ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < shortlist->count && shortlist->ids[low] == id ? low : -1;
}

/* --- plain ------------------------------------------------------------------------------------ */

/* A panel's logits [rows, columns], the first column being `column`, into best and best_id. */
static void keep_largest(qs_run *run, const qs_panel *panel, int first, int column, int banned) {
    for (int row = 0; row < panel->rows; row++) {
        float *logits = run->logits + (size_t)row * (size_t)panel->columns;
        if (banned >= column && banned < column + panel->columns)
            logits[banned - column] = -INFINITY;
        float largest = run->model->kernel->floats->largest(logits, panel->columns);
        if (!(largest > run->best[first + row])) continue;
        int place = 0;
        while (logits[place] != largest) place++; /* it is one of them, bit for bit */
        run->best[first + row] = largest;
        run->best_id[first + row] = column + place;
    }
}

static void largest_of(qs_run *run, const qs_linear *output, int first, int rows, int banned) {
    int panel_columns = qs_panel_columns(rows, output->outputs);
    for (int row = first; row < first + rows; row++) {
        run->best[row] = -INFINITY;
        run->best_id[row] = -1;
    }
    for (int column = 0; column < output->outputs; column += panel_columns) {
        int columns = output->outputs - column;
        if (columns > panel_columns) columns = panel_columns;
        qs_panel panel = qs_panel_of(run->model->kernel, output,
                                     run->bytes + (size_t)first * run->byte_stride,
                                     run->byte_stride, run->row_steps + first, rows, column,
                                     columns, run->sums);
        run->model->kernel->floats->store(&panel, run->logits, (size_t)columns);
        keep_largest(run, &panel, first, column, banned);
    }
}

static void choose_plainly(qs_run *run, int rows, int place) {
    int together = run->shortlists ? 1 : QS_ROWS;
    for (int first = 0; first < rows; first += together) {
        int count = rows - first < together ? rows - first : together;
        int sentence = run->active[first];
        int banned = place == 0 ? qs_place_of(run, sentence, QS_EOS) : -1;
        largest_of(run, qs_output_of(run, sentence), first, count, banned);
    }
}

/* --- with scores, distributions, penalty or n-grams ------------------------------------------- */

/* Tokens that are there already count less: divided or multiplied by the penalty, once each. */
static void penalise(qs_run *run, int sentence, const int32_t *written, int length,
                     float *logits) {
    float penalty = run->call->repetition_penalty;
    int known = 0;
    for (int i = 0; i < length; i++) {
        int seen = 0;
        for (int j = 0; j < known && !seen; j++) seen = run->history[j] == written[i];
        if (seen) continue;
        run->history[known++] = written[i];
        int place = qs_place_of(run, sentence, written[i]);
        if (place < 0) continue;
        float *logit = logits + place;
        *logit = *logit < 0 ? *logit * penalty : *logit / penalty;
    }
}

/* No n-gram comes twice: what has followed the last n - 1 tokens before may not follow again. */
static void ban_ngrams(qs_run *run, int sentence, const int32_t *written, int length,
                       float *logits) {
    int n = run->call->no_repeat_ngram;
    if (n == 0 || length < n) return;
    const int32_t *last = written + length - (n - 1);
    for (int i = 0; i + n <= length; i++) {
        int same = 1;
        for (int j = 0; j < n - 1 && same; j++) same = written[i + j] == last[j];
        int place = same ? qs_place_of(run, sentence, written[i + n - 1]) : -1;
        if (place >= 0) logits[place] = -INFINITY;
    }
}

void qs_restrict(qs_run *run, int sentence, const int32_t *written, int length, float *logits) {
    if (run->call->repetition_penalty != 1.0f) penalise(run, sentence, written, length, logits);
    ban_ngrams(run, sentence, written, length, logits);
    if (length == 0) logits[qs_place_of(run, sentence, QS_EOS)] = -INFINITY;
}

/* Log softmax of the largest logit: minus the logarithm of the sum. */
static void add_score(qs_run *run, int sentence, const float *logits, int count, float largest) {
    double sum = run->model->kernel->floats->exp_sum(logits, count, largest);
    run->call->scores[sentence] -= (float)log(sum);
}

static int first_of(const float *logits, int count, float largest) {
    for (int i = 0; i < count; i++)
        if (logits[i] == largest && largest > -INFINITY) return i;
    return -1;
}

static void choose_one(qs_run *run, int row, int place, float *logits, int count) {
    int sentence = run->active[row];
    if (run->call->top_k) qs_keep_top(run, sentence, place, logits, count);
    if (place == run->call->limits[sentence]) { /* nothing more is written */
        run->best_id[row] = -1;
        return;
    }
    qs_restrict(run, sentence, run->call->targets + run->written_at[sentence], place, logits);
    float largest = run->model->kernel->floats->largest(logits, count);
    run->best_id[row] = first_of(logits, count, largest);
    if (run->call->scored) add_score(run, sentence, logits, count, largest);
}

static void choose_fully(qs_run *run, int rows, int place) {
    int together = run->shortlists ? 1 : QS_FULL_ROWS;
    for (int first = 0; first < rows; first += together) {
        int count = rows - first < together ? rows - first : together;
        const qs_linear *output = qs_output_of(run, run->active[first]);
        qs_apply(run->model->kernel, output, run->bytes + (size_t)first * run->byte_stride,
                 run->byte_stride, run->row_steps + first, count,
                 run->model->kernel->floats->store, run->logits, (size_t)output->outputs,
                 run->sums);
        for (int row = 0; row < count; row++)
            choose_one(run, first + row, place,
                       run->logits + (size_t)row * (size_t)output->outputs, output->outputs);
    }
}

void qs_choose(qs_run *run, int rows, int place) {
    if (qs_is_plain(run->call))
        choose_plainly(run, rows, place);
    else
        choose_fully(run, rows, place);
    for (int row = 0; row < rows; row++) {
        int best = run->best_id[row]; /* -1 where no logit was a number */
        run->best_id[row] = best < 0 ? QS_EOS : qs_token_at(run, run->active[row], best);
    }
}

/* --- candidates ------------------------------------------------------------------------------- */

/* Fetch a candidate's row of the table ahead: hardware does not foresee it. */
static inline void fetch(const qs_table *table, int32_t id, size_t width) {
    const int8_t *row = table->bytes + (size_t)id * width;
    for (size_t i = 0; i < width; i += 64) __builtin_prefetch(row + i);
}

/* Pack a block's rows, those that are missing as the first of the table. */
static void gather_block(const qs_table *table, const int32_t *ids, int count, size_t width,
                         int8_t *to) {
    const int8_t *from[QS_BLOCK];
    for (int n = 0; n < QS_BLOCK; n++)
        from[n] = table->bytes + (n < count ? (size_t)ids[n] * width : 0);
    for (size_t i = 0; i < width; i += QS_GROUP)
        for (int n = 0; n < QS_BLOCK; n++, to += QS_GROUP) memcpy(to, from[n] + i, QS_GROUP);
}

static void gather_one(const qs_model *model, qs_shortlist *shortlist) {
    const qs_table *table = &model->table;
    qs_linear *output = &shortlist->output;
    size_t width = (size_t)output->inputs;
    const int32_t *ids = shortlist->ids;
    for (int first = 0; first < output->outputs; first += QS_BLOCK) {
        int count = shortlist->count - first;
        for (int n = QS_BLOCK; n < 2 * QS_BLOCK && n < count; n++)
            fetch(table, ids[first + n], width);
        gather_block(table, ids + first, count, width, output->packed + (size_t)first * width);
    }
    for (int i = 0; i < output->outputs; i++) {
        int id = i < shortlist->count ? ids[i] : 0;
        output->steps[i] = table->steps[id];
        output->start[i] = table->start[id];
        output->bias[i] = i < shortlist->count ? model->output_bias[id] : -INFINITY;
    }
}

void qs_gather(qs_run *run) {
    const int32_t *ids = run->call->candidates;
    for (int sentence = 0; sentence < run->call->rows; sentence++) {
        qs_shortlist *shortlist = &run->shortlists[sentence];
        shortlist->ids = ids;
        shortlist->count = run->call->candidate_counts[sentence];
        ids += shortlist->count;
        gather_one(run->model, shortlist);
    }
}
