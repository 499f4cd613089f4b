/* Eight floats in plain C: what every other implementation must equal, bit for bit. */
#ifndef QS_LANES_PORTABLE_H
#define QS_LANES_PORTABLE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES_TARGET
#define INLINE static inline

typedef struct {
    float v[8];
} f8;

#define QS_EACH(expression)                                                                        \
    f8 out;                                                                                        \
    for (int i = 0; i < 8; i++) out.v[i] = (expression);                                           \
    return out

static inline f8 f8_load(const float *p) { f8 out; memcpy(out.v, p, sizeof out.v); return out; }
static inline void f8_store(float *p, f8 a) { memcpy(p, a.v, sizeof a.v); }
static inline f8 f8_set(float x) { QS_EACH(x); }
static inline f8 f8_add(f8 a, f8 b) { QS_EACH(a.v[i] + b.v[i]); }
static inline f8 f8_sub(f8 a, f8 b) { QS_EACH(a.v[i] - b.v[i]); }
static inline f8 f8_mul(f8 a, f8 b) { QS_EACH(a.v[i] * b.v[i]); }
static inline f8 f8_div(f8 a, f8 b) { QS_EACH(a.v[i] / b.v[i]); }
/* a * b + c, rounded once */
static inline f8 f8_fma(f8 a, f8 b, f8 c) { QS_EACH(fmaf(a.v[i], b.v[i], c.v[i])); }
static inline f8 f8_max(f8 a, f8 b) { QS_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
static inline f8 f8_min(f8 a, f8 b) { QS_EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
static inline f8 f8_abs(f8 a) { QS_EACH(fabsf(a.v[i])); }
static inline f8 f8_round(f8 a) { QS_EACH(nearbyintf(a.v[i])); }
static inline f8 f8_copysign(f8 a, f8 b) { QS_EACH(copysignf(a.v[i], b.v[i])); }
/* a where x >= y, else 0 */
static inline f8 f8_where_ge(f8 x, f8 y, f8 a) { QS_EACH(x.v[i] >= y.v[i] ? a.v[i] : 0.0f); }

/* 2 to the power of a whole number from -126 to 127 */
static inline f8 f8_exp2_whole(f8 a) {
    f8 out;
    for (int i = 0; i < 8; i++) {
        uint32_t bits = (uint32_t)((int32_t)a.v[i] + 127) << 23;
        memcpy(&out.v[i], &bits, sizeof bits);
    }
    return out;
}

static inline f8 f8_from_int32(const int32_t *p) { QS_EACH((float)p[i]); }
static inline f8 f8_from_int8(const int8_t *p) { QS_EACH((float)p[i]); }

/* bytes of round(a) + offset; the values must lie between 0 and 255 */
static inline void f8_to_bytes(f8 a, int offset, uint8_t *p) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)((int32_t)nearbyintf(a.v[i]) + offset);
}

static inline float f8_sum(f8 a) {
    float x = a.v[0] + a.v[4], y = a.v[1] + a.v[5], z = a.v[2] + a.v[6], w = a.v[3] + a.v[7];
    return (x + z) + (y + w);
}

static inline float f8_largest(f8 a) {
    float largest = a.v[0];
    for (int i = 1; i < 8; i++)
        if (a.v[i] > largest) largest = a.v[i];
    return largest;
}

#endif
