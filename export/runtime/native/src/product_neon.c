/* The integer product on arm64 with the dot product instructions of ARMv8.2.
 *
 * Bytes are unsigned and weights signed, which `sdot` does not mix: it gets byte - 128, and the sum
 * of the weights times 128 is added at the end. |byte - 128| <= 128, so the bounds of kernel.h hold.
 */
#include "kernel.h"

#ifdef QS_ARM
#include <arm_neon.h>

#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))

TARGET void qs_product_neon(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights, int groups, const uint16_t *order, const int32_t *start, int blocks, int32_t *sums) {
    (void)order; /* AVX2's alone */
    size_t columns = (size_t)blocks * QS_BLOCK;
    const int8x16_t one = vdupq_n_s8(1);
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        for (int row = 0; row < rows; row++) {
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            int32x4_t sum[4], whole[4];
            for (int v = 0; v < 4; v++) {
                sum[v] = vld1q_s32(start + block * QS_BLOCK + 4 * v);
                whole[v] = vdupq_n_s32(0);
            }
            for (int g = 0; g < groups; g++) {
                uint8x16_t four = vreinterpretq_u8_u32(vld1q_dup_u32((const uint32_t *)(const void *)(a + 4 * g)));
                int8x16_t shifted = vreinterpretq_s8_u8(veorq_u8(four, vdupq_n_u8(128)));
                for (int v = 0; v < 4; v++) {
                    int8x16_t w = vld1q_s8(packed + (size_t)g * 64 + 16 * v);
                    sum[v] = vdotq_s32(sum[v], shifted, w);
                    whole[v] = vdotq_s32(whole[v], one, w);
                }
            }
            for (int v = 0; v < 4; v++)
                vst1q_s32(out + 4 * v, vaddq_s32(sum[v], vshlq_n_s32(whole[v], 7)));
        }
    }
}
#endif
