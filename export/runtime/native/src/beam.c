/* Beam search: of all continuations of a sentence's hypotheses the likeliest go on.
 *
 * As training/model/decoding.py defines it: of the 2 * beam best continuations those among the first
 * `beam` that end a translation, with </s> or at its limit, are found; of the others the first
 * `beam` go on. A sentence leaves when `beam` translations are found. Of equal continuations that of
 * the better hypothesis comes first, then the one of the lower id.
 */
#include <math.h>
#include <string.h>

#include "run.h"

enum {
    STRETCH = 64, /* logits that are passed over together */
    MOST_CONTINUATIONS = 2 * QS_MAX_BEAM
};

typedef struct {
    float score;
    int32_t parent; /* rank */
    int32_t id;
} continuation;

typedef struct {
    continuation best[MOST_CONTINUATIONS]; /* best first */
    int count;
    int most;
} continuations;

/* --- the likeliest continuations -------------------------------------------------------------- */

static void keep(continuations *all, continuation one) {
    int at = all->count < all->most ? all->count++ : all->most - 1;
    for (; at > 0 && all->best[at - 1].score < one.score; at--) all->best[at] = all->best[at - 1];
    all->best[at] = one;
}

/* What a continuation must exceed to be kept. */
static float least(const continuations *all) {
    return all->count < all->most ? -INFINITY : all->best[all->most - 1].score;
}

/* The continuations of a hypothesis by its logits [count]. */
static void consider(const qs_run *run, int sentence, int rank, const float *logits, int count,
                     continuations *all) {
    const qs_floats *f = run->model->kernel->floats;
    float before = run->hypotheses[(size_t)sentence * (size_t)run->beam + (size_t)rank].score;
    double largest = f->largest(logits, count);
    double total = log(f->exp_sum(logits, count, (float)largest));
    for (int start = 0; start < count; start += STRETCH) {
        int end = count - start < STRETCH ? count : start + STRETCH;
        double most = f->largest(logits + start, end - start);
        if (!(before + (float)(most - largest - total) > least(all))) continue;
        for (int i = start; i < end; i++) {
            float score = before + (float)(logits[i] - largest - total);
            if (score > least(all))
                keep(all, (continuation){score, rank, qs_token_at(run, sentence, i)});
        }
    }
}

/* --- a step of a sentence --------------------------------------------------------------------- */

/* A translation: a hypothesis and, unless it is </s>, one more id. */
static void add_found(qs_run *run, int sentence, int slot, int place, int32_t id, float score) {
    size_t limit = (size_t)run->call->limits[sentence], beam = (size_t)run->beam;
    int number = run->found_count[sentence]++;
    int32_t *ids = run->found_ids + run->written_at[sentence] * 2 * beam + (size_t)number * limit;
    memcpy(ids, qs_prefix_of(run, slot), (size_t)place * sizeof *ids);
    if (id != QS_EOS) ids[place] = id;
    run->found[(size_t)sentence * 2 * beam + (size_t)number] = (qs_found){
        .rank = score / pow(place + 1, run->call->length_penalty),
        .score = score,
        .length = place + (id != QS_EOS),
        .ended = id == QS_EOS,
    };
}

/* Found before: fewer than `beam`; now: `beam` at most. So there is room for 2 * beam. */
static void advance(qs_run *run, int sentence, int place, const continuations *all) {
    qs_hypothesis *hypotheses = run->hypotheses + (size_t)sentence * (size_t)run->beam;
    qs_hypothesis children[QS_MAX_BEAM];
    int count = 0, is_last = place + 1 == run->call->limits[sentence];
    for (int i = 0; i < all->count; i++) {
        continuation one = all->best[i];
        int slot = hypotheses[one.parent].slot;
        if (one.id == QS_EOS || is_last) {
            if (i < run->beam) add_found(run, sentence, slot, place, one.id, one.score);
        } else if (count < run->beam) {
            children[count++] = (qs_hypothesis){one.score, slot, one.id};
        }
    }
    if (count == 0 && run->found_count[sentence] == 0) /* no logit was a number */
        add_found(run, sentence, hypotheses[0].slot, place, QS_EOS, hypotheses[0].score);
    if (run->found_count[sentence] >= run->beam) count = 0;
    qs_branch(run, sentence, children, count, place + 1);
    memcpy(hypotheses, children, (size_t)count * sizeof *children);
    run->going[sentence] = count;
}

/* --- a step of all sentences ------------------------------------------------------------------ */

