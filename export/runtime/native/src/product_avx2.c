/* The integer product on AVX2: products of two neighbours are summed in 16 bits, then in 32.
 *
 * In 16 bits: at most 255 * 128 = 32,640, as kernel.h says, so nothing saturates.
 */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))
#define PRODUCT qs_product_avx2

static inline TARGET __attribute__((always_inline)) __m256i dot(__m256i sum, __m256i bytes,
                                                                __m256i weights) {
    __m256i pairs = _mm256_maddubs_epi16(bytes, weights);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "product_256.h"
#endif
