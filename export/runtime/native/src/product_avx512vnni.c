/* The integer product on AVX-512 with VNNI: a block of 16 outputs in each register, four products
 * summed in 32 bits at once.
 *
 * A tile is up to 12 rows times one block. Few rows have several sums over different groups, so
 * that an addition need not wait for the one before it.
 */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum {
    LARGEST = 12,
    AHEAD = 2048 /* bytes of weights that are fetched ahead: hardware stops at pages of 4 KB */
};

INLINE __m512i broadcast(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* `rows` and `apart` are constants where this is called. */
INLINE void add_groups(int rows, int apart, const uint8_t *bytes, size_t stride,
                       const int8_t *weights, int g, __m512i sums[4][LARGEST]) {
#pragma GCC unroll 4
    for (int s = 0; s < apart; s++) {
        const int8_t *group = weights + (size_t)(g + s) * 64;
        _mm_prefetch((const char *)(group + AHEAD), _MM_HINT_T0);
        __m512i w = _mm512_loadu_si512(group);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512i a = broadcast(bytes + (size_t)r * stride + (size_t)(g + s) * 4);
            sums[s][r] = _mm512_dpbusd_epi32(sums[s][r], a, w);
        }
    }
}

INLINE void tile(int rows, const uint8_t *bytes, size_t stride, const int8_t *weights, int groups,
                 const int32_t *start, int32_t *out, size_t columns) {
    const int apart = rows <= 2 ? 4 : rows <= 5 ? 2 : 1;
    __m512i sums[4][LARGEST];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        sums[0][r] = _mm512_loadu_si512(start);
        for (int s = 1; s < apart; s++) sums[s][r] = _mm512_setzero_si512();
    }
    int g = 0;
    for (; g + apart <= groups; g += apart)
        add_groups(rows, apart, bytes, stride, weights, g, sums);
    for (; g < groups; g++) add_groups(rows, 1, bytes, stride, weights, g, sums);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        __m512i sum = sums[0][r];
        for (int s = 1; s < apart; s++) sum = _mm512_add_epi32(sum, sums[s][r]);
        _mm512_storeu_si512(out + (size_t)r * columns, sum);
    }
}

#define CASE(n)                                                                                    \
    case n: tile(n, bytes, stride, weights, groups, start, out, columns); break

INLINE void tile_of(int rows, const uint8_t *bytes, size_t stride, const int8_t *weights,
                    int groups, const int32_t *start, int32_t *out, size_t columns) {
    switch (rows) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
    default: tile(12, bytes, stride, weights, groups, start, out, columns); break;
    }
}

TARGET void qs_product_avx512vnni(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights, int groups, const qs_order *order, const int32_t *start, int blocks, int32_t *sums) {
    (void)order; /* AVX2's alone */
    size_t columns = (size_t)blocks * QS_BLOCK;
    int tiles = (rows + LARGEST - 1) / LARGEST;
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        int row = 0;
        for (int t = 0; t < tiles; t++) {
            int count = (rows - row + tiles - t - 1) / (tiles - t); /* tiles of like heights */
            tile_of(count, bytes + (size_t)row * stride, stride, packed, groups,
                    start + block * QS_BLOCK,
                    sums + (size_t)row * columns + (size_t)block * QS_BLOCK, columns);
            row += count;
        }
    }
}
#endif
