/* The C interface of the engine: what Python calls. Everything else is private.
 *
 * A model is packed once and never changes, so calls from any number of threads share it. A call
 * needs a scratch, which one call at a time may use. Nothing here trusts its input: sizes of a
 * model and of a call are checked before memory is touched.
 */
#ifndef QS_ENGINE_H
#define QS_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QS_EXPORT __attribute__((visibility("default")))
#else
#define QS_EXPORT
#endif

typedef struct qs_model qs_model;
typedef struct qs_scratch qs_scratch;

enum { QS_OK = 0, QS_BAD_CALL = 1, QS_NO_MEMORY = 2 };
enum { QS_MAX_BEAM = 32 };

/* Sentences to translate, and where their translations go. Arrays of sentences are [rows], those of
 * translations [rows][n_best]. */
typedef struct {
    int32_t rows;
    const int32_t *sources;          /* ids of all sentences one after the other, each with </s> */
    const int32_t *lengths;          /* ids of each source, 1 or more */
    const int32_t *limits;           /* most ids of each translation, </s> counted */
    const int32_t *candidates;       /* ascending ids of each sentence's shortlist, or NULL */
    const int32_t *candidate_counts; /* how many, or NULL */
    int32_t scored;                  /* whether scores are wanted */
    float repetition_penalty;        /* 1: none */
    int32_t no_repeat_ngram;         /* 0: none */
    int32_t top_k;                   /* words that are wanted of each position; 0: none */
    int32_t beam_size;               /* 1: greedy decoding; up to QS_MAX_BEAM, then without top_k */
    int32_t n_best;                  /* translations of a sentence, at most `beam_size` */
    float length_penalty;            /* a beam ranks by log-probability / ids ^ this, </s> counted */
    int32_t *targets;                /* out: ids without </s>, `limits` places for each translation */
    int32_t *target_lengths;         /* out; -1 where a beam found fewer than `n_best` */
    int32_t *ended;                  /* out: 1 if </s> came before the limit, else 0 */
    float *scores;                   /* out if scored: sums of log-probabilities, </s> counted */
    /* Out if top_k, for each sentence `limits` + 1 positions, of which it fills `target_lengths`
     * + 1: those of its ids and that of </s>, also where it did not get to write </s>. The
     * distribution is over the sentence's candidates, or all words, as the model has it: before
     * penalties, and </s> may come first. */
    int32_t *top_ids;                /* [position][top_k], likeliest first, of equal ones the lower */
    float *top_logp;                 /* [position][top_k], -INFINITY (and id 0) where there are less */
    float *tails;                    /* [position], the probability of all other words */
} qs_call;

/* Increases whenever what is declared here or the layout of a model's bytes changes. */
QS_EXPORT int32_t qs_version(void);

/* Names of the kernels that this CPU can run, best first, parted by spaces. */
QS_EXPORT const char *qs_kernels(void);

/* A model from the bytes that model.py writes, for a named kernel or (NULL) the best one.
 * NULL on failure, with the reason in `error`. The bytes are not needed afterwards. */
QS_EXPORT qs_model *qs_model_load(const uint8_t *data, size_t bytes, const char *kernel,
                                  char *error, size_t error_bytes);
QS_EXPORT void qs_model_free(qs_model *model);
QS_EXPORT const char *qs_model_kernel(const qs_model *model);

QS_EXPORT qs_scratch *qs_scratch_new(void);
QS_EXPORT void qs_scratch_free(qs_scratch *scratch);

/* Translations of all sentences of a call, greedy or by beam search, the best first. What a sentence becomes does not depend on the
 * others. QS_OK, QS_BAD_CALL where an argument is out of its range, or QS_NO_MEMORY. */
QS_EXPORT int qs_translate(const qs_model *model, qs_scratch *scratch, const qs_call *call);

/* For tests: rows [rows, 4 * groups] of bytes times weights [outputs, 4 * groups] as a kernel
 * computes them, int32 sums [rows, outputs]. 0, or 1 for an argument that it does not take. */
QS_EXPORT int qs_try_product(const char *kernel, const uint8_t *bytes, int32_t rows,
                             const int8_t *weights, int32_t outputs, int32_t inputs,
                             int32_t *sums);
/* Likewise as a kernel computes them that leaves out what is 0; 1 for one that does not. */
QS_EXPORT int qs_try_sparse(const char *kernel, const uint8_t *bytes, int32_t rows,
                            const int8_t *weights, int32_t outputs, int32_t inputs, int32_t *sums);

#endif
