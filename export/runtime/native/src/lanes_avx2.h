/* Eight floats in a register of AVX2 and FMA. */
#ifndef QS_LANES_AVX2_H
#define QS_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define LANES_TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline LANES_TARGET __attribute__((always_inline))
#define F8 static inline LANES_TARGET

typedef __m256 f8;

F8 f8 f8_load(const float *p) { return _mm256_loadu_ps(p); }
F8 void f8_store(float *p, f8 a) { _mm256_storeu_ps(p, a); }
F8 f8 f8_set(float x) { return _mm256_set1_ps(x); }
F8 f8 f8_add(f8 a, f8 b) { return _mm256_add_ps(a, b); }
F8 f8 f8_sub(f8 a, f8 b) { return _mm256_sub_ps(a, b); }
F8 f8 f8_mul(f8 a, f8 b) { return _mm256_mul_ps(a, b); }
F8 f8 f8_div(f8 a, f8 b) { return _mm256_div_ps(a, b); }
F8 f8 f8_fma(f8 a, f8 b, f8 c) { return _mm256_fmadd_ps(a, b, c); }
/* b where a is not larger, as in plain C */
F8 f8 f8_max(f8 a, f8 b) { return _mm256_max_ps(a, b); }
F8 f8 f8_min(f8 a, f8 b) { return _mm256_min_ps(a, b); }
F8 f8 f8_abs(f8 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
F8 f8 f8_round(f8 a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
F8 f8 f8_copysign(f8 a, f8 b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}
F8 f8 f8_where_ge(f8 x, f8 y, f8 a) {
    return _mm256_and_ps(_mm256_cmp_ps(x, y, _CMP_GE_OQ), a);
}
F8 f8 f8_exp2_whole(f8 a) {
    __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
F8 f8 f8_from_int32(const int32_t *p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)p));
}
F8 f8 f8_from_int8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
F8 void f8_to_bytes(f8 a, int offset, uint8_t *p) {
    __m256i whole = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(offset));
    __m256i words = _mm256_packs_epi32(whole, whole); /* 0..3 0..3 | 4..7 4..7 */
    __m256i bytes = _mm256_packus_epi16(words, words);
    __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    _mm_storel_epi64((__m128i *)p, _mm_unpacklo_epi32(low, high));
}
F8 float f8_sum(f8 a) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four)); /* 0 + 2, 1 + 3 */
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
F8 float f8_largest(f8 a) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#undef F8
#endif