/* How many rows of sentences `first`… share a product; `last` is the sentence after them. Their logits
 * have room: they are QS_FULL_ROWS at most, or those of one beam. */
static int share_product(const qs_run *run, int first, int *last) {
    int rows = run->going[first];
    for (*last = first + 1; *last < run->call->rows && !run->shortlists; ++*last) {
        if (rows + run->going[*last] > QS_FULL_ROWS) break;
        rows += run->going[*last];
    }
    return rows;
}

static void choose(qs_run *run, int sentence, int place, float *logits, int outputs) {
    continuations all = {.count = 0, .most = 2 * run->beam};
    for (int rank = 0; rank < run->going[sentence]; rank++, logits += outputs) {
        int slot = run->hypotheses[(size_t)sentence * (size_t)run->beam + (size_t)rank].slot;
        qs_restrict(run, sentence, qs_prefix_of(run, slot), place, logits);
        consider(run, sentence, rank, logits, outputs, &all);
    }
    advance(run, sentence, place, &all);
}

static void choose_all(qs_run *run, int place) {
    size_t row = 0;
    for (int first = 0, last; first < run->call->rows; first = last) {
        int rows = share_product(run, first, &last);
        if (rows == 0) continue;
        const qs_linear *output = qs_output_of(run, first);
        qs_apply(run->model->kernel, output, run->bytes + row * run->byte_stride,
                 run->byte_stride, run->row_steps + row, rows, run->model->kernel->floats->store,
                 run->logits, (size_t)output->outputs, run->sums);
        float *logits = run->logits;
        for (int sentence = first; sentence < last; sentence++) {
            int own = run->going[sentence];
            if (own) choose(run, sentence, place, logits, output->outputs);
            logits += (size_t)own * (size_t)output->outputs;
        }
        row += (size_t)rows;
    }
}

/* Rows of the hypotheses that go on, those of a sentence side by side; gives how many. */
static int lay_rows(qs_run *run) {
    int rows = 0;
    for (int sentence = 0; sentence < run->call->rows; sentence++) {
        const qs_hypothesis *own = run->hypotheses + (size_t)sentence * (size_t)run->beam;
        for (int rank = 0; rank < run->going[sentence]; rank++, rows++) {
            run->active[rows] = own[rank].slot;
            run->last[rows] = own[rank].last;
        }
    }
    return rows;
}

/* --- all steps -------------------------------------------------------------------------------- */

static void begin(qs_run *run) {
    for (int sentence = 0; sentence < run->call->rows; sentence++) {
        int slot = sentence * run->beam;
        run->hypotheses[slot] = (qs_hypothesis){0.0f, slot, QS_BOS};
        run->going[sentence] = 1;
        run->found_count[sentence] = 0;
    }
}

/* The best translation that is not written, of equal ones the first; NULL without one. */
static qs_found *best_left(qs_run *run, int sentence) {
    qs_found *found = run->found + (size_t)sentence * 2 * (size_t)run->beam, *best = NULL;
    for (int i = 0; i < run->found_count[sentence]; i++)
        if (!found[i].written && (best == NULL || found[i].rank > best->rank)) best = found + i;
    return best;
}

static void write_best(qs_run *run, int sentence) {
    const qs_call *call = run->call;
    size_t limit = (size_t)call->limits[sentence], n_best = (size_t)call->n_best;
    size_t beam = (size_t)run->beam, at = run->written_at[sentence];
    const qs_found *found = run->found + (size_t)sentence * 2 * beam;
    for (size_t n = 0; n < n_best; n++) {
        size_t out = (size_t)sentence * n_best + n;
        qs_found *best = best_left(run, sentence);
        call->target_lengths[out] = best == NULL ? -1 : best->length;
        call->ended[out] = best != NULL && best->ended;
        if (call->scored) call->scores[out] = best == NULL ? 0.0f : best->score;
        if (best == NULL) continue;
        const int32_t *ids = run->found_ids + at * 2 * beam + (size_t)(best - found) * limit;
        memcpy(call->targets + at * n_best + n * limit, ids, (size_t)best->length * sizeof *ids);
        best->written = 1;
    }
}

void qs_search(qs_run *run) {
    begin(run);
    int rows = lay_rows(run);
    for (int place = 0; rows > 0; place++) {
        qs_step(run, rows, place);
        choose_all(run, place);
        rows = lay_rows(run);
    }
    for (int sentence = 0; sentence < run->call->rows; sentence++) write_best(run, sentence);
}
