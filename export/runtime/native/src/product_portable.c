/* The integer product in plain C: what every other kernel must equal. */
#include "kernel.h"

void qs_product_portable(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights, int groups, const qs_order *order, const int32_t *start, int blocks, int32_t *sums) {
    (void)order; /* AVX2's alone */
    size_t columns = (size_t)blocks * QS_BLOCK;
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * QS_BLOCK * QS_GROUP;
        for (int row = 0; row < rows; row++) {
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            for (int n = 0; n < QS_BLOCK; n++) out[n] = start[block * QS_BLOCK + n];
            for (int g = 0; g < groups; g++)
                for (int n = 0; n < QS_BLOCK; n++) {
                    const int8_t *w = packed + ((size_t)g * QS_BLOCK + (size_t)n) * QS_GROUP;
                    for (int k = 0; k < QS_GROUP; k++) out[n] += a[g * QS_GROUP + k] * w[k];
                }
        }
    }
}
