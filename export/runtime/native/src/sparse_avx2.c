/* The sparse product on AVX2: what is not 0 of a row is gathered, four inputs at a time.
 *
 * Four products are summed in 16 bits: at most 2^15 - 1, as the bytes and the largest weights of the
 * inputs say. The sum over all terms is kept modulo 2^16, and so is that of the terms divided by 256
 * and rounded down. As of up to 256 terms what the division leaves is below 2^16 together, the two
 * give the exact sum.
 */
#include "sparse.h"

#ifdef QS_X86
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,popcnt")))
#define INLINE static inline TARGET __attribute__((always_inline))

enum { UNIT = 32, TOGETHER = 64, MOST_VECTORS = TOGETHER / UNIT, MOST_TERMS = 256 };

/* What is interleaved and summed apart comes out like this. */
static int column_at(int place) {
    int half = place / 16, high = place / 8 % 2, odd = place % 2;
    return 16 * high + 8 * odd + 4 * half + place % 8 / 2;
}

/* --- gathering --------------------------------------------------------------------------------- */

/* The places of the bits of `m`, lowest first, a byte each. */
#define PLACE(m, k, rest) ((rest) << 8 * ((m) >> (k) & 1) | (uint64_t)((m) >> (k) & 1) * (k))
#define PLACES(m)                                                                                  \
    PLACE(m, 0, PLACE(m, 1, PLACE(m, 2, PLACE(m, 3,                                                \
    PLACE(m, 4, PLACE(m, 5, PLACE(m, 6, PLACE(m, 7, (uint64_t)0))))))))
#define PLACES4(m) PLACES(m), PLACES(m + 1), PLACES(m + 2), PLACES(m + 3)
#define PLACES16(m) PLACES4(m), PLACES4(m + 4), PLACES4(m + 8), PLACES4(m + 12)
#define PLACES64(m) PLACES16(m), PLACES16(m + 16), PLACES16(m + 32), PLACES16(m + 48)
static const uint64_t PLACES_OF[256] = {PLACES64(0), PLACES64(64), PLACES64(128), PLACES64(192)};

static qs_term term_of(const qs_gathered *found, int at, int count) {
    qs_term term = {{0}, {0}};
    memcpy(term.inputs, found->inputs + at, (size_t)count * sizeof *found->inputs);
    memcpy(term.bytes, found->bytes + at, (size_t)count);
    return term;
}

static int size_of(const qs_gathered *found, int at) { return found->bytes[at] * found->largest[at]; }

/* Four inputs whose sum may exceed 16 bits, in more than one term. */
static int part(const qs_gathered *found, int at, qs_term *terms) {
    int count = 0;
    for (int i = at; i < at + 4; i += 2)
        if (size_of(found, i) + size_of(found, i + 1) <= INT16_MAX) {
            terms[count++] = term_of(found, i, 2);
        } else {
            terms[count++] = term_of(found, i, 1);
            terms[count++] = term_of(found, i + 1, 1);
        }
    return count;
}

TARGET static int find(const uint8_t *bytes, const uint8_t *largest, int inputs, qs_gathered *found) {
    int count = 0;
    for (int input = 0; input < inputs; input += 8) {
        __m128i eight = _mm_loadl_epi64((const __m128i *)(bytes + input));
        __m128i sizes = _mm_loadl_epi64((const __m128i *)(largest + input));
        int zeros = _mm_movemask_epi8(_mm_cmpeq_epi8(eight, _mm_setzero_si128()));
        int mask = ~zeros & 255;
        __m128i places = _mm_loadl_epi64((const __m128i *)&PLACES_OF[mask]);
        _mm_storeu_si128((__m128i *)(found->inputs + count),
                         _mm_add_epi16(_mm_cvtepu8_epi16(places), _mm_set1_epi16((short)input)));
        _mm_storel_epi64((__m128i *)(found->bytes + count), _mm_shuffle_epi8(eight, places));
        _mm_storel_epi64((__m128i *)(found->largest + count), _mm_shuffle_epi8(sizes, places));
        count += __builtin_popcount((unsigned)mask);
    }
    return count;
}

TARGET static int gather(const uint8_t *bytes, const uint8_t *largest, int inputs, qs_gathered *found,
                         qs_term *terms) {
    int count = find(bytes, largest, inputs, found), made = 0;
    _mm_storeu_si128((__m128i *)(found->inputs + count), _mm_setzero_si128());
    _mm_storel_epi64((__m128i *)(found->bytes + count), _mm_setzero_si128());
    for (int at = 0; at < count; at += 8) {
        __m128i eight = _mm_loadl_epi64((const __m128i *)(found->bytes + at));
        __m128i sizes = _mm_loadl_epi64((const __m128i *)(found->largest + at));
        __m128i pairs = _mm_madd_epi16(_mm_cvtepu8_epi16(eight), _mm_cvtepu8_epi16(sizes));
        __m128i fours = _mm_add_epi32(pairs, _mm_srli_epi64(pairs, 32));
        int large = _mm_movemask_epi8(_mm_cmpgt_epi32(fours, _mm_set1_epi32(INT16_MAX)));
        for (int half = 0; half < 2 && at + 4 * half < count; half++) {
            int four = at + 4 * half;
            if (large >> 8 * half & 1)
                made += part(found, four, terms + made);
            else
                terms[made++] = term_of(found, four, 4);
        }
    }
    return made;
}

