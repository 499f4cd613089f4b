/* Attention of one head, on eight lanes: scores of eight positions at a time, softmax, mixture.
 *
 * Included by one file for each implementation of the lanes, after rows.h. Queries come four at a
 * time, or alone; sums run over a head's values (even and odd ones apart) and over the positions in
 * their order either way.
 */
enum { TILE = 4 };

INLINE void scores_of(int rows, const float *const *query, const qs_attention *a, float *scores,
                      size_t stride) {
    for (int start = 0; start < a->length; start += 8) {
        const float *keys = a->keys + (size_t)start * (size_t)a->width;
        f8 even[TILE], odd[TILE];
        for (int r = 0; r < rows; r++) even[r] = odd[r] = f8_set(0.0f);
        for (int d = 0; d < a->width; d += 2) {
            f8 first = f8_load(keys + d * 8), second = f8_load(keys + d * 8 + 8);
            for (int r = 0; r < rows; r++) {
                even[r] = f8_fma(f8_set(query[r][d]), first, even[r]);
                odd[r] = f8_fma(f8_set(query[r][d + 1]), second, odd[r]);
            }
        }
        for (int r = 0; r < rows; r++)
            f8_store(scores + (size_t)r * stride + start,
                     f8_mul(f8_add(even[r], odd[r]), f8_set(a->scale)));
    }
}

/* Scores → exp(score - largest), 0 after the last position; gives what they are to be divided by. */
INLINE float soften(float *scores, int length, int padded) {
    for (int i = length; i < padded; i++) scores[i] = -INFINITY;
    f8 most = f8_load(scores);
    for (int i = 8; i < padded; i += 8) most = f8_max(f8_load(scores + i), most);
    f8 shift = f8_set(f8_largest(most)), sum = f8_set(0.0f);
    for (int i = 0; i < padded; i += 8) {
        f8 weight = f8_exp(f8_sub(f8_load(scores + i), shift));
        f8_store(scores + i, weight);
        sum = f8_add(sum, weight);
    }
    return f8_sum(sum);
}

/* `lanes` times eight values of the mixture from value `d` on */
INLINE void mixture(int rows, int lanes, const qs_attention *a, const float *weights, size_t stride,
                    const float *inverse, int d, float *const *mix) {
    f8 sums[TILE][8];
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < lanes; l++) sums[r][l] = f8_set(0.0f);
    const float *values = a->values + d;
    for (int j = 0; j < a->length; j++, values += a->value_stride)
        for (int r = 0; r < rows; r++) {
            f8 weight = f8_set(weights[(size_t)r * stride + (size_t)j]);
            for (int l = 0; l < lanes; l++)
                sums[r][l] = f8_fma(weight, f8_load(values + 8 * l), sums[r][l]);
        }
    for (int r = 0; r < rows; r++)
        for (int l = 0; l < lanes; l++)
            f8_store(mix[r] + d + 8 * l, f8_mul(sums[r][l], f8_set(inverse[r])));
}

/* `rows` is a constant where this is called: 1 or TILE. Of fewer queries the last one is repeated. */
INLINE void attend_rows(int rows, const qs_attention *a, int first) {
    int padded = (a->length + 7) / 8 * 8;
    size_t stride = (size_t)padded;
    const float *query[TILE];
    float *mix[TILE];
    for (int r = 0; r < rows; r++) {
        int row = first + r < a->rows ? first + r : a->rows - 1;
        query[r] = a->query + (size_t)row * a->query_stride;
        mix[r] = a->mix + (size_t)row * a->mix_stride;
    }
    scores_of(rows, query, a, a->scores, stride);
    float inverse[TILE];
    for (int r = 0; r < rows; r++)
        inverse[r] = 1.0f / soften(a->scores + (size_t)r * stride, a->length, padded);
    int d = 0;
    if (rows == 1)
        for (; d + 64 <= a->width; d += 64) mixture(1, 8, a, a->scores, stride, inverse, d, mix);
    else
        for (; d + 16 <= a->width; d += 16) mixture(rows, 2, a, a->scores, stride, inverse, d, mix);
    for (; d < a->width; d += 8) mixture(rows, 1, a, a->scores, stride, inverse, d, mix);
}

OP void attend(const qs_attention *a) {
    int row = 0;
    while (a->rows - row > 1) {
        attend_rows(TILE, a, row);
        row += a->rows - row < TILE ? a->rows - row : TILE;
    }
    if (row < a->rows) attend_rows(1, a, row);
}
