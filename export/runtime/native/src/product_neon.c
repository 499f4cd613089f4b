/* The integer product on arm64 with the dot product instructions of ARMv8.2.
 *
 * Bytes are unsigned and weights signed, which `sdot` does not mix: it gets byte - 128, and 128
 * times the sum of the weights is added, once a block. |byte - 128| <= 128, so the bounds of
 * kernel.h hold.
 */
#include "kernel.h"

#ifdef QS_ARM
#include <arm_neon.h>
#include <string.h>

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum { LARGEST = 4, VECTORS = QS_BLOCK / 4 };

INLINE int8x16_t broadcast(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vdupq_n_u32(four)), vdupq_n_u8(128)));
}

/* `start` and 128 times the sum of each output's weights. */
INLINE void begin(const int8_t *weights, int groups, const int32_t *start, int32x4_t *from) {
    const int8x16_t one = vdupq_n_s8(1);
    for (int v = 0; v < VECTORS; v++) from[v] = vdupq_n_s32(0);
    for (int g = 0; g < groups; g++)
        for (int v = 0; v < VECTORS; v++)
            from[v] = vdotq_s32(from[v], one, vld1q_s8(weights + (size_t)g * 64 + 16 * v));
    for (int v = 0; v < VECTORS; v++)
        from[v] = vaddq_s32(vld1q_s32(start + 4 * v), vshlq_n_s32(from[v], 7));
}

/* `rows` is a constant where this is called. */
INLINE void tile(int rows, const uint8_t *bytes, size_t stride, const int8_t *weights, int groups,
                 const int32x4_t *from, int32_t *out, size_t columns) {
    int32x4_t sums[LARGEST][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = from[v];
    for (int g = 0; g < groups; g++, weights += 64)
        for (int r = 0; r < rows; r++) {
            int8x16_t four = broadcast(bytes + (size_t)r * stride + QS_GROUP * (size_t)g);
            for (int v = 0; v < VECTORS; v++)
                sums[r][v] = vdotq_s32(sums[r][v], four, vld1q_s8(weights + 16 * v));
        }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            vst1q_s32(out + (size_t)r * columns + 4 * v, sums[r][v]);
}

TARGET void qs_product_neon(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights,
                            int groups, const qs_order *order, const int32_t *start, int blocks,
                            int32_t *sums) {
    (void)order; /* AVX2's alone */
    size_t columns = (size_t)blocks * QS_BLOCK;
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        int32x4_t from[VECTORS];
        begin(packed, groups, start + block * QS_BLOCK, from);
        for (int row = 0; row < rows; row += LARGEST) {
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            switch (rows - row) {
            case 1: tile(1, a, stride, packed, groups, from, out, columns); break;
            case 2: tile(2, a, stride, packed, groups, from, out, columns); break;
            case 3: tile(3, a, stride, packed, groups, from, out, columns); break;
            default: tile(4, a, stride, packed, groups, from, out, columns); break;
            }
        }
    }
}
#endif
