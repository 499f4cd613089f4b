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
    QS_AHEAD = 8,   /* terms whose weights are fetched ahead */
    QS_PAIR = 128, /* most that two neighbouring weights (2k, 2k + 1) may have together, absolutely */
    QS_MAX_INPUTS = 16384
};

#define QS_ORDER(groups) ((groups) + 2)
#define QS_CENTRES(groups) ((groups) / 4 * 2 * QS_BLOCK)

/* How the groups of each block lie for a kernel that `reorders` (pairs.c). */
typedef struct {
    uint16_t *places; /* [blocks][QS_ORDER(groups)]: how many fours and how many pairs there
                             * are, a four being two pairs, then the groups as they lie */
    int16_t *centres; /* [blocks][QS_CENTRES(groups)]: what a four's sums start from */
    int32_t *start;   /* [16 * blocks]: what whole sums start from where fours do */
} qs_order;

/* Bytes [rows, 4 * groups] (row r at `bytes + r * stride`) times packed weights of `blocks` blocks,
 * added to `start` [16 * blocks], into `sums` [rows, 16 * blocks].
 *
 * A block is [groups][16 outputs][4 inputs], so 64 bytes a group. A kernel that `reorders` has them
 * in another order in each block, others ignore `order`; NULL where they lie as they are.
 *
 * Bounds: a byte is at most 255, two neighbouring weights have at most QS_PAIR together, so what
 * AVX2 sums in 16 bits is at most 255 * 128 = 32,640 < 2^15. A whole sum is at most
 * 16,384 / 2 * 32,640 = 267,386,880, `start` at most 128 * 128 * 16,384 / 2 = 134,217,728, and both
 * together are below 2^31. */
typedef void qs_product(const uint8_t *bytes, size_t stride, int rows, const int8_t *weights,
                        int groups, const qs_order *order, const int32_t *start, int blocks,
                        int32_t *sums);

/* Four inputs of a row whose bytes are not 0; where there are fewer, the others' bytes are 0. */
typedef struct {
    uint16_t inputs[4];
    uint8_t bytes[4];
} qs_term;

/* Scratch of a sparse product. */
typedef struct {
    uint16_t *inputs; /* [inputs + 16] those of a row whose bytes are not 0 */
    uint8_t *bytes;   /* theirs, likewise */
    uint8_t *largest; /* their largest weights, likewise */
    qs_term *terms;   /* of QS_ROWS rows, [inputs] each, and QS_AHEAD more */
} qs_gathered;

/* A product that leaves out what is 0; weights lie as sparse.h says. */
typedef struct {
    int unit;     /* columns are a multiple of this */
    int together; /* columns that lie and are summed together: the unit times a power of 2, 64 to
                   * 256 */
    /* The column of a unit that lies at a place of it: so that what the kernel interleaves comes out
     * in order. */
    int (*column_at)(int place);
    /* Terms of a row whose products sum to 2^15 - 1 at most, absolutely: `largest` [inputs] are the
     * largest absolute weights. Gives how many there are. */
    int (*gather)(const uint8_t *bytes, const uint8_t *largest, int inputs, qs_gathered *scratch,
                  qs_term *terms);
    /* Terms times weights into sums [columns]. QS_AHEAD more terms may be read. */
    void (*multiply)(const qs_term *terms, int count, const int8_t *weights, int inputs,
                     int columns, int32_t *sums);
} qs_sparse;

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
    const qs_sparse *sparse; /* or NULL where dense products are as fast */
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
extern const qs_sparse qs_sparse_avx2;
extern const qs_sparse qs_sparse_avx512vnni;
qs_product qs_product_avxvnni;
qs_product qs_product_avx512vnni;
#endif

#if defined(__aarch64__) && defined(__linux__) && defined(__GNUC__)
#define QS_ARM 1
qs_product qs_product_neon;
#endif

#endif
