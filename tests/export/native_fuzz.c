/* Damaged models and impossible calls, under sanitizers: `native_fuzz MODEL KERNEL ROUNDS`.
 *
 * Each round changes some bytes of a sound model, most often in its head, or cuts it off or makes it
 * longer; what still loads translates calls that are damaged likewise. Exit code 0 if nothing was
 * read or written out of bounds; prints how many models loaded and how many calls were answered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "read_all.h"

enum { ROWS = 3, LENGTH = 5, LIMIT = 6, HEAD = 72 + 4 * 12, CANDIDATES = 8, LARGEST_K = 4096 };

static uint64_t state = 88172645463325252u;

static uint32_t draw(uint32_t below) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static int32_t odd_number(void) {
    static const int32_t odd[] = {0, 1, -1, 2, 3, 7, 8, 24, 1 << 16, INT32_MAX, INT32_MIN, 4096};
    return draw(3) ? odd[draw(sizeof odd / sizeof odd[0])] : (int32_t)draw(400);
}

static size_t damage(uint8_t *data, size_t bytes) {
    uint32_t changes = draw(4);
    for (uint32_t i = 0; i < changes; i++) {
        if (draw(3) == 0) {
            int32_t number = odd_number();
            memcpy(data + 8 + 4 * draw((HEAD - 8) / 4), &number, sizeof number);
        } else {
            data[HEAD + draw((uint32_t)bytes - HEAD)] = (uint8_t)draw(256);
        }
    }
    return draw(12) == 0 ? draw((uint32_t)bytes + 1) : bytes;
}

static int translate(const qs_model *model, qs_scratch *scratch) {
    /* exactly as large as the call says, so that a byte too far is seen */
    int32_t lengths[ROWS], limits[ROWS], counts[ROWS];
    int32_t *sources = malloc(ROWS * LENGTH * sizeof *sources);
    int32_t *candidates = malloc(ROWS * CANDIDATES * sizeof *candidates);
    for (int i = 0; i < ROWS * LENGTH; i++) sources[i] = (int32_t)draw(30);
    for (int i = 0; i < ROWS * CANDIDATES; i++) candidates[i] = 3 + 2 * (i % CANDIDATES);
    for (int row = 0; row < ROWS; row++) {
        lengths[row] = 1 + (int32_t)draw(LENGTH);
        limits[row] = 1 + (int32_t)draw(LIMIT);
        counts[row] = CANDIDATES;
    }
    if (draw(8) == 0) sources[draw(ROWS)] = odd_number();
    if (draw(8) == 0) candidates[draw(ROWS * CANDIDATES)] = odd_number();
    if (draw(8) == 0) lengths[0] = -(int32_t)draw(9);
    if (draw(8) == 0) limits[0] = -(int32_t)draw(9);
    int32_t beam_size = draw(2) ? 1 : draw(8) ? 1 + (int32_t)draw(QS_MAX_BEAM) : odd_number();
    int32_t n_best = draw(8) && beam_size > 0 ? 1 + (int32_t)draw((uint32_t)beam_size) : odd_number();
    int32_t top_k = draw(8) ? beam_size == 1 ? (int32_t)draw(7) : 0 : odd_number();
    size_t kept = top_k < 0 || top_k > LARGEST_K ? 0 : (size_t)top_k, positions = ROWS;
    size_t best = n_best < 0 || n_best > QS_MAX_BEAM ? 0 : (size_t)n_best;
    for (int row = 0; row < ROWS; row++) positions += limits[row] > 0 ? (size_t)limits[row] : 0;
    int32_t *targets = malloc((positions - ROWS) * best * sizeof *targets + 1);
    int32_t *target_lengths = malloc(ROWS * best * sizeof *target_lengths + 1);
    int32_t *ended = malloc(ROWS * best * sizeof *ended + 1);
    float *scores = malloc(ROWS * best * sizeof *scores + 1);
    int32_t *top_ids = malloc(positions * kept * sizeof *top_ids + 1);
    float *top_logp = malloc(positions * kept * sizeof *top_logp + 1);
    float *tails = malloc(positions * sizeof *tails);
    qs_call call = {
        .rows = draw(12) ? ROWS : -(int32_t)draw(3),
        .sources = sources, .lengths = lengths, .limits = limits,
        .candidates = draw(2) ? candidates : NULL, .candidate_counts = counts,
        .scored = (int32_t)draw(2),
        .repetition_penalty = draw(3) ? 1.0f : 1.5f,
        .no_repeat_ngram = draw(3) ? 0 : (int32_t)draw(4),
        .top_k = top_k, .beam_size = beam_size, .n_best = n_best,
        .length_penalty = draw(8) ? (float)draw(3) : (float)odd_number(),
        .targets = targets, .target_lengths = target_lengths, .ended = ended, .scores = scores,
        .top_ids = draw(20) ? top_ids : NULL, .top_logp = top_logp, .tails = tails,
    };
    int status = qs_translate(model, scratch, &call);
    free(sources);
    free(targets);
    free(target_lengths);
    free(ended);
    free(scores);
    free(candidates);
    free(top_ids);
    free(top_logp);
    free(tails);
    return status == QS_OK;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    size_t bytes;
    uint8_t *sound = read_all(arguments[1], &bytes);
    qs_scratch *scratch = qs_scratch_new();
    int loaded = 0, answered = 0, rounds = atoi(arguments[3]);
    for (int round = 0; round < rounds; round++) {
        uint8_t *data = malloc(bytes);
        memcpy(data, sound, bytes);
        size_t kept = damage(data, bytes);
        uint8_t *exact = malloc(kept ? kept : 1);
        memcpy(exact, data, kept);
        free(data);
        char error[100] = "";
        qs_model *model = qs_model_load(exact, kept, arguments[2], error, sizeof error);
        free(exact);
        if (model == NULL) {
            if (error[0] == 0) return 3; /* refused without a word */
            continue;
        }
        loaded++;
        for (int i = 0; i < 4; i++) answered += translate(model, scratch);
        qs_model_free(model);
    }
    qs_scratch_free(scratch);
    free(sound);
    printf("%d %d\n", loaded, answered);
    return 0;
}
