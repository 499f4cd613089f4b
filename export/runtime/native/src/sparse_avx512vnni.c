/* The sparse product on AVX-512 with VNNI: four inputs that are not 0 at a time, summed in 32 bits.
 *
 * The four weights of an output are brought together within 128 bits by two rounds of interleaving;
 * `column_at` says in which order outputs lie so that the sums come out in theirs.
 */
#include "sparse.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,popcnt")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum { UNIT = 64, TOGETHER = 256 };

/* Register k of the sums holds four neighbouring outputs of each 128 bits. */
static int column_at(int place) {
    int lane = place / 16, k = place / 4 % 4, j = place % 4;
    return 16 * k + 4 * lane + j;
}

/* --- gathering --------------------------------------------------------------------------------- */

/* The inputs whose bytes are not 0, and those bytes. */
TARGET static int find(const uint8_t *bytes, int inputs, qs_gathered *found) {
    const __m512i counting =
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int count = 0;
    for (int input = 0; input < inputs; input += 16) {
        __mmask16 there = (__mmask16)(inputs - input < 16 ? 255 : 65535);
        __m128i some = _mm_maskz_loadu_epi8(there, bytes + input);
        __mmask16 mask = _mm_test_epi8_mask(some, some);
        __m512i places = _mm512_add_epi32(counting, _mm512_set1_epi32(input));
        __m512i kept = _mm512_maskz_compress_epi32(mask, places);
        __m512i values = _mm512_maskz_compress_epi32(mask, _mm512_cvtepu8_epi32(some));
        _mm256_storeu_si256((__m256i *)(found->inputs + count), _mm512_cvtepi32_epi16(kept));
        _mm_storeu_si128((__m128i *)(found->bytes + count), _mm512_cvtepi32_epi8(values));
        count += __builtin_popcount(mask);
    }
    return count;
}

TARGET static int gather(const uint8_t *bytes, const uint8_t *largest, int inputs,
                         qs_gathered *found, qs_term *terms) {
    (void)largest; /* 32 bits hold all sums */
    int count = find(bytes, inputs, found), made = 0;
    memset(found->inputs + count, 0, 4 * sizeof *found->inputs);
    memset(found->bytes + count, 0, 4);
    for (int at = 0; at < count; at += 4, made++) {
        memcpy(terms[made].inputs, found->inputs + at, sizeof terms->inputs);
        memcpy(terms[made].bytes, found->bytes + at, sizeof terms->bytes);
    }
    return made;
}

/* --- the product ------------------------------------------------------------------------------- */

INLINE __m512i load(const int8_t *p) { return _mm512_loadu_si512(p); }

/* Columns of `units` times 64; `units` is a constant where this is called. */
INLINE void columns_of(int units, const qs_term *terms, int count, const int8_t *weights,
                       int32_t *sums) {
    const size_t width = UNIT * (size_t)units;
    __m512i found[4 * TOGETHER / UNIT];
#pragma GCC unroll 16
    for (int k = 0; k < 4 * units; k++) found[k] = _mm512_setzero_si512();
    for (; count > 0; count--, terms++) {
        const int8_t *w0 = weights + terms->inputs[0] * width;
        const int8_t *w1 = weights + terms->inputs[1] * width;
        const int8_t *w2 = weights + terms->inputs[2] * width;
        const int8_t *w3 = weights + terms->inputs[3] * width;
        for (int i = 0; i < 4; i++) { /* hardware does not foresee them */
            const int8_t *ahead = weights + terms[QS_AHEAD].inputs[i] * width;
#pragma GCC unroll 4
            for (int u = 0; u < units; u++)
                _mm_prefetch((const char *)(ahead + UNIT * u), _MM_HINT_T0);
        }
        int32_t four;
        memcpy(&four, terms->bytes, sizeof four);
        __m512i bytes = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int u = 0; u < units; u++) {
            __m512i a = load(w0 + UNIT * u), b = load(w1 + UNIT * u);
            __m512i c = load(w2 + UNIT * u), d = load(w3 + UNIT * u);
            __m512i low = _mm512_unpacklo_epi8(a, b), high = _mm512_unpackhi_epi8(a, b);
            __m512i low2 = _mm512_unpacklo_epi8(c, d), high2 = _mm512_unpackhi_epi8(c, d);
            __m512i *sum = found + 4 * u;
            sum[0] = _mm512_dpbusd_epi32(sum[0], bytes, _mm512_unpacklo_epi16(low, low2));
            sum[1] = _mm512_dpbusd_epi32(sum[1], bytes, _mm512_unpackhi_epi16(low, low2));
            sum[2] = _mm512_dpbusd_epi32(sum[2], bytes, _mm512_unpacklo_epi16(high, high2));
            sum[3] = _mm512_dpbusd_epi32(sum[3], bytes, _mm512_unpackhi_epi16(high, high2));
        }
    }
#pragma GCC unroll 16
    for (int k = 0; k < 4 * units; k++) _mm512_storeu_si512(sums + 16 * k, found[k]);
}

TARGET static void multiply(const qs_term *terms, int count, const int8_t *weights, int inputs,
                            int columns, int32_t *sums) {
    int column = 0;
    for (; column + TOGETHER <= columns; column += TOGETHER, weights += (size_t)inputs * TOGETHER)
        columns_of(TOGETHER / UNIT, terms, count, weights, sums + column);
    for (; column < columns; column += UNIT, weights += (size_t)inputs * UNIT)
        columns_of(1, terms, count, weights, sums + column);
}

const qs_sparse qs_sparse_avx512vnni = {UNIT, TOGETHER, column_at, gather, multiply};
#endif
