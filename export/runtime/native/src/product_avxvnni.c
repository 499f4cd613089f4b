/* The integer product on AVX-VNNI: four products are summed in 32 bits at once. */
#include "kernel.h"

#ifdef QS_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,avxvnni")))
#define PRODUCT qs_product_avxvnni

static inline TARGET __attribute__((always_inline)) __m256i dot(__m256i sum, __m256i bytes,
                                                                __m256i weights) {
    return _mm256_dpbusd_avx_epi32(sum, bytes, weights);
}

#include "product_256.h"
#endif
