/* The engine on a processor that Python does not run on here: `native_arm MODEL KERNEL ROWS`.
 *
 * First the kernel's products must equal the portable one's; then it translates ROWS sentences, whose
 * ids follow from their numbers as in test_native_arm.py, greedily and with a beam, and prints ids and
 * score, a line each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "read_all.h"

enum { LONGEST = 9, LIMIT = 14, ROWS = 64, BEAM = 3, OUTPUTS = 48, INPUTS = 1032 };

static uint32_t state = 2463534242u;

static int draw(int below) { /* xorshift32 */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (int)(state % (uint32_t)below);
}

static int products_are_equal(const char *kernel) {
    static uint8_t bytes[ROWS * INPUTS];
    static int8_t weights[OUTPUTS * INPUTS];
    static int32_t mine[ROWS * OUTPUTS], right[ROWS * OUTPUTS];
    for (int largest = 2; largest <= 64; largest += 31)
        for (int inputs = 8; inputs <= INPUTS; inputs += 256)
            for (int rows = 1; rows <= ROWS; rows += 1 + rows / 8) {
                for (int i = 0; i < rows * inputs; i++) bytes[i] = (uint8_t)(draw(3) ? draw(256) : 255);
                for (int i = 0; i < OUTPUTS * inputs; i++)
                    weights[i] = (int8_t)(draw(2 * largest + 1) - largest);
                if (qs_try_product(kernel, bytes, rows, weights, OUTPUTS, inputs, mine) ||
                    qs_try_product("portable", bytes, rows, weights, OUTPUTS, inputs, right))
                    return 0;
                for (int i = 0; i < rows * OUTPUTS; i++)
                    if (mine[i] != right[i]) return 0;
            }
    return 1;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    if (!products_are_equal(arguments[2])) return 3;
    size_t size;
    uint8_t *data = read_all(arguments[1], &size);
    char error[200] = "";
    qs_model *model = qs_model_load(data, size, arguments[2], error, sizeof error);
    free(data);
    if (model == NULL) {
        fprintf(stderr, "%s\n", error);
        return 4;
    }
    int rows = atoi(arguments[3]), at = 0;
    static int32_t targets[ROWS * BEAM * LIMIT], target_lengths[ROWS * BEAM], ended[ROWS * BEAM];
    static float scores[ROWS * BEAM];
    int32_t sources[ROWS * LONGEST], lengths[ROWS], limits[ROWS];
    if (rows < 1 || rows > ROWS) return 2;
    for (int row = 0; row < rows; row++) {
        int length = 1 + row % (LONGEST - 1);
        for (int i = 0; i < length; i++) sources[at++] = 4 + (7 * row + 3 * i) % 20;
        sources[at++] = 3; /* </s> */
        lengths[row] = length + 1;
        limits[row] = LIMIT;
    }
    qs_call call = {
        .rows = rows, .sources = sources, .lengths = lengths, .limits = limits,
        .scored = 1, .repetition_penalty = 1.0f, .length_penalty = 1.0f,
        .targets = targets, .target_lengths = target_lengths, .ended = ended, .scores = scores,
    };
    qs_scratch *scratch = qs_scratch_new();
    for (int beam = 1; beam <= BEAM; beam += BEAM - 1) {
        call.beam_size = call.n_best = beam;
        if (qs_translate(model, scratch, &call) != QS_OK) return 5;
        for (int row = 0; row < rows * beam; row++) {
            for (int i = 0; i < target_lengths[row]; i++) printf("%d ", targets[row * LIMIT + i]);
            printf("%a\n", (double)scores[row]);
        }
    }
    qs_scratch_free(scratch);
    qs_model_free(model);
    return 0;
}
