/* A model as it lies in memory: weights packed for the kernels, once, shared by all threads. */
#ifndef QS_MODEL_H
#define QS_MODEL_H

#include "engine.h"
#include "kernel.h"

enum { QS_PAD = 0, QS_UNK = 1, QS_BOS = 2, QS_EOS = 3 };
enum { QS_RELU = 0, QS_SILU = 1, QS_GELU = 2 };

/* The head of a model's bytes after its magic: 16 numbers of 4 bytes. */
typedef struct {
    int32_t width;          /* a multiple of 8 */
    int32_t head_width;     /* a multiple of 8 */
    int32_t hidden;         /* that of the widest layer */
    int32_t encoder_layers;
    int32_t decoder_layers;
    int32_t vocab_size;
    int32_t source_vocab_size; /* 0: one table for both sides */
    int32_t positions;
    int32_t activation;
    int32_t post_norm;
    int32_t recurrent;
    int32_t shortlisted; /* translations come from candidates that each call brings */
    float epsilon;
    int32_t reserved[3];
} qs_dims;

/* What a layer has of its own, after the head: encoder layers first. */
typedef struct {
    int32_t heads;       /* of self-attention; of a recurrent unit, none: 0 */
    int32_t cross_heads; /* 0 in the encoder */
    int32_t hidden;      /* a multiple of 8 */
} qs_sizes;

/* A linear layer: outputs are filled up to a multiple of QS_BLOCK. */
typedef struct {
    int outputs;
    int inputs;
    int8_t *packed; /* [outputs / 16][inputs / 4][16][4], or as in sparse.h */
    uint8_t *largest; /* of a sparse layer, by input (sparse.h); else NULL */
    qs_order order; /* of the groups in each block; NULLs where they lie as they are */
    float *steps;
    float *bias;
    int32_t *start; /* what a sum starts from: -128 times the sum of the weights, or 0 */
} qs_linear;

typedef struct {
    float *gain;
    float *bias;
} qs_norm;

/* Rows of bytes with a step each: an embedding. */
typedef struct {
    int rows;
    int8_t *bytes;
    float *steps;
    int32_t *start;
} qs_table;

typedef struct {
    qs_norm norm;
    qs_linear inner;
    qs_linear outer;
} qs_feed_forward;

typedef struct {
    qs_sizes sizes;
    qs_norm norm;
    qs_linear qkv;
    qs_linear out;
    qs_feed_forward ffn;
} qs_encoder_layer;

typedef struct {
    qs_sizes sizes;
    qs_norm norm;
    qs_linear qkv; /* of a recurrent layer: candidate and forget gate */
    qs_linear out; /* none in a recurrent layer */
    qs_norm cross_norm;
    qs_linear query;
    qs_linear key_value;
    qs_linear cross_out;
    qs_feed_forward ffn;
} qs_decoder_layer;

typedef struct qs_block qs_block;

struct qs_model {
    qs_dims dims;
    const qs_kernel *kernel;
    float scale;           /* of embeddings: the square root of the width */
    float attention_scale; /* one over the square root of a head's width */
    float *positions;      /* [positions, width] */
    qs_table table;        /* of the target */
    qs_table source_table; /* the same where both sides share it */
    float *output_bias;    /* [vocab_size], what no translation holds at minus infinity */
    qs_linear output;      /* none where every call brings candidates */
    qs_encoder_layer *encoder;
    qs_norm encoder_norm; /* none with post_norm */
    qs_decoder_layer *decoder;
    qs_norm decoder_norm;
    qs_block *blocks; /* all memory, to be freed */
};

static inline int qs_padded(int count, int multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

#endif
