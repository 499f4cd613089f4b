/* What differs between CPUs: one integer product and the float operations.
 *
 * Integer sums are exact, so every kernel gives the same ones. Float operations are written once,
 * for eight lanes (lanes.h), in one fixed order with explicit fused multiply-adds; the compiler may
 * not contract others (-ffp-contract=off). So all kernels give the same bytes.
 */
#ifndef QS_KERNEL_H
#define QS_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum {
    QS_BLOCK = 16, /* outputs of a block of weights */
    QS_GROUP = 4,  /* inputs that are multiplied together */
    QS_PAIR = 128, /* most that two neighbouring weights (2k, 2k + 1) may have together, absolutely */
    QS_MAX_INPUTS = 16384
};

#define QS_ORDER(groups) ((groups) + 1)

/* Bytes [rows, 4 * groups] (row r at `bytes + r * stride`) times packed weights of `blocks` blocks,
 * added to `start` [16 * blocks], into `sums` [rows, 16 * blocks].
 *
 * A block is [groups][16 outputs][4 inputs], so 64 bytes a group. A kernel that `reorders` has them
 * in another order in each block: `order` is [blocks][QS_ORDER(groups)] with the number of pairs
 * (pairs.c), then the groups as they lie; NULL where they lie as they are. Others ignore it.
 *
 * Bounds: a byte is at most 255, two neighbouring weights have at most QS_PAIR together, so what
 * AVX2 sums in 16 bits is at most 255 * 128 = 32,640 < 2^15. A whole sum is at most
 * 16,384 / 2 * 32,640 = 267,386,880, `start` at most 128 * 128 * 16,384 / 2 = 134,217,728, and both
 * together are below 2^31. */
typedef void qs_product(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights,
                        int groups, const uint16_t *order, const int32_t *start, int blocks,
                        int32_t *sums);

/* Sums of a product and what makes them floats again: sum * row_step * step + bias. */
typedef struct {
    const int32_t *sums; /* [rows, columns] */
    int rows;
    int columns; /* a multiple of 16 */
    const float *row_steps;
    const float *steps;
    const float *bias;
} qs_panel;

/* Attention of `rows` queries to `length` positions, for one head of `width` values. Keys lie in
 * blocks of eight positions, [length / 8, rounded up][width][8]. */
typedef struct {
    const float *query;
    size_t query_stride;
    int rows;
    const float *keys;
    const float *values;
    size_t value_stride;
    int length;
    int width; /* a multiple of 8 */
    float scale;
    float *scores; /* scratch: 4 * (length rounded up to 8) */
    float *mix;
    size_t mix_stride;
} qs_attention;

/* Widths are multiples of 8. */
typedef struct {
    /* x = row * step + position */
    void (*embed)(const int8_t *row, float step, const float *position, int width, float *x);
    /* y = layer norm of x; y may be x */
    void (*norm)(const float *x, const float *gain, const float *bias, float epsilon, int width,
                 float *y);
    /* bytes = round(x / step) + 128 with |x / step| <= 127; gives the step */
    float (*quantise)(const float *x, int width, uint8_t *bytes);
    /* bytes = round(x / step) for x >= 0, up to 255; gives the step */
    float (*quantise_positive)(const float *x, int width, uint8_t *bytes);
    /* into out [rows, columns], row r at `out + r * stride` */
    void (*store)(const qs_panel *panel, float *out, size_t stride);
    void (*add)(const qs_panel *panel, float *out, size_t stride);
    void (*relu)(const qs_panel *panel, float *out, size_t stride);
    void (*silu)(float *x, int count);
    void (*gelu)(float *x, int count);
    void (*attend)(const qs_attention *attention);
    /* SSRU: both [2 * width] holds candidate and forget; the state changes, x += relu(state) */
    void (*recur)(const float *both, int width, float *state, float *x);
    float (*largest)(const float *x, int count);
    /* sum of exp(x - shift) */
    float (*exp_sum)(const float *x, int count, float shift);
} qs_floats;

typedef struct {
    const char *name;
    qs_product *product;
    const qs_floats *floats;
    int reorders;
    int (*runs_here)(void);
} qs_kernel;

/* The named kernel, or the best one for NULL; NULL where there is none that runs here. */
const qs_kernel *qs_choose_kernel(const char *name);

extern const qs_floats qs_floats_portable;
qs_product qs_product_portable;

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)
#define QS_X86 1
extern const qs_floats qs_floats_avx2;
qs_product qs_product_avx2;
qs_product qs_product_avxvnni;
qs_product qs_product_avx512vnni;
#endif

#if defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)
#define QS_ARM 1
qs_product qs_product_neon;
#endif

#endif
