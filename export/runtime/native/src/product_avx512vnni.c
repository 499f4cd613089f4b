/* The integer product on AVX-512 with VNNI: a block of 16 outputs in each register.
 *
 * A tile is up to 12 rows times two blocks: 24 sums of the 32 registers. One or two rows have
 * several sums over different groups, so that an addition need not wait for the one before it.
 */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum { LARGEST = 12 };

INLINE __m512i broadcast(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* `rows`, `blocks` (1 or 2) and `apart` are constants where this is called. */
INLINE void add_groups(int rows, int blocks, int apart, const uint8_t *bytes, size_t stride,
                       const int8_t *weights, size_t block_bytes, int g,
                       __m512i sums[4][2][LARGEST]) {
#pragma GCC unroll 4
    for (int s = 0; s < apart; s++) {
        const int8_t *group = weights + (size_t)(g + s) * 64;
        __m512i w0 = _mm512_loadu_si512(group);
        __m512i w1 = blocks == 2 ? _mm512_loadu_si512(group + block_bytes) : w0;
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512i a = broadcast(bytes + (size_t)r * stride + (size_t)(g + s) * 4);
            sums[s][0][r] = _mm512_dpbusd_epi32(sums[s][0][r], a, w0);
            if (blocks == 2) sums[s][1][r] = _mm512_dpbusd_epi32(sums[s][1][r], a, w1);
        }
    }
}

INLINE void tile(int rows, int blocks, const uint8_t *bytes, size_t stride, const int8_t *weights,
                 int groups, const int32_t *start, int32_t *out, size_t columns) {
    const int apart = rows == 1 ? 4 : rows == 2 ? 2 : 1;
    const size_t block_bytes = (size_t)groups * 64;
    __m512i sums[4][2][LARGEST];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) {
            sums[0][b][r] = _mm512_loadu_si512(start + b * QS_BLOCK);
            for (int s = 1; s < apart; s++) sums[s][b][r] = _mm512_setzero_si512();
        }
    int g = 0;
    for (; g + apart <= groups; g += apart)
        add_groups(rows, blocks, apart, bytes, stride, weights, block_bytes, g, sums);
    for (; g < groups; g++)
        add_groups(rows, blocks, 1, bytes, stride, weights, block_bytes, g, sums);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int b = 0; b < blocks; b++) {
            __m512i sum = sums[0][b][r];
            for (int s = 1; s < apart; s++) sum = _mm512_add_epi32(sum, sums[s][b][r]);
            _mm512_storeu_si512(out + (size_t)r * columns + b * QS_BLOCK, sum);
        }
}

#define CASE(n)                                                                                    \
    case n: tile(n, blocks, bytes, stride, weights, groups, start, out, columns); break

INLINE void rows_of(int blocks, int rows, const uint8_t *bytes, size_t stride,
                    const int8_t *weights, int groups, const int32_t *start, int32_t *out,
                    size_t columns) {
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
    default: tile(12, blocks, bytes, stride, weights, groups, start, out, columns); break;
    }
}

TARGET void qs_product_avx512vnni(const uint8_t *bytes, size_t stride, int rows,
                                  const int8_t *weights, int groups, const int32_t *start,
                                  int blocks, int32_t *sums) {
    size_t columns = (size_t)blocks * QS_BLOCK;
    int tiles = (rows + LARGEST - 1) / LARGEST;
    for (int block = 0; block < blocks; block += 2) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        const int32_t *from = start + block * QS_BLOCK;
        int row = 0;
        for (int t = 0; t < tiles; t++) {
            int count = (rows - row + tiles - t - 1) / (tiles - t); /* tiles of like heights */
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            if (block + 1 < blocks)
                rows_of(2, count, a, stride, packed, groups, from, out, columns);
            else
                rows_of(1, count, a, stride, packed, groups, from, out, columns);
            row += count;
        }
    }
}
#endif
