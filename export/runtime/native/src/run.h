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

typedef struct {
    const qs_model *model;
    const qs_call *call;
    int most_rows;   /* rows of the encoder's largest chunk, or sentences */
    int most_length; /* of a source or a translation */
    size_t padded_tokens; /* of all sources, each filled up to a multiple of 8 */
    size_t padded_steps; /* of all translations' steps, likewise */
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
    size_t *written_at; /* where its translation begins in call->targets */
    int32_t *active;
    int32_t *last;
    float *best;      /* [rows] the largest logit so far */
    int32_t *best_id; /* its id */

    /* by decoder layer, then by sentence */
    float *cross_keys;
    float *cross_values;
    float *self_keys;
    float *self_values;
    float *states; /* of recurrent layers [sentence][width] */

    float *logits; /* a panel, or all of QS_FULL_ROWS rows where that is needed */
    int32_t *history; /* ids that a sentence has, once each */
    qs_shortlist *shortlists;
} qs_run;

/* Whether a call needs no more of the logits than the largest. */
static inline int qs_is_plain(const qs_call *call) {
    return !call->scored && call->repetition_penalty == 1.0f && call->no_repeat_ngram == 0 &&
           call->top_k == 0;
}

/* Most steps of a sentence: with distributions one more, for the </s> behind a full translation. */
static inline int qs_steps(const qs_call *call, int sentence) {
    return call->limits[sentence] + (call->top_k > 0);
}

/* What token stands at a place among a sentence's outputs. */
static inline int32_t qs_token_at(const qs_run *run, int sentence, int place) {
    return run->shortlists ? run->shortlists[sentence].ids[place] : place;
}

/* Lay the memory of a call out. QS_OK, QS_BAD_CALL or QS_NO_MEMORY. */
int qs_prepare(qs_run *run, const qs_model *model, qs_scratch *scratch, const qs_call *call);

/* Positions of a row of keys: where value `d` of position `place` of head `head` lies. */
void qs_write_key(float *keys, const float *key, int place, int padded, int heads, int head_width);

/* Quantise rows of `x`, normed first in a pre-norm model; the bytes are ready for a product. */
void qs_to_bytes(qs_run *run, const float *x, int rows);
void qs_ready(qs_run *run, const qs_norm *norm, int rows);
/* Norm rows of the states after a block in a post-norm model. */
void qs_settle(qs_run *run, const qs_norm *norm, int rows);

/* y = linear(bytes): into `out`, or added to the states. */
void qs_into(qs_run *run, const qs_linear *linear, int rows, float *out, size_t stride);
void qs_onto_states(qs_run *run, const qs_linear *linear, int rows);

void qs_embed(qs_run *run, const qs_table *table, int32_t id, int position, int row);
void qs_feed(qs_run *run, const qs_feed_forward *ffn, int rows);
void qs_attend(qs_run *run, const float *query, size_t stride, int rows, const float *keys,
               int padded, const float *values, size_t value_stride, int length, float *mix);

/* Fill cross_keys and cross_values of all sentences. */
void qs_encode(qs_run *run);
/* One decoder step of the active rows, up to the bytes that the output layer takes. */
void qs_step(qs_run *run, int rows, int place);
/* The likeliest tokens of the active rows into best_id; adds to the scores. */
void qs_choose(qs_run *run, int rows, int place);
/* The distribution of a sentence's position from its logits [count]. */
void qs_keep_top(qs_run *run, int sentence, int place, const float *logits, int count);
/* Pack the output layers of all sentences' candidates. */
void qs_gather(qs_run *run);

#endif
