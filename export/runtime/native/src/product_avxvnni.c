/* The integer product on AVX-VNNI: four products are summed in 32 bits at once.
 *
 * A tile is up to LARGEST rows times one block; one or two rows sum even and odd groups apart, so
 * that an addition need not wait for the one before it.
 */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,avxvnni")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum {
    LARGEST = 6,
    AHEAD = 1024 /* bytes of weights that are fetched ahead: hardware stops at each page of 4 KB */
};

INLINE __m256i broadcast(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

/* `rows` is a constant where this is called. */
INLINE void tile(int rows, const uint8_t *bytes, size_t stride, const int8_t *weights, int groups,
                 const int32_t *start, int32_t *sums, size_t columns) {
    const int apart = rows <= 2 ? 2 : 1;
    __m256i low[2][LARGEST], high[2][LARGEST];
    for (int r = 0; r < rows; r++) {
        low[0][r] = _mm256_loadu_si256((const __m256i *)start);
        high[0][r] = _mm256_loadu_si256((const __m256i *)(start + 8));
        low[1][r] = high[1][r] = _mm256_setzero_si256();
    }
    int g = 0;
    for (; g + apart <= groups; g += apart)
#pragma GCC unroll 2
        for (int s = 0; s < apart; s++) {
            const int8_t *group = weights + (size_t)(g + s) * 64;
            _mm_prefetch((const char *)(group + AHEAD), _MM_HINT_T0);
            __m256i w0 = _mm256_loadu_si256((const __m256i *)group);
            __m256i w1 = _mm256_loadu_si256((const __m256i *)(group + 32));
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m256i a = broadcast(bytes + (size_t)r * stride + (size_t)(g + s) * 4);
                low[s][r] = _mm256_dpbusd_avx_epi32(low[s][r], a, w0);
                high[s][r] = _mm256_dpbusd_avx_epi32(high[s][r], a, w1);
            }
        }
    for (; g < groups; g++) {
        const int8_t *group = weights + (size_t)g * 64;
        __m256i w0 = _mm256_loadu_si256((const __m256i *)group);
        __m256i w1 = _mm256_loadu_si256((const __m256i *)(group + 32));
        for (int r = 0; r < rows; r++) {
            __m256i a = broadcast(bytes + (size_t)r * stride + (size_t)g * 4);
            low[0][r] = _mm256_dpbusd_avx_epi32(low[0][r], a, w0);
            high[0][r] = _mm256_dpbusd_avx_epi32(high[0][r], a, w1);
        }
    }
    for (int r = 0; r < rows; r++) {
        int32_t *out = sums + (size_t)r * columns;
        _mm256_storeu_si256((__m256i *)out, _mm256_add_epi32(low[0][r], low[1][r]));
        _mm256_storeu_si256((__m256i *)(out + 8), _mm256_add_epi32(high[0][r], high[1][r]));
    }
}

TARGET void qs_product_avxvnni(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights, int groups, const qs_order *order, const int32_t *start, int blocks, int32_t *sums) {
    (void)order; /* AVX2's alone */
    size_t columns = (size_t)blocks * QS_BLOCK;
    int tiles = (rows + LARGEST - 1) / LARGEST;
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        const int32_t *from = start + block * QS_BLOCK;
        int row = 0;
        for (int t = 0; t < tiles; t++) {
            int count = (rows - row + tiles - t - 1) / (tiles - t); /* tiles of like heights */
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            switch (count) {
            case 1: tile(1, a, stride, packed, groups, from, out, columns); break;
            case 2: tile(2, a, stride, packed, groups, from, out, columns); break;
            case 3: tile(3, a, stride, packed, groups, from, out, columns); break;
            case 4: tile(4, a, stride, packed, groups, from, out, columns); break;
            case 5: tile(5, a, stride, packed, groups, from, out, columns); break;
            default: tile(6, a, stride, packed, groups, from, out, columns); break;
            }
            row += count;
        }
    }
}
#endif
