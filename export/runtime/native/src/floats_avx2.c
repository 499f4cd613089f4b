/* The float operations on AVX2 and FMA. */
#include "kernel.h"

#ifdef QS_X86
#include "lanes_avx2.h"

#include "rows.h"

#include "attention.h"

const qs_floats qs_floats_avx2 = {
    embed, norm, quantise, quantise_positive, store,   add,     relu,
    silu,  gelu, attend,   recur,             largest, exp_sum,
};
#endif