/* --- the product ------------------------------------------------------------------------------- */

INLINE __m256i load(const int8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* The exact sums of 16 columns, even and odd ones apart. */
INLINE void widen(__m256i whole, __m256i rounded, __m256i *even, __m256i *odd) {
    __m256i rest = _mm256_sub_epi16(whole, _mm256_slli_epi16(rounded, 8));
    *even = _mm256_add_epi32(*even, _mm256_madd_epi16(rounded, _mm256_set1_epi32(256)));
    *even = _mm256_add_epi32(*even, _mm256_and_si256(rest, _mm256_set1_epi32(0xffff)));
    *odd = _mm256_add_epi32(*odd, _mm256_madd_epi16(rounded, _mm256_set1_epi32(256 << 16)));
    *odd = _mm256_add_epi32(*odd, _mm256_srli_epi32(rest, 16));
}

/* Columns of `vectors` times 32; `vectors` is a constant where this is called. */
INLINE void columns_of(int vectors, const qs_term *terms, int count, const int8_t *weights,
                       int32_t *sums) {
    const size_t width = 32 * (size_t)vectors;
    __m256i even[2 * MOST_VECTORS], odd[2 * MOST_VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < 2 * vectors; v++) even[v] = odd[v] = _mm256_setzero_si256();
    while (count > 0) {
        __m256i whole[2 * MOST_VECTORS], rounded[2 * MOST_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < 2 * vectors; v++) whole[v] = rounded[v] = _mm256_setzero_si256();
        int some = count < MOST_TERMS ? count : MOST_TERMS;
        count -= some;
        for (; some > 0; some--, terms++) {
            const int8_t *w0 = weights + terms->inputs[0] * width;
            const int8_t *w1 = weights + terms->inputs[1] * width;
            const int8_t *w2 = weights + terms->inputs[2] * width;
            const int8_t *w3 = weights + terms->inputs[3] * width;
            for (int i = 0; i < 4; i++) /* hardware does not foresee them */
                _mm_prefetch((const char *)(weights + terms[QS_AHEAD].inputs[i] * width), _MM_HINT_T0);
            int32_t bytes;
            memcpy(&bytes, terms->bytes, sizeof bytes);
            __m256i low = _mm256_set1_epi16((short)bytes);
            __m256i high = _mm256_set1_epi16((short)(bytes >> 16));
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                __m256i a = load(w0 + 32 * v), b = load(w1 + 32 * v);
                __m256i c = load(w2 + 32 * v), d = load(w3 + 32 * v);
                __m256i one = _mm256_add_epi16(
                    _mm256_maddubs_epi16(low, _mm256_unpacklo_epi8(a, b)),
                    _mm256_maddubs_epi16(high, _mm256_unpacklo_epi8(c, d)));
                __m256i two = _mm256_add_epi16(
                    _mm256_maddubs_epi16(low, _mm256_unpackhi_epi8(a, b)),
                    _mm256_maddubs_epi16(high, _mm256_unpackhi_epi8(c, d)));
                whole[2 * v] = _mm256_add_epi16(whole[2 * v], one);
                rounded[2 * v] = _mm256_add_epi16(rounded[2 * v], _mm256_srai_epi16(one, 8));
                whole[2 * v + 1] = _mm256_add_epi16(whole[2 * v + 1], two);
                rounded[2 * v + 1] =
                    _mm256_add_epi16(rounded[2 * v + 1], _mm256_srai_epi16(two, 8));
            }
        }
#pragma GCC unroll 4
        for (int v = 0; v < 2 * vectors; v++) widen(whole[v], rounded[v], &even[v], &odd[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 2 * vectors; v++) {
        _mm256_storeu_si256((__m256i *)(sums + 16 * v), even[v]);
        _mm256_storeu_si256((__m256i *)(sums + 16 * v + 8), odd[v]);
    }
}

TARGET static void multiply(const qs_term *terms, int count, const int8_t *weights, int inputs,
                            int columns, int32_t *sums) {
    int column = 0;
    for (; column + TOGETHER <= columns; column += TOGETHER, weights += (size_t)inputs * TOGETHER)
        columns_of(MOST_VECTORS, terms, count, weights, sums + column);
    if (column < columns) columns_of(1, terms, count, weights, sums + column);
}

const qs_sparse qs_sparse_avx2 = {UNIT, TOGETHER, column_at, gather, multiply};
#endif
