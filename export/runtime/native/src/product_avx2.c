/* The integer product on AVX2: products of two neighbours are summed in 16 bits, then in 32.
 *
 * Groups that lie in fours or pairs (order.c) are summed in 16 bits together before they go on, since
 * the step to 32 bits costs as much as a product. In 16 bits: at most 255 * 128 = 32,640 either way,
 * as kernel.h and order.c say, so nothing saturates; what wraps wraps back.
 */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum {
    LARGEST = 4,
    AHEAD = 1024 /* bytes of weights that are fetched ahead: hardware stops at pages of 4 KB */
};

INLINE __m256i broadcast(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE __m256i load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE __m256i widen(__m256i sum, __m256i pairs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Sums of a four, of eight outputs. */
INLINE __m256i four(__m256i centre, const __m256i *a, const int8_t *weights) {
    centre = _mm256_add_epi16(centre, _mm256_maddubs_epi16(a[0], load(weights)));
    centre = _mm256_add_epi16(centre, _mm256_maddubs_epi16(a[1], load(weights + 64)));
    centre = _mm256_add_epi16(centre, _mm256_maddubs_epi16(a[2], load(weights + 128)));
    return _mm256_add_epi16(centre, _mm256_maddubs_epi16(a[3], load(weights + 192)));
}

/* `rows` is a constant where this is called. */
INLINE void tile(int rows, const uint8_t *bytes, size_t stride, const int8_t *weights, int groups,
                 const uint16_t *places, const int16_t *centres, const int32_t *start,
                 int32_t *out, size_t columns) {
    __m256i low[LARGEST], high[LARGEST];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        low[r] = _mm256_loadu_si256((const __m256i *)start);
        high[r] = _mm256_loadu_si256((const __m256i *)(start + 8));
    }
    int fours = places == NULL ? 0 : 4 * places[0], g = 0;
    int paired = places == NULL ? 0 : fours + 2 * places[1];
    if (places != NULL) places += 2;
    for (; g < fours; g += 4, weights += 256, centres += 2 * QS_BLOCK) {
        const uint8_t *from[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            from[i] = bytes + 4 * (size_t)places[g + i];
            _mm_prefetch((const char *)(weights + AHEAD + 64 * i), _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i a[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) a[i] = broadcast(from[i] + (size_t)r * stride);
            low[r] = widen(low[r], four(_mm256_loadu_si256((const __m256i *)centres), a, weights));
            high[r] = widen(high[r], four(_mm256_loadu_si256((const __m256i *)(centres + 16)), a,
                                          weights + 32));
        }
    }
    for (; g < paired; g += 2, weights += 128) {
        const uint8_t *one = bytes + 4 * (size_t)places[g];
        const uint8_t *two = bytes + 4 * (size_t)places[g + 1];
        _mm_prefetch((const char *)(weights + AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)(weights + AHEAD + 64), _MM_HINT_T0);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i a = broadcast(one + (size_t)r * stride);
            __m256i b = broadcast(two + (size_t)r * stride);
            low[r] = widen(low[r], _mm256_add_epi16(_mm256_maddubs_epi16(a, load(weights)),
                                                    _mm256_maddubs_epi16(b, load(weights + 64))));
            high[r] = widen(high[r],
                            _mm256_add_epi16(_mm256_maddubs_epi16(a, load(weights + 32)),
                                             _mm256_maddubs_epi16(b, load(weights + 96))));
        }
    }
    for (; g < groups; g++, weights += 64) {
        const uint8_t *one = bytes + 4 * (size_t)(places == NULL ? g : places[g]);
        _mm_prefetch((const char *)(weights + AHEAD), _MM_HINT_T0);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i a = broadcast(one + (size_t)r * stride);
            low[r] = widen(low[r], _mm256_maddubs_epi16(a, load(weights)));
            high[r] = widen(high[r], _mm256_maddubs_epi16(a, load(weights + 32)));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        _mm256_storeu_si256((__m256i *)(out + (size_t)r * columns), low[r]);
        _mm256_storeu_si256((__m256i *)(out + (size_t)r * columns + 8), high[r]);
    }
}

TARGET void qs_product_avx2(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights,
                            int groups, const qs_order *order, const int32_t *start, int blocks,
                            int32_t *sums) {
    size_t columns = (size_t)blocks * QS_BLOCK;
    int tiles = (rows + LARGEST - 1) / LARGEST;
    for (int block = 0; block < blocks; block++) {
        const int8_t *packed = weights + (size_t)block * (size_t)groups * 64;
        const uint16_t *places = NULL;
        const int16_t *centres = NULL;
        const int32_t *from = start + block * QS_BLOCK;
        if (order != NULL) {
            places = order->places + block * QS_ORDER(groups);
            centres = order->centres + block * QS_CENTRES(groups);
            from = order->start + block * QS_BLOCK;
        }
        int row = 0;
        for (int t = 0; t < tiles; t++) {
            int count = (rows - row + tiles - t - 1) / (tiles - t); /* tiles of like heights */
            const uint8_t *a = bytes + (size_t)row * stride;
            int32_t *out = sums + (size_t)row * columns + (size_t)block * QS_BLOCK;
            switch (count) {
            case 1: tile(1, a, stride, packed, groups, places, centres, from, out, columns); break;
            case 2: tile(2, a, stride, packed, groups, places, centres, from, out, columns); break;
            case 3: tile(3, a, stride, packed, groups, places, centres, from, out, columns); break;
            default: tile(4, a, stride, packed, groups, places, centres, from, out, columns); break;
            }
            row += count;
        }
    }
}
#endif
