/* What one call works with: its sizes and its scratch memory, laid out once at its start. */
#ifndef QS_RUN_H
#define QS_RUN_H

#include "sparse.h"

enum { QS_FULL_ROWS = 16 }; /* rows whose logits are written out together */

/* A sentence's own output layer, of its candidates, and their ids. */
typedef struct {
    qs_linear output;
    const int32_t *ids;
    int count;
} qs_shortlist;

/* A prefix that beam search goes on with. */
typedef struct {
    float score; /* its log-probability */
    int32_t slot;
    int32_t last; /* its last id */
} qs_hypothesis;

/* A translation that beam search has found. */
typedef struct {
    double rank;
    float score;
    int32_t length; /* without </s> */
    int32_t ended;  /* whether </s> came */
    int32_t written;
} qs_found;

typedef struct {
    const qs_model *model;
    const qs_call *call;
    int most_rows;   /* rows of the encoder's largest chunk, or slots */
    int most_length; /* of a source or a translation */
    size_t padded_tokens; /* of all sources, each filled up to a multiple of 8 */
    size_t padded_steps; /* of all translations' steps, likewise */
    int beam; /* slots of a sentence, where what a hypothesis has is kept */
    size_t wide; /* floats of a row of `wide` */
    size_t narrow; /* floats of a row of `x` and the like */

    /* by row [most_rows] */
    float *x;         /* states [narrow] */
    float *y;         /* normed states [narrow] */
    float *wide_rows; /* queries, keys and values, or hidden values [wide] */
    float *mix;       /* what attention gives [narrow] */
    uint8_t *bytes;   /* quantised rows [largest of width and hidden] */
    size_t byte_stride;
    float *row_steps;

    int32_t *sums;
    qs_gathered gathered; /* for sparse products */
    float *scores;
    float *keys; /* of a sentence in the encoder */

    /* by sentence [call->rows] */
    size_t *source_at; /* where a sentence's keys begin, in positions, each filled up to 8 */
    size_t *target_at;
    size_t *written_at; /* where its translation begins in call->targets, with n_best 1 */
    int32_t *active; /* [slots] of the rows of a step; greedily a slot is a sentence */
    int32_t *last;   /* [slots] */
    float *best;      /* [rows] the largest logit so far */
    int32_t *best_id; /* its id */

    /* by decoder layer, then by sentence or slot */
    float *cross_keys;
    float *cross_values;
    float *self_keys;
    float *self_values;
    float *states; /* of recurrent layers [slot][width] */

    /* of beam search; by sentence, then by hypothesis */
    qs_hypothesis *hypotheses; /* [beam], best first */
    int32_t *going;            /* how many */
    int32_t *prefixes;         /* by slot: ids [limit] */
    qs_found *found;           /* [2 * beam] */
    int32_t *found_count;
    int32_t *found_ids;        /* [2 * beam][limit] */

    float *logits; /* a panel, or all of QS_FULL_ROWS rows, or a beam's, where that is needed */
    int32_t *history; /* ids that a sentence has, once each */
    qs_shortlist *shortlists;
} qs_run;

/* Whether a call needs no more of the logits than the largest. */
static inline int qs_is_plain(const qs_call *call) {
    return !call->scored && call->repetition_penalty == 1.0f && call->no_repeat_ngram == 0 &&
           call->top_k == 0 && call->beam_size == 1;
}

/* Most steps of a sentence: with distributions one more, for the </s> behind a full translation. */
static inline int qs_steps(const qs_call *call, int sentence) {
    return call->limits[sentence] + (call->top_k > 0);
}

static inline int qs_sentence_of(const qs_run *run, int slot) { return slot / run->beam; }

/* Where a slot's keys and values begin, in positions. */
static inline size_t qs_slot_at(const qs_run *run, int slot) {
    int sentence = qs_sentence_of(run, slot), own = slot % run->beam;
    size_t padded = (size_t)qs_padded(qs_steps(run->call, sentence), 8);
    return run->target_at[sentence] * (size_t)run->beam + (size_t)own * padded;
}

/* A slot's prefix, [limit]. */
static inline int32_t *qs_prefix_of(const qs_run *run, int slot) {
    int sentence = qs_sentence_of(run, slot), own = slot % run->beam;
    return run->prefixes + run->written_at[sentence] * (size_t)run->beam +
           (size_t)own * (size_t)run->call->limits[sentence];
}

/* What token stands at a place among a sentence's outputs. */
static inline int32_t qs_token_at(const qs_run *run, int sentence, int place) {
    return run->shortlists ? run->shortlists[sentence].ids[place] : place;
}

/* Lay the memory of a call out. QS_OK, QS_BAD_CALL or QS_NO_MEMORY. */
int qs_prepare(qs_run *run, const qs_model *model, qs_scratch *scratch, const qs_call *call);

/* Positions of a row of keys: where value `d` of position `place` of head `head` lies. */
void qs_write_key(float *keys, const float *key, int place, int padded, int heads, int head_width);

/* Quantise rows of `width` values, each `narrow` from the next; the bytes are ready for a product. */
void qs_to_bytes(qs_run *run, const float *x, int width, int rows);
/* The same of the states, normed first in a pre-norm model. */
void qs_ready(qs_run *run, const qs_norm *norm, int rows);
/* Norm rows of the states after a block in a post-norm model. */
void qs_settle(qs_run *run, const qs_norm *norm, int rows);

/* y = linear(bytes): into `out`, or added to the states. */
void qs_into(qs_run *run, const qs_linear *linear, int rows, float *out, size_t stride);
void qs_onto_states(qs_run *run, const qs_linear *linear, int rows);

void qs_embed(qs_run *run, const qs_table *table, int32_t id, int position, int row);
void qs_feed(qs_run *run, const qs_feed_forward *ffn, int rows);
void qs_attend(qs_run *run, int heads, const float *query, size_t stride, int rows,
               const float *keys, int padded, const float *values, size_t value_stride, int length,
               float *mix);

/* Fill cross_keys and cross_values of all sentences. */
void qs_encode(qs_run *run);
/* One decoder step of the active rows, up to the bytes that the output layer takes. */
void qs_step(qs_run *run, int rows, int place);
/* The likeliest tokens of the active rows into best_id; adds to the scores. */
void qs_choose(qs_run *run, int rows, int place);
/* Decode all sentences, greedily or by beam search. */
void qs_decode_greedily(qs_run *run);
void qs_search(qs_run *run);
/* Slots for the hypotheses that a sentence goes on with, `children` [count, at most the beam], which
 * come with their parents': the first child of a parent keeps it, others get a copy of what it has
 * of the `positions` so far. */
void qs_branch(qs_run *run, int sentence, qs_hypothesis *children, int count, int positions);

/* The sentence's output layer, and where a token stands among its outputs, or -1. */
const qs_linear *qs_output_of(const qs_run *run, int sentence);
int qs_place_of(const qs_run *run, int sentence, int32_t id);
/* Logits of the token after `written`: what repeats counts less or is banned, and so is </s> at the
 * beginning. */
void qs_restrict(qs_run *run, int sentence, const int32_t *written, int length, float *logits);
/* The distribution of a sentence's position from its logits [count]. */
void qs_keep_top(qs_run *run, int sentence, int place, const float *logits, int count);
/* Pack the output layers of all sentences' candidates. */
void qs_gather(qs_run *run);

#endif
