/* The float operations in plain C. */
#include "kernel.h"

#include "lanes_portable.h"

#include "rows.h"

#include "attention.h"

const qs_floats qs_floats_portable = {
    embed, norm, quantise, quantise_positive, store,   add,     relu,
    silu,  gelu, attend,   recur,             largest, exp_sum,
};
