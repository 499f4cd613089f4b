/* Layer norm, quantisation, activations and what makes sums floats again, on eight lanes.
 *
 * Included by one file for each implementation of the lanes.
 */
#include <math.h>

#include "kernel.h"

#define OP static LANES_TARGET

/* e^x to about 1e-7 of its value, and 0 below -87, where it would be no normal number
 * (Cephes, expf: x = n log 2 + f, log 2 in two parts, a polynomial of degree 7 for f). */
INLINE f8 f8_exp(f8 x) {
    const f8 lowest = f8_set(-87.0f);
    f8 held = f8_min(f8_max(x, lowest), f8_set(88.0f));
    f8 n = f8_round(f8_mul(held, f8_set(1.44269504f)));
    f8 f = f8_fma(n, f8_set(-0.693359375f), held);
    f = f8_fma(n, f8_set(2.12194440e-4f), f);
    f8 p = f8_set(1.9875691500e-4f);
    p = f8_fma(p, f, f8_set(1.3981999507e-3f));
    p = f8_fma(p, f, f8_set(8.3334519073e-3f));
    p = f8_fma(p, f, f8_set(4.1665795894e-2f));
    p = f8_fma(p, f, f8_set(1.6666665459e-1f));
    p = f8_fma(p, f, f8_set(5.0000001201e-1f));
    p = f8_fma(f8_mul(p, f), f, f8_add(f, f8_set(1.0f)));
    return f8_where_ge(x, lowest, f8_mul(p, f8_exp2_whole(n)));
}

INLINE f8 f8_sigmoid(f8 x) {
    const f8 one = f8_set(1.0f);
    return f8_div(one, f8_add(one, f8_exp(f8_sub(f8_set(0.0f), x))));
}

OP void embed(const int8_t *row, float step, const float *position, int width, float *x) {
    f8 scale = f8_set(step);
    for (int i = 0; i < width; i += 8)
        f8_store(x + i, f8_fma(f8_from_int8(row + i), scale, f8_load(position + i)));
}

OP void norm(const float *x, const float *gain, const float *bias, float epsilon, int width,
             float *y) {
    f8 sum = f8_set(0.0f), squares = f8_set(0.0f);
    for (int i = 0; i < width; i += 8) sum = f8_add(sum, f8_load(x + i));
    f8 mean = f8_set(f8_sum(sum) / (float)width);
    for (int i = 0; i < width; i += 8) {
        f8 apart = f8_sub(f8_load(x + i), mean);
        squares = f8_fma(apart, apart, squares);
    }
    f8 inverse = f8_set(1.0f / sqrtf(f8_sum(squares) / (float)width + epsilon));
    for (int i = 0; i < width; i += 8) {
        f8 normal = f8_mul(f8_sub(f8_load(x + i), mean), inverse);
        f8_store(y + i, f8_fma(normal, f8_load(gain + i), f8_load(bias + i)));
    }
}

/* Values above this are held to it, so that nothing that is not finite becomes a byte. */
#define FINITE 1e30f

INLINE float quantise_rows(const float *x, int width, uint8_t *bytes, float top, int offset) {
    f8 largest = f8_set(0.0f);
    for (int i = 0; i < width; i += 8) largest = f8_max(f8_abs(f8_load(x + i)), largest);
    float most = f8_largest(largest);
    float held = most < FINITE ? most : FINITE;
    float scale = held > 1e-30f ? top / held : 0.0f;
    f8 scales = f8_set(scale), highest = f8_set(top), lowest = f8_set(offset ? -top : 0.0f);
    for (int i = 0; i < width; i += 8) {
        /* a NaN becomes the lowest value */
        f8 within = f8_min(f8_max(f8_mul(f8_load(x + i), scales), lowest), highest);
        f8_to_bytes(within, offset, bytes + i);
    }
    return held > 1e-30f ? held / top : 0.0f;
}

OP float quantise(const float *x, int width, uint8_t *bytes) {
    return quantise_rows(x, width, bytes, 127.0f, 128);
}

OP float quantise_positive(const float *x, int width, uint8_t *bytes) {
    return quantise_rows(x, width, bytes, 255.0f, 0);
}

enum { STORE, ADD, RELU };

INLINE void panel_rows(const qs_panel *panel, float *out, size_t stride, int what) {
    for (int row = 0; row < panel->rows; row++) {
        const int32_t *sums = panel->sums + (size_t)row * (size_t)panel->columns;
        f8 row_step = f8_set(panel->row_steps[row]);
        float *to = out + (size_t)row * stride;
        for (int i = 0; i < panel->columns; i += 8) {
            f8 step = f8_mul(row_step, f8_load(panel->steps + i));
            f8 value = f8_fma(f8_from_int32(sums + i), step, f8_load(panel->bias + i));
            if (what == ADD) value = f8_add(f8_load(to + i), value);
            if (what == RELU) value = f8_max(value, f8_set(0.0f));
            f8_store(to + i, value);
        }
    }
}

OP void store(const qs_panel *panel, float *out, size_t stride) {
    panel_rows(panel, out, stride, STORE);
}

OP void add(const qs_panel *panel, float *out, size_t stride) {
    panel_rows(panel, out, stride, ADD);
}

OP void relu(const qs_panel *panel, float *out, size_t stride) {
    panel_rows(panel, out, stride, RELU);
}

OP void silu(float *x, int count) {
    for (int i = 0; i < count; i += 8) {
        f8 value = f8_load(x + i);
        f8_store(x + i, f8_mul(value, f8_sigmoid(value)));
    }
}

/* x * (1 + erf(x / sqrt 2)) / 2, with erf to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
OP void gelu(float *x, int count) {
    const f8 one = f8_set(1.0f);
    for (int i = 0; i < count; i += 8) {
        f8 value = f8_load(x + i);
        f8 z = f8_mul(f8_abs(value), f8_set(0.70710678f));
        f8 t = f8_div(one, f8_fma(f8_set(0.3275911f), z, one));
        f8 p = f8_fma(t, f8_set(1.061405429f), f8_set(-1.453152027f));
        p = f8_fma(p, t, f8_set(1.421413741f));
        p = f8_fma(p, t, f8_set(-0.284496736f));
        p = f8_mul(f8_fma(p, t, f8_set(0.254829592f)), t);
        f8 erf = f8_sub(one, f8_mul(p, f8_exp(f8_sub(f8_set(0.0f), f8_mul(z, z)))));
        f8 half = f8_mul(f8_set(0.5f), value);
        f8_store(x + i, f8_fma(half, f8_copysign(erf, value), half));
    }
}

/* c = f c' + (1 - f) candidate as candidate + f (c' - candidate) */
OP void recur(const float *both, int width, float *state, float *x) {
    for (int i = 0; i < width; i += 8) {
        f8 candidate = f8_load(both + i);
        f8 forget = f8_sigmoid(f8_load(both + width + i));
        f8 now = f8_fma(forget, f8_sub(f8_load(state + i), candidate), candidate);
        f8_store(state + i, now);
        f8_store(x + i, f8_add(f8_load(x + i), f8_max(now, f8_set(0.0f))));
    }
}

OP float largest(const float *x, int count) {
    f8 most = f8_set(-INFINITY);
    for (int i = 0; i < count; i += 8) most = f8_max(f8_load(x + i), most);
    return f8_largest(most);
}

OP float exp_sum(const float *x, int count, float shift) {
    f8 sum = f8_set(0.0f), shifts = f8_set(shift);
    for (int i = 0; i < count; i += 8)
        sum = f8_add(sum, f8_exp(f8_sub(f8_load(x + i), shifts)));
    return f8_sum(sum);
}
